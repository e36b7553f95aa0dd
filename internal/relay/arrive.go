package relay

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dedup"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// arrival is the messages of one response, decoded.
type arrival struct {
	events []*inflight
	// again are further deliveries of messages that the receiver has already.
	again []*consume.Message
}

// decoding decodes messages. The receiver's goroutines call it, several at a time.
type decoding struct {
	decoder *event.Decoder
	decode  Decode // of the decoder, or a test's
	hasher  dedup.Hasher
	log     *slog.Logger

	arrivals chan arrival  // to the loop
	over     chan struct{} // closed when the loop has ended
}

func newDecoding(opts Options, hasher dedup.Hasher) *decoding {
	d := &decoding{
		decoder: event.NewDecoder(opts.Services, opts.Environment), decode: opts.Decode, hasher: hasher, log: opts.Logger,
		arrivals: make(chan arrival), over: make(chan struct{}),
	}
	if d.decode == nil {
		d.decode = d.decoder.DecodeInto
	}
	return d
}

// receive decodes the messages of a response and hands them to the loop. While the loop
// is busy, it holds up the stream of the response.
func (d *decoding) receive(_ context.Context, fresh, again []*consume.Message) {
	now := time.Now()
	a := arrival{events: make([]*inflight, len(fresh)), again: again}
	for i, m := range fresh {
		// Each has memory of its own: one that is in flight for long must not keep the others'.
		a.events[i] = &inflight{message: m, received: now}
		d.decodeEvent(a.events[i])
	}
	// The loop takes arrivals until receiving has ended, so this ends.
	select {
	case d.arrivals <- a:
	case <-d.over:
	}
}

// decodeEvent fills in the event, or why it is rejected. A panic concerns this event
// only.
func (d *decoding) decodeEvent(e *inflight) {
	defer func() {
		if p := recover(); p != nil {
			// The value may contain a part of the message.
			d.log.Error("The processing of a message panicked; it is left to expire",
				"message_id", e.message.ID, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			e.panicked = true
		}
	}()
	m := messageOf(e.message)
	from := d.senderOf(e.message)
	m.Sender, e.replayed = from.Sender, from.replayed
	e.event, _, e.rejection = d.decode(nil, m)
	if e.rejection == nil {
		e.fingerprint = d.hasher.Event(from.identity, e.event.UUID, m.Data)
		e.dropLongEncoding()
	}
}

// messageOf is what the decoder reads of a message.
func messageOf(m *consume.Message) event.Message {
	return event.Message{ID: m.ID, PublishTime: m.PublishTime, Data: m.Data, Attributes: m.Attributes}
}

// sender is what messages with the same attributes have in common.
type sender struct {
	*event.Sender
	identity uint64 // the hash of the publisher
	replayed bool
}

// senderOf returns the sender of a message.
func (d *decoding) senderOf(m *consume.Message) *sender {
	if m.Same != nil {
		if known, ok := m.Same.Known.(*sender); ok {
			return known
		}
	}
	of := d.decoder.Sender(m.Attributes)
	p := of.Publisher()
	s := &sender{of, d.hasher.Publisher(p.ServiceID, p.Environment), event.Replays(m.Attributes) > 0}
	if m.Same != nil {
		m.Same.Known = s
	}
	return s
}

// arrive counts what has arrived and puts it on its way.
func (l *loop) arrive(a arrival, now time.Time) {
	l.settlement.accounting.Received += len(a.events) + len(a.again)
	if n := len(a.events) + len(a.again); n > 0 {
		l.run.lastBusy = now
		l.suspects.controls.arrived(n, now)
	}
	// The receiver settles a further delivery of a message together with the first one.
	for _, m := range a.again {
		s := l.inflight.serviceOfMessage(m)
		s.received.Inc()
		s.duplicate.Inc()
		l.settlement.accounting.Duplicates++
	}
	for _, e := range a.events {
		switch {
		case e.panicked:
			l.inflight.serviceOfMessage(e.message).received.Inc()
			l.settlement.letMessageExpire(e.message)
		case e.rejection != nil:
			l.admitRejected(e)
		default:
			l.admit(e, now)
		}
	}
	l.settlement.flush()
}

// admitRejected decides what becomes of an event that was rejected on its arrival.
func (l *loop) admitRejected(e *inflight) {
	of := l.inflight.serviceOfMessage(e.message)
	of.received.Inc()
	switch {
	case l.settlement.wasDeadLettered(e.message):
		l.settlement.duplicate(of, e.message)
	case l.run.stopping:
		l.settlement.nack(e.message)
	default:
		l.inflight.add(e)
		l.deadLetters.add(e, of)
	}
}

// admit decides what becomes of a valid event that has arrived.
func (l *loop) admit(e *inflight, now time.Time) {
	e.publisher = l.inflight.publisherOf(e.event.Publisher)
	e.publisher.received++
	if first := l.inflight.find(e.fingerprint); first != nil {
		l.inflight.addRedelivery(first, e.message)
		return
	}
	switch {
	case l.settlement.wasDeadLettered(e.message):
		l.settlement.duplicate(e.publisher.service, e.message)
	case l.settlement.wasRecorded(e):
		l.settlement.judged(e.message, e, Duplicate)
		l.settlement.duplicate(e.publisher.service, e.message)
	case l.run.stopping:
		l.settlement.nack(e.message)
	default:
		l.inflight.add(e)
		l.queue.add(e, now)
		return
	}
	l.inflight.forget(e.publisher)
}
