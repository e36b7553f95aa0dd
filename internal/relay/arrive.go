package relay

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// arrival is what one response brought, decoded.
type arrival struct {
	events []*held
	again  []*consume.Message
}

// receive decodes what arrives and hands it to the loop. It is called by the
// receiver's goroutines, several at a time, and holds them back while the loop
// is busy.
func (r *Relay) receive(_ context.Context, fresh, again []*consume.Message) {
	now := time.Now()
	a := arrival{events: make([]*held, len(fresh)), again: again}
	for i, m := range fresh {
		// Each by itself in memory: one that is in flight for long must not keep the others.
		a.events[i] = &held{message: m, received: now}
		r.decode(a.events[i])
	}
	// The loop takes arrivals until receiving has ended, so this ends.
	select {
	case r.arrivals <- a:
	case <-r.over:
	}
}

// decode fills in the event, or why it is none. A panic is contained: it takes
// down this event only.
func (r *Relay) decode(h *held) {
	defer func() {
		if p := recover(); p != nil {
			// The value may hold a part of the message.
			r.log.Error("The processing of a message panicked; it is left to expire",
				"message_id", h.message.ID, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			h.panicked = true
		}
	}()
	m := messageOf(h.message)
	from := r.senderOf(h.message)
	m.Sender = from.Sender
	h.event, _, h.rejection = r.decoded(nil, m)
	if h.rejection == nil {
		h.fingerprint = r.hasher.Event(from.identity, h.event.UUID, m.Data)
		h.shed()
	}
}

// messageOf is what the decoder sees of a message.
func messageOf(m *consume.Message) event.Message {
	return event.Message{ID: m.ID, PublishTime: m.PublishTime, Data: m.Data, Attributes: m.Attributes}
}

// sender is what messages with the same attributes have in common.
type sender struct {
	*event.Sender
	identity uint64 // the hash of who published it
}

// senderOf returns the sender of a message that is fresh.
func (r *Relay) senderOf(m *consume.Message) *sender {
	if m.Same != nil {
		if known, ok := m.Same.Known.(*sender); ok {
			return known
		}
	}
	of := r.decoder.Sender(m.Attributes)
	p := of.Publisher()
	s := &sender{of, r.hasher.Publisher(p.ServiceID, p.Environment)}
	if m.Same != nil {
		m.Same.Known = s
	}
	return s
}

// arrive enters what has arrived into the books and puts it on its way.
func (r *Relay) arrive(a arrival, now time.Time) {
	r.books.Received += len(a.events) + len(a.again)
	if len(a.events)+len(a.again) > 0 {
		r.lastBusy = now
	}
	// A message that is held already is settled with its first delivery.
	for _, m := range a.again {
		s := r.serviceOfMessage(m)
		s.received.Inc()
		s.duplicate.Inc()
		r.books.Duplicates++
	}
	for _, h := range a.events {
		r.admit(h, now)
	}
	r.flushSettled()
}

// admit decides what becomes of an event that has arrived.
func (r *Relay) admit(h *held, now time.Time) {
	if h.panicked {
		r.serviceOfMessage(h.message).received.Inc()
		r.abandoned = append(r.abandoned, h.message)
		r.countReleased(1)
		return
	}
	if h.rejection != nil {
		s := r.serviceOfMessage(h.message)
		s.received.Inc()
		switch {
		case r.wasDeadLettered(h.message):
			r.duplicate(s, h.message)
		case r.stopping.on:
			r.handBack(h.message)
		default:
			r.hold(h)
			r.bound(h, s)
		}
		return
	}

	h.publisher = r.publisherOf(h)
	h.publisher.received++
	if same := r.same(h); same != nil {
		rare := same.apart()
		rare.redeliveries = append(rare.redeliveries, h.message)
		r.redelivered++
		return
	}
	switch {
	case r.wasDeadLettered(h.message), r.recordedEvents.Has(h.fingerprint):
		r.duplicate(h.publisher.service, h.message)
	case r.stopping.on:
		r.handBack(h.message)
	default:
		r.hold(h)
		r.index(h)
		r.groups.Add(now, &h.publisher.waiting, h.size(), h)
		return
	}
	r.forget(h.publisher)
}
