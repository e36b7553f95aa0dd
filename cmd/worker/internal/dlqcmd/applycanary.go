package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// awaitCanaries waits until receipts prove that the canaries were recorded, or until the
// wait is over. It returns an error if any was rejected again, or if the wait was
// interrupted.
func (a *applying) awaitCanaries(ctx context.Context) error {
	d := a.session
	receipts := d.receipts.there()
	c := a.journal.state().CanaryCounts()
	until := time.Now().Add(a.canaryWait)
	how := "whether they are rejected again"
	if receipts {
		how = "what their receipts say"
	}
	d.console.say("worker: %s went ahead; waiting at most %v, until %s, to see %s. Meanwhile the other %s are back in the queue. After Ctrl-C the same command waits on",
		canary(c.Published), a.canaryWait, shortTime(until), how, command.Plural(a.journal.publishes(), "event"))
	nextLook := time.Now().Add(d.opts.CanaryLook)
	for again := 0; ; {
		pause := min(time.Until(until), time.Until(nextLook))
		if receipts {
			pause = min(pause, d.opts.ReceiptsLook)
		}
		err := d.console.wait(ctx, waitingForCanaries, max(0, pause))
		if err == nil && receipts {
			err = d.receipts.ofReplay(ctx, a.plan.ID, journaled(a.journal.state(), a.journal.record))
		}
		last := !time.Now().Before(until)
		missing := false
		if c = a.journal.state().CanaryCounts(); err == nil && c.Waiting > 0 && (last || !time.Now().Before(nextLook)) {
			missing, err = a.lookForCanaries(ctx)
			nextLook = time.Now().Add(d.opts.CanaryLook)
			c = a.journal.state().CanaryCounts()
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted while waiting for the canaries: %s published, %d of them rejected again so far; the rest is in the queue", canary(c.Published), c.Rejected)
		case err != nil:
			return fmt.Errorf("what became of the canaries cannot be seen; the rest is in the queue: %w", err)
		case c.Rejected > 0:
			return fmt.Errorf("%d of %s were rejected again: the rest was not published, and is in the queue. Make a new plan, or apply this one with --canary 0", c.Rejected, canary(c.Published))
		case receipts && c.Waiting == 0:
			d.console.say("worker: %s were recorded; going on with the rest", canary(c.Published))
			return a.journal.record(plan.Record{Kind: plan.CanariesPassed})
		case last && missing && again < maxLooksAgain:
			again++
			until = d.lookAgain()
		case last:
			return a.unproven(c, receipts)
		}
	}
}

// unproven decides when the wait is over and the canaries were not rejected again.
func (a *applying) unproven(c plan.Counts, receipts bool) error {
	switch {
	case receipts && c.Recorded+c.Duplicates == 0:
		return fmt.Errorf("no receipt came for %s in %v, so that nothing says that events arrive; the rest is in the queue. See whether the worker runs, and apply the plan again; --canary 0 does not wait", canary(c.Published), a.canaryWait)
	case receipts:
		a.session.console.say("worker: %d of %s were recorded and none was rejected again; %d have no receipt. Going on with the rest", c.Recorded+c.Duplicates, canary(c.Published), c.Waiting)
	default:
		a.session.console.say("worker: the canaries were not seen again in %v (nothing says that they arrived: RECEIPTS_SUBSCRIPTION is not set); going on with the rest", a.canaryWait)
	}
	return a.journal.record(plan.Record{Kind: plan.CanariesPassed})
}

// lookForCanaries looks through the whole queue. missing reports whether it saw fewer
// messages than before.
func (a *applying) lookForCanaries(ctx context.Context) (missing bool, err error) {
	missing, err = a.session.queue.again(ctx, &dlq.Filter{PublishedBefore: a.filter.PublishedBefore}, func(w *dlq.Walk) error {
		w.Ours, w.OnLate = a.journal.ours, a.journal.late
		return w.Each(ctx, func(*dlq.Stored) error { return nil }, nil)
	})
	return missing, errors.Join(err, ctx.Err())
}
