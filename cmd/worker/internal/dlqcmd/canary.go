package dlqcmd

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// defaultCanaryWait is the usual interval of jobs, 15 minutes, plus the longest run of one,
// 5 minutes.
const defaultCanaryWait = 20 * time.Minute

// maxLooksAgain bounds how often the wait for canaries is prolonged for messages that
// another reader has leased. Messages that are still missing then were probably removed.
const maxLooksAgain = 2

// waitingForCanaries is the text of the bar during the wait.
const waitingForCanaries = "waiting for the canaries"

// replayAfterCanaries replays some messages, waits, and replays the rest if none of
// them was rejected again.
func (r *replay) replayAfterCanaries(ctx context.Context, n *counts) error {
	d := r.session
	if nothing, err := r.survey(ctx, n); err != nil || nothing {
		return err
	}
	var canaries dlq.Canaries
	if err := r.replayCanaries(ctx, n, &canaries); err != nil {
		return err
	}
	ahead, limit := n.done, d.filter.Limit
	if n.again > 0 {
		return r.returned(n)
	}
	if ahead > 0 {
		if err := r.await(ctx, n, &canaries); err != nil {
			return err
		}
		if limit > 0 && ahead >= limit {
			return nil
		}
	}
	if limit > 0 {
		d.filter.Limit = limit - ahead
	}
	d.selected.expected = n.matched - ahead
	err := r.replayAll(ctx, n)
	n.matched += ahead
	n.done += ahead
	return err
}

// replayCanaries replays the first messages that can be replayed. It does not report
// the others: the replay of the rest does.
func (r *replay) replayCanaries(ctx context.Context, n *counts, canaries *dlq.Canaries) error {
	d := r.session
	return d.queue.pass(ctx, d.filter, n, func(w *dlq.Walk) error {
		// A worker that runs all the time rejects them at once.
		w.OnLate = r.watchFor(n, canaries, true)
		w.Ours = r.replayed.Returned
		replayer := r.replayer(r.publisher.sink(w), func(*dlq.Stored, error) {})
		kind := replayer.OnReplayed
		replayer.OnReplayed = func(s *dlq.Stored, m *pubsubpb.PubsubMessage) {
			canaries.Add(s, m)
			kind(s, m)
		}
		err := w.Each(ctx, func(s *dlq.Stored) error {
			if replayer.Added >= r.canaries {
				return nil
			}
			return r.publisher.add(ctx, replayer, s)
		}, func() error { return replayer.Flush(ctx) })
		n.done, n.failed = replayer.Counts()
		n.canaries = n.done
		return err
	})
}

// await waits for the canaries, and looks for them in the queue now and then. It
// returns an error if any was rejected again, or if the wait was interrupted.
func (r *replay) await(ctx context.Context, n *counts, canaries *dlq.Canaries) error {
	d := r.session
	until := time.Now().Add(r.canaryWait)
	d.console.say("worker: %s went ahead; waiting %v, until %s, to see whether they are rejected again. Meanwhile the %s messages not replayed are back in the queue, and Ctrl-C leaves them there",
		canary(n.done), r.canaryWait, shortTime(until), command.Comma(n.matched-n.done))
	nextLook := time.Now().Add(d.opts.CanaryLook)
	for again := 0; ; {
		err := d.console.wait(ctx, waitingForCanaries, r.untilLook(until, nextLook))
		recorded := 0
		if err == nil {
			recorded, err = r.readVerdicts(ctx, n, canaries)
		}
		last := !time.Now().Before(until)
		missing := false
		if err == nil && n.again == 0 && recorded < n.done {
			if !last && time.Now().Before(nextLook) {
				continue
			}
			missing, err = r.findCanaries(ctx, n, canaries)
			nextLook = time.Now().Add(d.opts.CanaryLook)
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted while waiting for the canaries: %s replayed and not seen again so far; the rest is in the queue", canary(n.done))
		case err != nil:
			return fmt.Errorf("whether the canaries were rejected again cannot be seen: %s replayed, the rest is in the queue: %w", canary(n.done), err)
		case n.again > 0:
			return r.returned(n)
		case recorded == n.done:
			d.console.say("worker: %s were recorded; going on with the rest", canary(n.done))
			return nil
		case last && missing && again < maxLooksAgain:
			again++
			until = d.lookAgain()
		case last:
			proof := "nothing says that they arrived"
			if recorded > 0 {
				proof = fmt.Sprintf("%d were recorded, and %d have no receipt", recorded, n.done-recorded)
			}
			d.console.say("worker: the canaries were not seen again in %v (%s); going on with the rest", r.canaryWait, proof)
			return nil
		default:
			d.console.say("worker: the canaries were not seen again so far; waiting until %s", shortTime(until))
		}
	}
}

