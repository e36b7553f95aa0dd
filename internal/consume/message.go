// Package consume receives messages from a Pub/Sub subscription and settles
// them. It works on the low-level client: messages come in bulk, their leases
// are kept in one table and extended until they are settled, and every
// acknowledgement is confirmed by Pub/Sub before it is believed.
package consume

import (
	"bytes"
	"time"
)

// Message is one message that this process holds: Pub/Sub will not deliver it
// to anybody else while its lease lasts. The exported fields are immutable.
type Message struct {
	ID          string
	PublishTime time.Time
	Data        []byte
	Attributes  map[string]string
	OrderingKey string
	// Same is what the messages share that have the same attributes.
	Same *Same

	// Owned by leases.
	ackID    string
	due      time.Duration // when the lease is to be extended: since leases.epoch
	size     int32
	acking   bool
	deadMark bool // left to expire or released: no longer in the table
	receipt  bool // the lease was set by us since the last delivery
}

// Same is shared by messages with the same attributes. None may have one.
type Same struct {
	// Known is what the handler has made of the attributes. Nobody else has it, and it
	// is for the calls with these messages as fresh ones only: these come one after the
	// other.
	Known any
}

// message returns a message with these texts and this data. It copies them, because
// a message that is in flight for long must not keep in memory the response that
// brought it: only the message's own bytes are counted against the bound.
func (r *reader) message(id, ordering, ackID, data []byte) *Message {
	// One allocation for the three texts, which live equally long.
	r.scratch = append(append(append(r.scratch[:0], id...), ordering...), ackID...)
	texts := string(r.scratch)
	return &Message{
		ID:          texts[:len(id)],
		OrderingKey: texts[len(id) : len(id)+len(ordering)],
		ackID:       texts[len(id)+len(ordering):],
		Data:        bytes.Clone(data),
	}
}

// Size is what the message counts against the bound on bytes.
func (m *Message) Size() int64 { return int64(m.size) }
