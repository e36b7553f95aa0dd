package relay

import (
	"container/heap"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
	"github.com/sourcegraph/telemetry-relay/internal/turns"
)

// flight is a batch on its way to the gateway, or waiting to be submitted again.
type flight struct {
	publisher *publisher
	events    []*held
	// suspect: each was left out of an answer before, and is no control.
	suspect bool
	// again: it was left out as a whole before. piece: it was cut out of what was left
	// out.
	again, piece bool
	// try: one suspect that waits for its turn to be submitted while no other
	// suspect is in flight.
	try bool
	// clear: no suspect was in flight when it was launched, and mark is how many
	// flights of suspects had been launched by then.
	clear      bool
	mark       uint64
	connection int
	// size is what was submitted: fewer events may be left of it.
	size struct{ events, bytes int }
	// refusals are streams that were refused for lack of capacity, and did not count
	// as failures.
	refusals int
	// isolated: cut out of a batch that failed while others succeeded. Its
	// failures say nothing about the gateway.
	isolated   bool
	failures   int       // streams that failed, of it or of what it was cut from
	trouble    uint64    // the moment of the first failure
	level      int       // of the backoff
	due        time.Time // when it may be submitted again
	launched   uint64    // the moment of the submission
	launchedAt time.Time
}

// outcome is a flight that has ended.
type outcome struct {
	flight *flight
	result submit.Result
}

// flights is what is submitted and what waits to be submitted again. The loop
// owns it.
type flights struct {
	waiting flightHeap // for their time
	others  int        // of those, without suspects
	// What has waited for its time waits for its turn. Suspects do apart, since they may
	// not be submitted at any time: pieces, and tries, one of each event.
	due, pieces turns.Queue[*service, *publisher, *flight]
	dueEvents   int // events of the flights that are due, as they came
	tries       []*flight
	source      int    // whose turn the last slot was: see nextFlight
	moment      uint64 // counts submissions and outcomes: the loop's own clock

	recordedAt uint64 // the last moment at which something was recorded
	failedAt   uint64 // the last moment at which a stream of fresh events failed
	failing    int    // events whose streams failed although they were cut out, since something was recorded
}

const (
	retryFirst = 250 * time.Millisecond
	retryMost  = 10 * time.Second
)

// retry puts events on their way again after a delay.
func (r *Relay) retry(f *flight, why string, first, least time.Duration, now time.Time) {
	if len(f.events) == 0 {
		return
	}
	if r.stopping.on {
		for _, h := range f.events {
			r.release(h)
		}
		return
	}
	r.m.EventsRetried.WithLabelValues(why).Add(float64(len(f.events)))
	f.due = now.Add(delay(r.rng, f.level, first, retryMost, least))
	f.level++
	f.followRetry(why, now)
	heap.Push(&r.flights.waiting, f)
	if !f.suspect {
		r.flights.others++
	}
}

// retryNow makes everything due that waits for the gateway, so that a trial has
// something to try.
func (r *Relay) retryNow(now time.Time) {
	for _, f := range r.flights.waiting {
		if !f.suspect {
			f.due = now
		}
	}
	heap.Init(&r.flights.waiting)
	r.groups.Flush()
}

// dispatch submits what is due, as far as there are slots.
func (r *Relay) dispatch(now time.Time) {
	if r.stopping.on {
		return
	}
	for len(r.flights.waiting) > 0 && !r.flights.waiting[0].due.After(now) {
		f := heap.Pop(&r.flights.waiting).(*flight)
		if !f.suspect {
			r.flights.others--
		}
		r.flights.ready(f)
	}
	if r.breaker.Open() {
		r.probe(now)
		return
	}
	r.takeTurn(now)
	r.freeLight()
	flushed := false
	for r.flying < r.limit.Limit() {
		f := r.nextFlight(now)
		switch {
		case f != nil:
			r.launch(f)
		case r.freeReserve(now):
		case flushed || r.groups.Len() == 0 || !r.receiver.NearCapacity():
			return
		default:
			// Nothing more can come before something is settled: company would be
			// waited for in vain.
			r.groups.Flush()
			flushed = true
		}
	}
}

