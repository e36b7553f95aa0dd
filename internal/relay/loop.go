package relay

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/breaker"
	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// loop is the state of the one goroutine that decides. Nothing else touches it.
type loop struct {
	holdings
	settlements
	graveyard
	streamWatch
	flights  flights
	suspects suspects
	capacity
	flying  int // streams in flight
	breaker *breaker.Breaker
	probing probing
	groups  *batch.Groups[*service, *publisher, *held]
	books   Books
	rng     *rand.Rand

	started   time.Time
	deadline  time.Time // of receiving; zero: none
	lastBusy  time.Time // when something last came, was released, or was away
	stopping  stopping
	unsettled int // released because something was away

	everReached    bool // the gateway has accepted a token
	everRecorded   bool
	activeServices int  // that have something held
	cleared        bool // the preflight is done
	preparing      bool // the preflight goes on
	receiving      bool // Receive has been called and has not returned
	wanted         bool // receiving is what we want
	drainState

	spawn       func(func())
	work        context.Context // of everything but receiving
	cancelWork  context.CancelFunc
	fetch       context.Context // of everything that takes from Pub/Sub
	cancelFetch context.CancelFunc
	pull        context.CancelFunc // of the present call of Receive
}

const (
	// tick is how often what has no timer of its own is looked after.
	tick = 200 * time.Millisecond
	// maxHold is how long an event is held at most. Then it is released, once:
	// each release counts as a delivery attempt.
	maxHold = 10 * time.Minute
)

func newLoop(opts Options) loop {
	seed := opts.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	return loop{
		holdings: newHoldings(),
		groups:   batch.NewGroups[*service, *publisher, *held](opts.Batch),
		books:    NewBooks(),
		rng:      rand.New(rand.NewPCG(seed, seed)),
		suspects: suspects{history: verdict.History{Rules: verdict.Rules{RejectAfter: opts.RejectAfter, MinSpan: cmp.Or(opts.RejectSpan, verdict.DefaultSpan)}}},
		capacity: newCapacity(opts),
	}
}

// run is the loop.
func (r *Relay) run(ctx context.Context) error {
	now := time.Now()
	r.started, r.lastBusy = now, now
	r.breaker = r.newBreaker(now)
	r.fetch, r.cancelFetch = context.WithCancel(r.work)
	if r.opts.ReceiveWindow > 0 {
		r.deadline = now.Add(r.opts.ReceiveWindow)
	}
	r.m.GatewayAvailable.Set(0)
	r.prepare()

	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	signal := ctx.Done()
	generation := now
	for {
		r.beat.Store(now.UnixNano())
		r.sendLetters(now)
		r.dispatch(now)
		if r.stopped(now) {
			break
		}
		timer.Reset(r.wake(now).Sub(now))
		select {
		case a := <-r.arrivals:
			now = time.Now()
			r.arrive(a, now)
		case o := <-r.results:
			now = time.Now()
			r.landed(o, now)
		case b := <-r.buried:
			now = time.Now()
			r.interment(b, now)
		case err := <-r.probes:
			now = time.Now()
			r.probed(err, now)
		case e := <-r.checks:
			now = time.Now()
			r.checked(e, now)
		case err := <-r.ready:
			now = time.Now()
			r.prepared(err, now)
		case err := <-r.ended:
			now = time.Now()
			r.receivingEnded(err, now)
		case <-signal:
			now = time.Now()
			signal = nil
			r.stop(Signal, nil, now)
		case <-timer.C:
			now = time.Now()
		case <-ticker.C:
			now = time.Now()
			if now.Sub(generation) > generationMinutes*time.Minute {
				generation = now
				r.recordedEvents.Turn()
				r.deadLettered.Turn()
			}
			r.look(now)
		}
	}
	err := r.finish(ctx)
	r.report(time.Now())
	r.m.RunEnded.WithLabelValues(string(r.stopping.why)).Inc()
	if err == nil {
		r.m.LastSuccess.Set(float64(time.Now().Unix()))
	}
	return err
}

// wake says when something is due that nobody reports.
func (r *Relay) wake(now time.Time) time.Time {
	wake := now.Add(time.Hour)
	at := func(t time.Time) {
		if t.Before(wake) {
			wake = t
		}
	}
	if r.stopping.on && now.Before(r.stopping.work) {
		at(r.stopping.work)
	}
	switch {
	case r.breaker.Open():
		if !r.stopping.on && !r.probing.asking && r.flying == 0 {
			at(later(r.breaker.NextProbe(), now))
		}
	case r.flying < r.limit.Limit():
		if due, ok := r.groups.Due(); ok {
			at(due)
		}
		if len(r.flights.waiting) > 0 {
			at(r.flights.waiting[0].due)
		}
	}
	if r.graves.Len() > 0 && r.digging == 0 {
		at(r.graveyard.next)
	}
	return wake
}

