package relay

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// loop is the one goroutine that decides. Its parts decide alone where they can; the
// loop is what needs several of them. Nothing else touches it.
type loop struct {
	run          *run
	inflight     *inflightSet
	settlement   *settlement
	deadLetters  *deadLetterQueue
	queue        *submissionQueue
	submitter    *submitter
	suspects     *suspects
	results      *results
	receiving    *receiving
	availability *availability
	drain        drainCheck
	stopping     stopping

	started  time.Time
	deadline time.Time // of receiving; zero: none
}

// tick is how often the loop does what no timer and no result asks for.
const tick = 200 * time.Millisecond

// newLoop returns the loop of a run whose contexts exist.
func newLoop(r *Relay, now time.Time) *loop {
	opts, run := r.opts, r.run
	l := &loop{run: run, started: now}
	if opts.ReceiveWindow > 0 {
		l.deadline = now.Add(opts.ReceiveWindow)
	}
	limit := newLimit(opts)
	l.inflight = newInflightSet(opts.Services.Listed, opts.Metrics)
	l.settlement = newSettlement(run, l.inflight, r.receiver, r.decoding.hasher)
	l.deadLetters = newDeadLetterQueue(run, l.inflight, l.settlement, r.deadLetters)
	l.queue = newSubmissionQueue(run, l.settlement, limit)
	l.submitter = newSubmitter(run, r.gateway, newEncoder(r.decoding.decode, opts.Consume.MaxBytes), limit)
	l.receiving = newReceiving(run, r.receiver)
	l.availability = &availability{
		run: run, gateway: r.gateway, breaker: newBreaker(run, now), receiving: l.receiving,
		inflight: l.inflight, queue: l.queue, submitter: l.submitter, probes: make(chan error, 1), started: now,
	}
	l.suspects = &suspects{
		run: run, inflight: l.inflight, queue: l.queue, deadLetters: l.deadLetters, availability: l.availability,
		controls: newControls(run, l.inflight, l.queue),
		history:  verdict.History{Rules: verdict.Rules{RejectAfter: opts.RejectAfter, MinSpan: cmp.Or(opts.RejectSpan, verdict.DefaultSpan)}},
	}
	l.suspects.schedule.history = &l.suspects.history
	l.results = &results{
		run: run, inflight: l.inflight, settlement: l.settlement, deadLetters: l.deadLetters, queue: l.queue,
		submitter: l.submitter, suspects: l.suspects, availability: l.availability, streams: streamHistory{rejectAfter: opts.RejectAfter},
	}
	return l
}

// relay relays until the run is over. The end of ctx stops it in good order.
func (l *loop) relay(ctx context.Context, arrivals <-chan arrival, report func(now time.Time)) error {
	now := l.started
	l.run.metrics.GatewayAvailable.Set(0)
	l.receiving.check()

	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	signal := ctx.Done()
	for {
		l.deadLetters.write(now)
		l.dispatch(now)
		if l.ended(now) {
			return l.finish(ctx)
		}
		timer.Reset(l.wake(now).Sub(now))
		select {
		case a := <-arrivals:
			now = time.Now()
			l.arrive(a, now)
		case r := <-l.submitter.results:
			now = time.Now()
			l.results.take(r, l.receiving.receiver.NearCapacity(), now)
		case r := <-l.deadLetters.written:
			now = time.Now()
			l.deadLetters.take(r, now)
		case err := <-l.availability.probes:
			now = time.Now()
			if err := l.availability.probed(err, now); err != nil {
				l.stop(Failed, err, now)
			}
		case r := <-l.receiving.pulled:
			now = time.Now()
			l.pulled(r, now)
		case err := <-l.receiving.checked:
			now = time.Now()
			l.preflightEnded(err, now)
		case err := <-l.receiving.ended:
			now = time.Now()
			l.receivingEnded(err, now)
		case <-signal:
			now = time.Now()
			signal = nil
			l.stop(Signal, nil, now)
		case <-timer.C:
			now = time.Now()
		case <-ticker.C:
			now = time.Now()
			report(now)
			l.onTick(now)
		}
	}
}