// dispatchFresh submits what is fresh, as far as there are slots.
func (r *Relay) dispatchFresh(now time.Time) {
	for r.flying < r.limit.Limit() {
		f := r.nextFresh(now)
		if f == nil {
			return
		}
		r.launch(f)
	}
}

// ready has a flight wait for its turn.
func (f *flights) ready(due *flight) {
	switch {
	case due.try:
		f.tries = append(f.tries, due)
	case due.suspect:
		f.pieces.Push(due.publisher.service, due.publisher, due)
	default:
		f.due.Push(due.publisher.service, due.publisher, due)
		f.dueEvents += len(due.events)
	}
}

// nextFlight takes in turns what is fresh, what is submitted again, and suspects, so
// that much of one kind holds up none of the others.
func (r *Relay) nextFlight(now time.Time) *flight {
	const sources = 3
	for range sources {
		r.flights.source = (r.flights.source + 1) % sources
		var f *flight
		switch r.flights.source {
		case 0:
			f = r.nextFresh(now)
		case 1:
			f = r.nextRetry()
		case 2:
			f = r.nextSuspect()
		}
		if f != nil {
			return f
		}
	}
	return nil
}

// busy says who has all the streams that it may have. A service leaves one stream to
// the others, and an environment leaves another one to those of its service that have
// events here, if there are any: streams that hang must hold up nobody else.
func (r *Relay) busy() turns.Busy[*service, *publisher] {
	streams := r.limit.Limit()
	return turns.Busy[*service, *publisher]{
		Service: func(s *service) bool { return s.flying >= max(1, streams-1) },
		Environment: func(p *publisher) bool {
			return p.service.publishers > 1 && p.flying >= max(1, streams-2)
		},
	}
}

func (r *Relay) nextFresh(now time.Time) *flight {
	for {
		b, ok := r.groups.Next(now, r.busy())
		if !ok {
			return nil
		}
		// What was released while it waited is settled already.
		events := slices.DeleteFunc(b.Items, func(h *held) bool { return h.gone })
		if len(events) == 0 {
			continue
		}
		f := &flight{publisher: events[0].publisher, events: events}
		if !r.stopping.on {
			r.keepReserve(f, now)
		}
		if len(f.events) > 0 {
			return f
		}
	}
}

// nextRetry takes the next flight without suspects that is due again.
func (r *Relay) nextRetry() *flight {
	return r.nextOf(&r.flights.due, func(f *flight) { r.flights.dueEvents -= len(f.events) })
}

// nextPiece takes the next piece that is due.
func (r *Relay) nextPiece() *flight { return r.nextOf(&r.flights.pieces, func(*flight) {}) }

// nextOf takes the next flight of a queue that has an event left. taken is told of every
// flight that has left the queue.
func (r *Relay) nextOf(q *turns.Queue[*service, *publisher, *flight], taken func(*flight)) *flight {
	for {
		f, ok := q.Next(r.busy())
		if !ok {
			return nil
		}
		taken(f)
		// What was released while it waited is settled already.
		f.events = slices.DeleteFunc(f.events, func(h *held) bool { return h.gone })
		if len(f.events) > 0 {
			return f
		}
	}
}

// nextTry takes the first try that fits.
func (r *Relay) nextTry(fits func(*flight) bool) *flight {
	r.flights.tries = slices.DeleteFunc(r.flights.tries, func(f *flight) bool { return len(f.events) == 0 || f.events[0].gone })
	busy := r.busy()
	for i, f := range r.flights.tries {
		if fits(f) && !busy.Service(f.publisher.service) && !busy.Environment(f.publisher) {
			r.flights.tries = slices.Delete(r.flights.tries, i, i+1)
			return f
		}
	}
	return nil
}

