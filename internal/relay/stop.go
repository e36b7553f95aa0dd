package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
)

// stopping is the end of a run. The loop owns it.
type stopping struct {
	on   bool
	why  Ended
	err  error     // that stopped the run
	work time.Time // when what is in flight is given up
	// streamless says that the run ended without a stream from Pub/Sub; "": it did not.
	streamless string
	until      time.Time // when the acknowledgements are
}

// workShare is how much of the shutdown timeout belongs to what is in flight;
// the rest is for releasing it and for confirming acknowledgements.
const workShare = 0.75

// stop begins the end: nothing more is received, what is in flight is finished,
// everything else is released.
func (r *Relay) stop(why Ended, err error, now time.Time) {
	if r.stopping.on {
		r.stopping.err = errors.Join(r.stopping.err, err)
		return
	}
	r.stopping = stopping{
		on: true, why: why, err: err,
		work:  now.Add(time.Duration(workShare * float64(r.opts.ShutdownTimeout))),
		until: now.Add(r.opts.ShutdownTimeout),
	}
	r.stopping.streamless = streamsAtEnd(r.receiver.Health(), now)
	if why == Deadline && r.unproven(now) {
		r.m.DrainsUnproven.Inc()
		found := []any{"empty_pulls", r.pulls, "streams", r.receiver.Health().Open}
		if r.pullError != nil {
			found = append(found, "pull_error", r.pullError)
		}
		r.log.Warn("The drain found nothing more, but could not prove that the subscription is empty", found...)
	}
	r.log.Info("Stopping", "why", string(why), "in_flight", r.count, "streams", r.flying)
	r.stopPulling()
	r.cancelFetch()
	if err != nil {
		// Nothing can be settled well any more.
		r.cancelWork()
	}
	// What waits for company need not any more, as far as there are free slots.
	// The rest is not in flight, and is there for another instance at once.
	away := err != nil || r.breaker.Open()
	if !away {
		r.groups.Flush()
		r.dispatchFresh(now)
	}
	for _, h := range r.groups.TakeAll() {
		r.giveUp(h, away)
	}
	// Nor is what waits for another try.
	for _, f := range r.takeWaiting() {
		for _, h := range f.events {
			r.giveUp(h, r.breaker.Open())
		}
	}
	if err != nil || r.graveyard.away != "" {
		for _, h := range r.graves.TakeAll() {
			r.giveUp(h, r.graveyard.away != "")
		}
	}
	r.flushSettled()
}

// giveUp releases an event at the end.
func (r *Relay) giveUp(h *held, unsettled bool) {
	if h.gone {
		return
	}
	if unsettled {
		r.unsettled++
	}
	r.release(h)
}

// stopped reports whether everything is settled, and gives up what is in flight
// when its time is over.
func (r *Relay) stopped(now time.Time) bool {
	if !r.stopping.on {
		return false
	}
	if !now.Before(r.stopping.work) {
		r.cancelWork()
		if r.digging == 0 {
			for _, h := range r.graves.TakeAll() {
				r.giveUp(h, true)
			}
		}
		r.flushSettled()
	}
	return r.count == 0 && r.flying == 0 && r.digging == 0 && !r.receiving &&
		!r.probing.pulling && !r.probing.asking && !r.checking && !r.preparing
}

// finish confirms the acknowledgements and says whether the run was a success.
func (r *Relay) finish(ctx context.Context) error {
	errs := []error{r.stopping.err}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), r.stopping.until)
	defer cancel()
	if err := r.receiver.Flush(ctx); err != nil {
		errs = append(errs, fmt.Errorf("Pub/Sub has not confirmed %d acknowledgements and releases: it will deliver those events again", r.receiver.Unconfirmed()))
	}
	switch {
	case !r.breaker.Open() || r.stopping.err != nil && !r.breaker.Failed():
		// It is open, or the run failed before there was time for an answer.
	case r.breaker.Failed():
		errs = append(errs, fmt.Errorf("the run ended while %s: %s", r.breaker.Cause().Text(), r.breaker.Detail()))
	case r.breaker.Cause() == breaker.SAMS:
		errs = append(errs, errors.New("the run ended before SAMS answered for the first time"))
	default:
		errs = append(errs, errors.New("the run ended before the gateway answered for the first time"))
	}
	errs = append(errs, r.undecidedError())
	if r.graveyard.away != "" {
		errs = append(errs, fmt.Errorf("the run ended while the dead-letter topic does not take messages: %s", r.graveyard.away))
	}
	if r.stopping.streamless != "" && r.stopping.err == nil {
		errs = append(errs, errors.New("the run ended while "+r.stopping.streamless))
	}
	if r.opts.Drain && r.stopping.why == Deadline && r.cleared && r.books.Received == 0 && !r.sawEmpty {
		errs = append(errs, errors.New("the run has received nothing, and has not seen that the subscription is empty"))
	}
	if !r.cleared && r.stopping.err == nil {
		errs = append(errs, errors.New("the run ended before Pub/Sub could be reached"))
	}
	if r.unsettled > 0 {
		errs = append(errs, fmt.Errorf("%d events could not be settled and were released", r.unsettled))
	}
	return errors.Join(errs...)
}
