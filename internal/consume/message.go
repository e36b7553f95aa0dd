// Package consume receives messages from a Pub/Sub subscription and settles them. It uses
// the low-level client: messages come in bulk, one table keeps their leases and extends
// them until the messages are settled, and an ack counts only when Pub/Sub has confirmed
// it.
package consume

import (
	"bytes"
	"time"
)

// Message is a message whose lease this process has: Pub/Sub delivers it to no other
// subscriber while the lease lasts. The exported fields are immutable.
type Message struct {
	ID          string
	PublishTime time.Time
	Data        []byte
	Attributes  map[string]string
	OrderingKey string
	// Same is shared by all messages with the same attributes. It is nil for a message
	// without attributes.
	Same *Same

	// leases owns the fields below.
	ackID    string
	due      time.Duration // when the lease must be extended, since leases.epoch
	size     int32
	acking   bool
	deadMark bool // removed from the table: settled, nacked or let expire
	receipt  bool // this process has set the lease since the last delivery
}

// Same is state that messages with the same attributes share.
type Same struct {
	// Known belongs to the handler, which can keep there what it derived from the
	// attributes. The handler may use it only while it handles these messages as fresh
	// ones: such calls never overlap.
	Known any
}

// message builds a Message. It copies its arguments, because a message that is in flight
// for a long time must not keep the whole response in memory: only the message's own bytes
// count against MaxBytes.
func (r *reader) message(id, ordering, ackID, data []byte) *Message {
	// One allocation serves the three texts, because they live equally long.
	r.scratch = append(append(append(r.scratch[:0], id...), ordering...), ackID...)
	texts := string(r.scratch)
	return &Message{
		ID:          texts[:len(id)],
		OrderingKey: texts[len(id) : len(id)+len(ordering)],
		ackID:       texts[len(id)+len(ordering):],
		Data:        bytes.Clone(data),
	}
}

// Size returns the bytes that the message counts against MaxBytes.
func (m *Message) Size() int64 { return int64(m.size) }