// untilLook returns how long to wait before the next look.
func (r *replay) untilLook(until, nextLook time.Time) time.Duration {
	d := r.session
	pause := min(time.Until(until), time.Until(nextLook))
	if d.receipts.there() {
		pause = min(pause, d.opts.ReceiptsLook)
	}
	return max(0, pause)
}

// readVerdicts reads the receipts of the canaries, where there are receipts. It returns
// how many canaries were recorded, and counts those that were rejected.
func (r *replay) readVerdicts(ctx context.Context, n *counts, canaries *dlq.Canaries) (recorded int, err error) {
	d := r.session
	if !d.receipts.there() {
		return 0, nil
	}
	if r.verdicts == nil {
		r.verdicts = map[string]plan.Verdict{}
	}
	err = d.receipts.ofReplay(ctx, r.publisher.id, func(ours []plan.Receipt) error {
		for _, receipt := range ours {
			if receipt.Verdict == plan.Rejected && r.verdicts[receipt.Origin] == "" {
				d.console.say("worker: a canary was rejected again: %s", dlq.Word(receipt.Reason))
			}
			if r.verdicts[receipt.Origin] == "" || receipt.Verdict == plan.Recorded {
				r.verdicts[receipt.Origin] = receipt.Verdict
			}
		}
		return nil
	})
	n.again = 0
	for _, origin := range canaries.Origins() {
		switch r.verdicts[origin] {
		case plan.Recorded, plan.Duplicate:
			recorded++
		case plan.Rejected:
			n.again++
		}
	}
	return recorded, err
}

func canary(n int) string {
	if n == 1 {
		return "1 canary"
	}
	return command.Comma(n) + " canaries"
}

// findCanaries looks for canaries in the whole queue. missing reports whether it saw fewer
// messages than before.
func (r *replay) findCanaries(ctx context.Context, n *counts, canaries *dlq.Canaries) (missing bool, err error) {
	d := r.session
	n.again = 0
	all := &dlq.Filter{PublishedBefore: d.filter.PublishedBefore}
	return d.queue.again(ctx, all, func(w *dlq.Walk) error {
		w.OnLate = r.watchFor(n, canaries, true)
		see := r.watchFor(n, canaries, false)
		err := w.Each(ctx, func(s *dlq.Stored) error { see(s); return nil }, nil)
		if err == nil {
			n.left = w.Queue.Leased()
		}
		return err
	})
}

// watchFor returns a function that counts and reports the canaries among messages. Its
// messages are all newer than the start of the replay, or all older.
func (r *replay) watchFor(n *counts, canaries *dlq.Canaries, after bool) func(*dlq.Stored) {
	const limit = 20
	return func(s *dlq.Stored) {
		if canaries.Returned(s, after) {
			if n.again++; n.again <= limit {
				r.session.console.say("worker: canary %s was rejected again: %s: %s", nameOf(s), dlq.Word(string(s.Reason)), detailOf(s))
			}
		}
		if after {
			r.watch.add(s)
		}
	}
}

// returned is the error of a replay whose canaries were rejected again.
func (r *replay) returned(n *counts) error {
	return fmt.Errorf("%d of %s were rejected again: the rest was not replayed, and is in the queue", n.again, canary(n.done))
}

// lookAgain says that the queue is read for the canaries once more, and returns when.
func (d *session) lookAgain() time.Time {
	d.console.say("worker: canaries may be among the messages that another process has leased; looking again in %v", d.opts.LookAgain)
	return time.Now().Add(d.opts.LookAgain)
}