// wake says when something is due that no goroutine reports.
func (l *loop) wake(now time.Time) time.Time {
	wake := now.Add(time.Hour)
	at := func(t time.Time) {
		if t.Before(wake) {
			wake = t
		}
	}
	if l.run.stopping && now.Before(l.stopping.work) {
		at(l.stopping.work)
	}
	switch b := l.availability.breaker; {
	case b.Open():
		if !l.run.stopping && !l.availability.probing && l.submitter.active() == 0 {
			at(later(b.NextProbe(), now))
		}
	case l.submitter.free():
		if due, ok := l.queue.due(); ok {
			at(due)
		}
	}
	if due, ok := l.deadLetters.due(); ok {
		at(due)
	}
	return wake
}

// later is t, or a tick from now if t is over: a step that could not be done at its
// time is tried again, but not in a hot loop.
func later(t, now time.Time) time.Time {
	if t.After(now) {
		return t
	}
	return now.Add(tick)
}

// onTick does what no timer and no result asks for.
func (l *loop) onTick(now time.Time) {
	l.settlement.turn(now)
	if l.run.stopping {
		return
	}
	l.availability.remindUnanswered(now)
	l.settlement.releaseOld(now)
	if l.submitter.active() == 0 && !l.queue.othersWait() {
		l.availability.pass()
	}
	if !l.deadline.IsZero() && !now.Before(l.deadline) {
		l.stop(Deadline, nil, now)
		return
	}
	if l.run.opts.Drain {
		l.stepDrain(now)
	}
}

// dispatch submits everything that is due, as far as streams are free.
func (l *loop) dispatch(now time.Time) {
	if l.run.stopping {
		return
	}
	l.queue.endDelays(now)
	if l.availability.breaker.Open() {
		l.probe(now)
		return
	}
	l.suspects.takeTurn(l.results.streams.clock, now)
	l.suspects.controls.freeLight()
	for l.submitter.free() {
		s := l.next(now)
		switch {
		case s != nil:
			l.start(s)
		case l.suspects.controls.freeFresh(l.submitter.active(), now):
		case l.queue.groups.Len() == 0 || !l.receiving.receiver.NearCapacity():
			return
		default:
			// Nothing more can come before an event is settled: batches would wait to
			// fill in vain.
			if s = l.nextFresh(true, now); s == nil {
				return
			}
			l.start(s)
		}
	}
}

// next takes in turns fresh events, events that are submitted again, and suspects, so
// that much of one kind holds up none of the others.
func (l *loop) next(now time.Time) *submission {
	const sources = 3
	for range sources {
		l.queue.latestSource = (l.queue.latestSource + 1) % sources
		var s *submission
		switch l.queue.latestSource {
		case 0:
			s = l.nextFresh(false, now)
		case 1:
			s = l.queue.nextRetry()
		case 2:
			s = l.suspects.next()
		}
		if s != nil {
			return s
		}
	}
	return nil
}

// nextFresh takes the next batch of fresh events, without those that are kept back. partial
// asks for one that is not due.
func (l *loop) nextFresh(partial bool, now time.Time) *submission {
	for {
		s := l.queue.nextBatch(partial, now)
		if s == nil {
			return nil
		}
		if !l.run.stopping {
			l.suspects.controls.keepFresh(s, l.availability.breaker.Closed(), now)
		}
		if len(s.events) > 0 {
			return s
		}
	}
}

// start submits.
func (l *loop) start(s *submission) {
	s.started, s.startedAt = l.results.streams.tick(), time.Now()
	l.suspects.start(s)
	l.settlement.accounting.Batches++
	l.submitter.start(s)
}

