package relay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// stopping is the end of a run. The loop owns it.
type stopping struct {
	why  Ended
	err  error     // that stopped the run
	work time.Time // when events in flight are released, whatever their streams do
	// noStream says that the run ended without a stream from Pub/Sub; "": it did not.
	noStream string
	until    time.Time // when the wait for the acknowledgements ends
}

// workShare is how much of the shutdown timeout belongs to the events in flight; the rest
// is for releasing them and for confirming acknowledgements.
const workShare = 0.75

// stop begins the end: nothing more is received, streams in flight are finished, and
// everything else is released.
func (l *loop) stop(why Ended, err error, now time.Time) {
	if l.run.stopping {
		l.stopping.err = errors.Join(l.stopping.err, err)
		return
	}
	health := l.receiving.receiver.Health()
	l.run.stopping = true
	l.stopping = stopping{
		why: why, err: err,
		work:     now.Add(time.Duration(workShare * float64(l.run.opts.ShutdownTimeout))),
		until:    now.Add(l.run.opts.ShutdownTimeout),
		noStream: noStreamAtEnd(health, now),
	}
	if why == Deadline && l.unproven(now) {
		l.run.metrics.DrainsUnproven.Inc()
		found := []any{"empty_pulls", l.drain.pulls, "streams", health.Open}
		if l.drain.pullError != nil {
			found = append(found, "pull_error", l.drain.pullError)
		}
		l.run.log.Warn("The drain found nothing more, but could not prove that the subscription is empty", found...)
	}
	l.run.log.Info("Stopping", "why", string(why), "in_flight", l.inflight.count, "streams", l.submitter.active())
	l.receiving.stop()
	l.run.cancelFetch()
	if err != nil {
		l.run.cancelWork() // nothing can be settled well now
	}
	l.releaseWaiting(err != nil, now)
}

// releaseWaiting submits fresh events as far as streams are free, and releases all other
// events that wait: they are there for another instance at once.
func (l *loop) releaseWaiting(failed bool, now time.Time) {
	unavailable := l.availability.breaker.Open()
	if !failed && !unavailable {
		l.queue.groups.Flush()
		for l.submitter.free() {
			s := l.nextFresh(false, now)
			if s == nil {
				break
			}
			l.start(s)
		}
	}
	l.settlement.releaseRest(l.queue.groups.TakeAll(), failed || unavailable)
	for _, s := range append(l.queue.takeRetries(), l.suspects.controls.takeAll()...) {
		l.settlement.releaseRest(s.events, unavailable)
	}
	if noTopic := l.deadLetters.unavailable != ""; failed || noTopic {
		l.settlement.releaseRest(l.deadLetters.pending.TakeAll(), noTopic)
	}
	l.settlement.flush()
}

// unproven reports whether a drain that is to end has nothing left to do and yet could
// not prove that the subscription is empty. A pull without an answer sets the clock of
// DrainIdle back, so it counts by itself.
func (l *loop) unproven(now time.Time) bool {
	opts := l.run.opts
	return opts.Drain && l.finished(now) && !l.availability.breaker.Open() && l.receiving.preflight == preflightPassed &&
		(now.Sub(l.run.lastBusy) >= opts.DrainIdle || !l.receiving.open(now) || l.drain.pullError != nil)
}

// ended reports whether the run is over: every event is settled and no goroutine works
// for the loop. When their time is over, it cancels the streams in flight.
func (l *loop) ended(now time.Time) bool {
	if !l.run.stopping {
		return false
	}
	if !now.Before(l.stopping.work) {
		l.run.cancelWork()
		if l.deadLetters.writing == 0 {
			l.settlement.releaseRest(l.deadLetters.pending.TakeAll(), true)
		}
		l.settlement.flush()
	}
	return l.inflight.count == 0 && l.submitter.active() == 0 && l.deadLetters.writing == 0 && !l.receiving.active &&
		!l.receiving.pulling && !l.availability.probing && !l.drain.pulling && l.receiving.preflight != preflightRunning
}

// finish waits for the acknowledgements and says why the run was no success; nil if it
// was one.
func (l *loop) finish(ctx context.Context) error {
	errs := []error{l.stopping.err}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), l.stopping.until)
	defer cancel()
	receiver := l.receiving.receiver
	if err := receiver.Flush(ctx); err != nil {
		errs = append(errs, fmt.Errorf("Pub/Sub has not confirmed %d acknowledgements and releases: it will deliver those events again", receiver.Unconfirmed()))
	}
	now := time.Now()
	errs = append(errs, l.availability.atEnd(l.stopping.err != nil))
	undecided, opts := &l.settlement.undecided, l.run.opts
	undecided.warn(l.run.log, now)
	if opts.Drain && l.stopping.why != Signal && !l.availability.breaker.Open() {
		errs = append(errs, undecided.failure(l.results.everRecorded, now))
	}
	if l.deadLetters.unavailable != "" {
		errs = append(errs, fmt.Errorf("the run ended while the dead-letter topic does not take messages: %s", l.deadLetters.unavailable))
	}
	if l.stopping.noStream != "" && l.stopping.err == nil {
		errs = append(errs, errors.New("the run ended while "+l.stopping.noStream))
	}
	reached := l.receiving.preflight == preflightPassed
	if opts.Drain && l.stopping.why == Deadline && reached && l.settlement.accounting.Received == 0 && !l.drain.sawEmpty {
		errs = append(errs, errors.New("the run has received nothing, and has not seen that the subscription is empty"))
	}
	if !reached && l.stopping.err == nil {
		errs = append(errs, errors.New("the run ended before Pub/Sub could be reached"))
	}
	if n := l.settlement.unsettled; n > 0 {
		errs = append(errs, fmt.Errorf("%d events could not be settled and were released", n))
	}
	return errors.Join(errs...)
}
