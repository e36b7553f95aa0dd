package relay

import (
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/limit"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// capacity is how many streams to the gateway may be in flight, and over which
// connections they go. The loop owns it.
type capacity struct {
	limit       *limit.Limit
	connections *limit.Connections
	falls       int // of the limit, that the metrics know of
}

func newCapacity(opts Options) capacity {
	l := limit.Adaptive(max(1, opts.MaxStreams))
	if opts.Streams > 0 {
		l = limit.Fixed(opts.Streams)
	}
	return capacity{limit: l, connections: limit.NewConnections(l.Max())}
}

// streamStarted notes that a flight is submitted.
func (r *Relay) streamStarted(f *flight) {
	f.connection = r.connection(f)
	r.limit.Started(f.size.events)
}

// streamEnded notes that a flight has landed, with so many of its events recorded.
func (r *Relay) streamEnded(f *flight, result submit.Result, recorded int, now time.Time) {
	r.connections.Ended(f.connection)
	r.limit.Ended(limit.End{
		Outcome: meaning(f, result, recorded),
		Latency: result.Took,
		Events:  f.size.events,
		Bytes:   f.size.bytes,
		Waiting: r.readyEvents(now),
	}, now)
	r.countFalls()
}

// resetLimit notes that the breaker has opened: few streams may follow at first.
func (r *Relay) resetLimit() {
	r.limit.Reset()
	r.countFalls()
}

// countFalls tells the metrics why the limit fell, if it did.
func (r *Relay) countFalls() {
	if falls := r.limit.Falls(); falls != r.falls {
		r.falls = falls
		r.m.SubmitConcurrencyFalls.WithLabelValues(string(r.limit.Reason())).Inc()
	}
}

// readyEvents is how many events wait for a stream to end. While the receiver is near
// its capacity no batch waits to fill, so that is all of them.
func (r *Relay) readyEvents(now time.Time) int {
	if r.receiver.NearCapacity() {
		return r.groups.Len() + r.flights.dueEvents
	}
	return r.groups.Ready(now) + r.flights.dueEvents
}

// meaning is what the end of a flight says about the gateway's capacity.
func meaning(f *flight, result submit.Result, recorded int) limit.Outcome {
	failure := result.Failure
	switch {
	case recorded > 0 && (failure == nil || recorded == f.size.events):
		return limit.Answered
	case failure == nil:
		return limit.Ignored // the verdict on what is left out is not about capacity
	case f.suspect, f.isolated:
		return limit.Ignored // the events may be at fault
	case failure.Class != submit.Transient, result.Took == 0:
		return limit.Ignored // refused for another reason, or never sent
	case failure.NoCapacity():
		return limit.Refused
	}
	return limit.Failed
}

// maxRefusals is how often a batch may be refused for lack of capacity before
// that counts as any other failure: gRPC has the same code for a message that is too
// large.
const maxRefusals = 8

// crowded reports whether a failure only says that the gateway has no capacity for
// another stream beside those that are in flight.
func (r *Relay) crowded(f *flight, failure *submit.Failure) bool {
	return failure.NoCapacity() && r.flying > 0 && r.breaker.Closed() &&
		!f.suspect && !f.isolated && f.refusals < maxRefusals
}