// probe asks whether the service is back, in the way that the breaker says.
func (l *loop) probe(now time.Time) {
	switch l.availability.breaker.Probe(now) {
	case breaker.NoProbe:
	case breaker.AskGateway:
		l.availability.probe()
	case breaker.RecordEvents:
		if l.submitter.active() == 0 {
			if s := l.nextProbe(now); s != nil {
				l.start(s)
			}
		}
	}
}

// nextProbe takes the events that show whether the gateway records again. Fresh ones can
// clear suspects: they come first, from the events in flight or else from Pub/Sub.
func (l *loop) nextProbe(now time.Time) *submission {
	l.queue.groups.Flush()
	s := l.queue.nextRetry()
	if s == nil {
		s = l.nextFresh(false, now)
	}
	if s == nil {
		s = l.suspects.controls.takeOne()
	}
	if s == nil {
		l.receiving.pullFew()
		s = l.queue.nextPiece()
	}
	if s == nil {
		s = l.queue.nextTry(func(*submission) bool { return true })
	}
	return s
}

// preflightEnded takes the end of the preflight.
func (l *loop) preflightEnded(err error, now time.Time) {
	l.receiving.preflight = preflightFailed
	switch {
	case l.run.fetch.Err() != nil:
	case err != nil:
		l.stop(Failed, err, now)
	default:
		l.receiving.preflight = preflightPassed
		l.run.lastBusy = now
		if l.availability.breaker.Closed() {
			l.receiving.start()
		}
	}
}

// receivingEnded takes the end of a call of Receive.
func (l *loop) receivingEnded(err error, now time.Time) {
	l.receiving.stopped()
	b := l.availability.breaker
	switch {
	case err != nil:
		l.stop(Failed, fmt.Errorf("PUBSUB_SUBSCRIPTION cannot be received from: %w", err), now)
	case l.drain.emptying:
		l.drain.emptying = false
		if l.finished(now) && !l.run.stopping && !b.Open() && now.Sub(l.run.lastBusy) >= l.run.opts.DrainIdle {
			l.stop(Drained, nil, now)
		} else if b.Closed() {
			l.receiving.start()
		}
	case l.receiving.wanted:
		l.receiving.start()
	}
}

// stepDrain brings a drain closer to its end.
func (l *loop) stepDrain(now time.Time) {
	receiver := l.receiving.receiver
	switch l.drain.next(drainView{
		now: now,
		ready: l.availability.breaker.Closed() && l.deadLetters.unavailable == "" &&
			l.receiving.preflight == preflightPassed && l.receiving.open(now),
		finished: l.finished(now),
		lastBusy: l.run.lastBusy,
		idle:     l.run.opts.DrainIdle, pullWait: receiver.PullWait(),
	}) {
	case drainWait:
	case drainRestart:
		l.run.lastBusy = now
	case drainPullOnce:
		receiver.Ping()
		l.receiving.pull(drainPull, true)
	case drainStopReceiving:
		l.receiving.stop()
	}
}

// pulled takes the answer to a pull.
func (l *loop) pulled(r pullResult, now time.Time) {
	if r.err != nil {
		l.run.log.Debug("Pub/Sub did not answer a pull", "error", r.err)
	}
	if r.drain {
		l.drain.pulled(r.found, r.err, l.receiving.receiver.AnsweredSince(l.drain.pinged), l.run.lastBusy)
	} else {
		l.receiving.pulling = false
		if r.found == 0 {
			l.availability.breaker.Postpone(now)
		}
	}
	if r.err != nil {
		l.run.lastBusy = now
	}
}

// finished reports whether no event is in flight but undecided ones for which the run
// has waited long enough.
func (l *loop) finished(now time.Time) bool {
	if l.inflight.count == 0 {
		return true
	}
	wait := undecidedSpans * l.suspects.history.Rules.MinSpan
	return l.inflight.count == l.inflight.leftOut && now.Sub(l.settlement.latest) >= wait && now.Sub(l.run.lastBusy) >= wait
}
