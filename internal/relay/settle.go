package relay

import (
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
)

// settlements are what is to be told to the receiver, in bulk. The loop owns
// them.
type settlements struct {
	acked, released, abandoned []*consume.Message
}

// flushSettled tells the receiver what was settled since the last time.
func (r *Relay) flushSettled() {
	if len(r.acked) > 0 {
		r.receiver.Ack(r.acked)
		clear(r.acked)
		r.acked = r.acked[:0]
	}
	if len(r.released) > 0 {
		r.receiver.Nack(r.released)
		clear(r.released)
		r.released = r.released[:0]
	}
	if len(r.abandoned) > 0 {
		r.receiver.LetExpire(r.abandoned)
		clear(r.abandoned)
		r.abandoned = r.abandoned[:0]
	}
}

// recorded settles an event that the gateway has listed.
func (r *Relay) recorded(h *held, now time.Time) {
	r.books.Submitted++
	r.suspects.settled = now
	r.m.EventDelivery.Observe(now.Sub(h.message.PublishTime).Seconds())
	r.recordedEvents.Add(h.fingerprint)
	r.acked = append(r.acked, h.message)
	r.settleRedeliveries(h)
	r.letGo(h, wasRecorded)
}

// interred settles an event that the dead-letter topic has confirmed. Only its
// message is remembered, so that its replay is never taken for a duplicate.
func (r *Relay) interred(h *held) {
	reason := h.rejection.Reason
	r.suspects.settled = time.Now()
	r.books.Rejected[reason]++
	r.m.EventsRejected.WithLabelValues(r.serviceOfMessage(h.message).label, string(reason)).Inc()
	r.deadLettered.Add(r.hasher.Message(h.message.ID))
	for _, m := range h.redeliveries() {
		r.deadLettered.Add(r.hasher.Message(m.ID))
	}
	r.acked = append(r.acked, h.message)
	r.settleRedeliveries(h)
	r.letGo(h, wasRejected)
}

// wasDeadLettered reports whether a message was dead-lettered lately. Mostly none was,
// and then it costs nothing.
func (r *Relay) wasDeadLettered(m *consume.Message) bool {
	if r.deadLettered.Empty() {
		return false
	}
	return r.deadLettered.Has(r.hasher.Message(m.ID))
}

func (r *Relay) settleRedeliveries(h *held) {
	for _, m := range h.redeliveries() {
		r.duplicate(r.serviceOfMessage(m), m)
	}
}

// duplicate settles a further delivery of what is settled or about to be.
func (r *Relay) duplicate(s *service, m *consume.Message) {
	r.books.Duplicates++
	s.duplicate.Inc()
	r.acked = append(r.acked, m)
}

// release hands an event back to Pub/Sub, with all its deliveries.
func (r *Relay) release(h *held) {
	if r.stopping.on {
		r.noteUndecided(h)
	}
	r.handBack(h.message)
	for _, m := range h.redeliveries() {
		r.handBack(m)
	}
	r.letGo(h, wasReleased)
}

func (r *Relay) handBack(m *consume.Message) {
	r.released = append(r.released, m)
	r.countReleased(1)
}

// expire leaves an event to come back when its lease has ended.
func (r *Relay) expire(h *held) {
	r.abandoned = append(r.abandoned, h.message)
	r.abandoned = append(r.abandoned, h.redeliveries()...)
	r.countReleased(1 + len(h.redeliveries()))
	r.letGo(h, wasReleased)
}

func (r *Relay) countReleased(n int) {
	r.books.Released += n
	r.m.EventsReleased.Add(float64(n))
	r.lastBusy = time.Now()
}