// launch submits a flight.
func (r *Relay) launch(f *flight) {
	r.flights.moment++
	f.launched, f.launchedAt = r.flights.moment, time.Now()
	f.clear = r.suspects.flying == 0
	if f.suspect {
		r.suspects.flying++
		r.suspects.launches++
		if f.try {
			r.suspects.tried = f
		}
	}
	f.mark = r.suspects.launches
	r.flying++
	f.publisher.flying++
	f.publisher.service.flying++
	f.publisher.count()
	r.books.Batches++
	b := submit.Batch{
		RequestID: requestID(),
		Publisher: f.publisher.id,
		Events:    make([]*event.Event, len(f.events)),
		Canary:    f.failures > 0,
	}
	bytes := 0
	var missing []bulk
	for i, h := range f.events {
		h.sent++
		bytes += h.size()
		b.Events[i] = &h.event
		if size := h.size(); size > len(h.event.Wire) {
			missing = append(missing, bulk{i, messageOf(h.message), size})
		}
	}
	f.size.events, f.size.bytes = len(f.events), bytes
	r.streamStarted(f)
	b.Connection = f.connection
	r.m.BatchEvents.Observe(float64(len(f.events)))
	r.m.BatchBytes.Observe(float64(bytes))
	ctx, ended := r.follow(f, Submission{RequestID: b.RequestID, Events: len(b.Events), Bytes: bytes, Try: int(f.events[0].sent), Suspect: f.suspect})
	if r.log.Enabled(ctx, slog.LevelDebug) { // what it would say is memory to be allocated
		r.log.DebugContext(ctx, "Submitting a batch", "request_id", b.RequestID, "service_id", b.Publisher.ServiceID,
			"service_environment", b.Publisher.Environment, "events", len(b.Events), "bytes", bytes,
			"suspect", f.suspect, "failures", f.failures)
	}
	r.spawn(func() {
		var result submit.Result
		if len(missing) > 0 {
			result = r.submitBulk(ctx, b, missing)
		} else {
			result = r.gateway.Submit(ctx, b)
		}
		if ended != nil {
			ended(result)
		}
		r.results <- outcome{flight: f, result: result} // there is room for all that may fly
		if result.Failure != nil {
			r.log.DebugContext(ctx, "A stream to the gateway failed", "request_id", b.RequestID, "code", result.Code().String(), "class", result.Failure.Class.String())
		}
	})
}

// waiting reports whether anything waits to be submitted, suspects apart.
func (r *Relay) waiting() bool {
	return r.groups.Len() > 0 || r.flights.due.Len() > 0 || r.flights.others > 0
}

// takeWaiting empties the queues of what waits to be submitted again, and of what
// is kept back.
func (r *Relay) takeWaiting() []*flight {
	f := &r.flights
	all := slices.Concat(f.due.TakeAll(), f.pieces.TakeAll(), f.tries, f.waiting, r.suspects.controls, r.suspects.reserve)
	f.tries, f.waiting, f.others, f.dueEvents, r.suspects.controls, r.suspects.reserve = nil, nil, 0, 0, nil, nil
	return all
}

// requestID names a stream. It is a UUIDv7, so that a log sorts by it.
func requestID() string {
	id, err := uuid.NewV7()
	if err != nil {
		// Only without the system's randomness; the id need not be a secret.
		return uuid.Nil.String()
	}
	return id.String()
}

// flightHeap orders flights by when they are due.
type flightHeap []*flight

func (h flightHeap) Len() int           { return len(h) }
func (h flightHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h flightHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push and Pop are for container/heap.
func (h *flightHeap) Push(x any) { *h = append(*h, x.(*flight)) }

// Pop takes the last.
func (h *flightHeap) Pop() any {
	last := len(*h) - 1
	f := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return f
}
