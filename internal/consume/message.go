// Package consume receives messages from a Pub/Sub subscription and settles
// them. It works on the low-level client: messages come in bulk, their leases
// are kept in one table and extended until they are settled, and every
// acknowledgement is confirmed by Pub/Sub before it is believed.
package consume

import (
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/chain"
)

// Message is one message that this process holds: Pub/Sub will not deliver it
// to anybody else while its lease lasts. The exported fields are immutable.
type Message struct {
	ID          string
	PublishTime time.Time
	Data        []byte
	Attributes  map[string]string
	OrderingKey string
	// Received is when this process got it first.
	Received time.Time

	// Owned by leases.
	ackID    string
	until    time.Duration // when the lease ends, as far as we know: since leases.epoch
	size     int32
	acking   bool
	deadMark bool // left to expire or released: no longer in the table
	link     chain.Link[Message]
}

// Size is what the message counts against the bound on bytes.
func (m *Message) Size() int64 { return int64(m.size) }
