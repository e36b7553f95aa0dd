package relay

import (
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dedup"
)

// acker takes settlements. It is a *consume.Receiver.
type acker interface {
	Ack(messages []*consume.Message)
	Nack(messages []*consume.Message)
	LetExpire(messages []*consume.Message)
}

// settlement ends the way of events. It counts every delivery and remembers what was
// recorded and dead-lettered. The loop owns it.
type settlement struct {
	run      *run
	inflight *inflightSet
	acker    acker
	hasher   dedup.Hasher

	accounting   Accounting
	recorded     *dedup.Cache // events
	deadLettered *dedup.Cache // messages
	turned       time.Time    // when the caches last began a generation

	// Settled messages that the acker does not know of yet: flush hands them over.
	acked, nacked, expired []*consume.Message

	// latest is when an event was last recorded or dead-lettered.
	latest time.Time
	// unsettled is how many events were released because a dependency was unavailable.
	unsettled int
	// undecided are the suspects that were released at the end of the run.
	undecided undecidedEvents
}

// How many redeliveries are recognized after the settlement of their event: entries of
// a generation, and its length. A map of 100,000 entries takes 2.3 MB. One of a power of
// two takes twice as much, because its tables have just been split.
const (
	maxRecorded     = 100_000
	maxDeadLettered = 25_000
	generation      = 5 * time.Minute
)

// maxInFlight is how long an event is in flight at most. Then it is released, once: each
// release counts as a delivery attempt.
const maxInFlight = 10 * time.Minute

func newSettlement(r *run, set *inflightSet, to acker, hasher dedup.Hasher) *settlement {
	return &settlement{
		run: r, inflight: set, acker: to, hasher: hasher,
		accounting:   NewAccounting(),
		recorded:     dedup.NewCache(maxRecorded),
		deadLettered: dedup.NewCache(maxDeadLettered),
	}
}

// turn begins a generation of the caches if it is time to.
func (s *settlement) turn(now time.Time) {
	if s.turned.IsZero() {
		s.turned = now
	}
	if now.Sub(s.turned) > generation {
		s.turned = now
		s.recorded.Turn()
		s.deadLettered.Turn()
	}
}

// flush hands over what was settled since the last time.
func (s *settlement) flush() {
	for _, settled := range []struct {
		messages *[]*consume.Message
		hand     func([]*consume.Message)
	}{
		{&s.acked, s.acker.Ack},
		{&s.nacked, s.acker.Nack},
		{&s.expired, s.acker.LetExpire},
	} {
		if len(*settled.messages) > 0 {
			settled.hand(*settled.messages)
			clear(*settled.messages)
			*settled.messages = (*settled.messages)[:0]
		}
	}
}

// eventRecorded settles an event that the gateway has listed.
func (s *settlement) eventRecorded(e *inflight, now time.Time) {
	s.accounting.Submitted++
	s.latest = now
	s.run.metrics.EventDelivery.Observe(now.Sub(e.message.PublishTime).Seconds())
	s.recorded.Add(e.fingerprint)
	if e.replayed {
		s.judged(e.message, e, Recorded)
	}
	s.acked = append(s.acked, e.message)
	s.settleRedeliveries(e)
	s.remove(e, wasRecorded)
}

// eventDeadLettered settles an event that the dead-letter topic has confirmed. Only its
// messages are remembered: its replay is another message with the same content, and must
// not look like a duplicate.
func (s *settlement) eventDeadLettered(e *inflight, now time.Time) {
	reason := e.rejection.Reason
	s.latest = now
	s.accounting.Rejected[reason]++
	s.run.metrics.EventsRejected.WithLabelValues(s.inflight.serviceOfMessage(e.message).label, string(reason)).Inc()
	s.deadLettered.Add(s.hasher.Message(e.message.ID))
	for _, m := range s.inflight.redeliveries[e] {
		s.deadLettered.Add(s.hasher.Message(m.ID))
	}
	s.judged(e.message, e, Rejected)
	s.acked = append(s.acked, e.message)
	s.settleRedeliveries(e)
	s.remove(e, wasRejected)
}

// wasRecorded reports whether a valid event was recorded lately.
func (s *settlement) wasRecorded(e *inflight) bool { return s.recorded.Has(e.fingerprint) }

// wasDeadLettered reports whether a message was dead-lettered lately. Mostly none was,
// and then the answer costs no hash.
func (s *settlement) wasDeadLettered(m *consume.Message) bool {
	if s.deadLettered.Empty() {
		return false
	}
	return s.deadLettered.Has(s.hasher.Message(m.ID))
}

func (s *settlement) settleRedeliveries(e *inflight) {
	for _, m := range s.inflight.redeliveries[e] {
		if m.ID != e.message.ID {
			s.judged(m, e, Duplicate)
		}
		s.duplicate(s.inflight.serviceOfMessage(m), m)
	}
}

// duplicate settles a further delivery of an event that is recorded or dead-lettered.
func (s *settlement) duplicate(of *service, m *consume.Message) {
	s.accounting.Duplicates++
	of.duplicate.Inc()
	s.acked = append(s.acked, m)
}

// release gives an event back to Pub/Sub, with all its deliveries.
func (s *settlement) release(e *inflight) {
	if s.run.stopping {
		s.undecided.note(e)
	}
	s.nack(e.message)
	for _, m := range s.inflight.redeliveries[e] {
		s.nack(m)
	}
	s.remove(e, wasReleased)
}

// releaseUnsettled releases an event because a dependency is unavailable.
func (s *settlement) releaseUnsettled(e *inflight) {
	s.unsettled++
	s.release(e)
}

// releaseRest releases at the end of a run those of the events that are not settled.
func (s *settlement) releaseRest(events []*inflight, unavailable bool) {
	for _, e := range events {
		switch {
		case e.settled:
		case unavailable:
			s.releaseUnsettled(e)
		default:
			s.release(e)
		}
	}
}

// releaseOld releases events that have been in flight for too long. Not those that a
// stream may carry just now, nor those that only wait for the dead-letter topic.
func (s *settlement) releaseOld(now time.Time) {
	var next *inflight
	for e := s.inflight.oldest; e != nil && now.Sub(e.received) > maxInFlight; e = next {
		next = e.next
		if e.rejection != nil || e.publisher.active > 0 {
			continue
		}
		s.run.log.Warn("An event was in flight for too long and is released", "message_id", e.message.ID, "service", e.publisher.service.label)
		s.release(e)
	}
	s.flush()
}

// nack gives a delivery back to Pub/Sub.
func (s *settlement) nack(m *consume.Message) {
	s.nacked = append(s.nacked, m)
	s.countReleased(1)
}

// letExpire leaves an event to be delivered again when its lease has ended.
func (s *settlement) letExpire(e *inflight) {
	again := s.inflight.redeliveries[e]
	s.expired = append(append(s.expired, e.message), again...)
	s.countReleased(1 + len(again))
	s.remove(e, wasReleased)
}

// letMessageExpire is letExpire for a delivery that is not in flight.
func (s *settlement) letMessageExpire(m *consume.Message) {
	s.expired = append(s.expired, m)
	s.countReleased(1)
}

func (s *settlement) countReleased(n int) {
	s.accounting.Released += n
	s.run.metrics.EventsReleased.Add(float64(n))
	s.run.lastBusy = time.Now()
}

// remove takes a settled event out of the set.
func (s *settlement) remove(e *inflight, as fate) {
	if e.trace != nil {
		e.trace.settled(as)
		e.trace = nil
	}
	s.inflight.remove(e)
}