// later is t, or a tick from now if t is over: what could not be done at its
// time is tried again, but not in a hot loop.
func later(t, now time.Time) time.Time {
	if t.After(now) {
		return t
	}
	return now.Add(tick)
}

// prepare begins what must be done before anything is pulled.
func (r *Relay) prepare() {
	if r.opts.Preflight == nil {
		r.cleared = true
		return
	}
	r.preparing = true
	r.spawn(func() { r.ready <- r.opts.Preflight(r.fetch) })
}

func (r *Relay) prepared(err error, now time.Time) {
	r.preparing = false
	switch {
	case r.fetch.Err() != nil:
	case err != nil:
		r.stop(Failed, err, now)
	default:
		r.cleared = true
		r.lastBusy = now
		if r.breaker.Closed() {
			r.resumePulling()
		}
	}
}

// resumePulling receives, if everything is there for it.
func (r *Relay) resumePulling() {
	if r.stopping.on || !r.cleared {
		return
	}
	r.wanted = true
	if r.receiving {
		return // again when it has returned
	}
	r.receiving = true
	var ctx context.Context
	ctx, r.pull = context.WithCancel(r.fetch)
	r.spawn(func() { r.ended <- r.receiver.Receive(ctx) })
}

// stopPulling ends receiving for now; what was received stays.
func (r *Relay) stopPulling() {
	r.wanted = false
	if r.receiving {
		r.pull()
	}
}

func (r *Relay) receivingEnded(err error, now time.Time) {
	r.receiving = false
	r.pull()
	switch {
	case err != nil:
		r.stop(Failed, receiveError(err), now)
	case r.emptying:
		r.emptying = false
		if r.idle(now) {
			r.stop(Drained, nil, now)
			return
		}
		if r.breaker.Closed() {
			r.resumePulling()
		}
	case r.wanted:
		r.resumePulling()
	}
}

// idle reports whether a drain has had nothing for long enough, apart from
// undecided events.
func (r *Relay) idle(now time.Time) bool {
	return r.nothingElse(now) && !r.stopping.on && !r.breaker.Open() && now.Sub(r.lastBusy) >= r.opts.DrainIdle
}

// receiveError says what is the matter with the subscription.
func receiveError(err error) error {
	return fmt.Errorf("PUBSUB_SUBSCRIPTION cannot be received from: %w", err)
}

// look is the loop's round: what has no timer of its own.
func (r *Relay) look(now time.Time) {
	r.report(now)
	if r.stopping.on {
		return
	}
	r.remindUnanswered(now)
	r.releaseOld(now)
	if r.flying == 0 && !r.waiting() {
		r.passTrial()
	}
	if !r.deadline.IsZero() && !now.Before(r.deadline) {
		r.stop(Deadline, nil, now)
		return
	}
	if r.opts.Drain {
		r.drain(now)
	}
}

// releaseOld releases what has been held for too long, apart from what a stream
// may have just now, or what only waits for the dead-letter topic.
func (r *Relay) releaseOld(now time.Time) {
	var next *held
	for h := r.first; h != nil && now.Sub(h.received) > maxHold; h = next {
		next = h.next
		if h.rejection != nil || h.publisher.flying > 0 {
			continue
		}
		r.log.Warn("An event was held too long and is released", "message_id", h.message.ID, "service", h.publisher.service.label)
		r.release(h)
	}
	r.flushSettled()
}

// report tells others how things stand.
func (r *Relay) report(now time.Time) {
	for _, p := range r.publishers {
		p.count()
	}
	r.m.EventsInFlight.Set(float64(r.count))
	r.m.SubmitConcurrencyLimit.Set(float64(r.limit.Limit()))
	r.m.SubmissionsInFlight.Set(float64(r.limit.InFlight()))
	r.m.EventsUndecided.Set(float64(r.suspects.alone))
	r.m.OldestReceivedAge.Set(r.oldestAge(now).Seconds())
	r.m.BooksDifference.Set(float64(r.books.difference(r.count + r.redelivered)))
	health := r.receiver.Health()
	r.m.PubSubStreams.Set(float64(health.Open))
	r.watchStreams(health, now)
	s := Status{Ready: true}
	switch {
	case r.breaker.Open():
		s = Status{Reason: r.breaker.Reason()}
	case r.graveyard.away != "":
		s = Status{Reason: "the dead-letter topic does not take messages: " + r.graveyard.away}
	case r.preparing:
		s = Status{Reason: "Pub/Sub has not been reached yet"}
	case noStream(health, now) >= notReadyAfter:
		s = Status{Reason: streamless(health, now)}
	case r.stopping.on:
		s = Status{Reason: "stopping"}
	}
	r.status.Store(&s)
	if r.opts.OnProgress != nil {
		state := s.Reason
		if s.Ready {
			state = "relaying"
			if r.count == 0 {
				state = "waiting for events"
			}
		}
		r.opts.OnProgress(Progress{Books: r.books.copy(), Held: r.count, Redelivered: r.redelivered, State: state})
	}
}
