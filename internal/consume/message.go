// Package consume receives messages from a Pub/Sub subscription and settles
// them. It works on the low-level client: messages come in bulk, their leases
// are kept in one table and extended until they are settled, and every
// acknowledgement is confirmed by Pub/Sub before it is believed.
package consume

import (
	"time"
	"unsafe"

	"github.com/sourcegraph/telemetry-relay/internal/buffers"
	"github.com/sourcegraph/telemetry-relay/internal/race"
	"github.com/sourcegraph/telemetry-relay/internal/spare"
)

// Message is one message that this process holds: Pub/Sub will not deliver it
// to anybody else while its lease lasts. The exported fields are immutable, until
// it is settled by Receiver.Finish: then its memory is used for another one.
type Message struct {
	// What is needed to settle a message stands together, in one cache line: by then
	// it is far from the processor.
	PublishTime time.Time

	// Owned by leases.
	ackID     string
	hash      uint64        // of the id
	due       time.Duration // when the lease is to be extended: since leases.epoch
	size      int32
	acking    bool
	deadMark  bool  // left to expire or released: no longer in the table
	finished  bool  // whoever had it has nothing of it any more
	shared    bool  // something else here has a part of it, or had
	receipt   bool  // the lease was set by us since the last delivery
	extending uint8 // requests under way that extend the lease, and have the ack id

	memory []byte // its texts and data, and the room behind them

	ID          string
	Data        []byte
	Attributes  map[string]string
	OrderingKey string
	// Same is what the messages share that have the same attributes.
	Same *Same

	_ [24]byte // a multiple of the cache line, so that it begins with one
}

// Same is shared by messages with the same attributes. None may have one.
type Same struct {
	// Known is what the handler has made of the attributes. Nobody else has it, and it
	// is for the calls with these messages as fresh ones only: these come one after the
	// other.
	Known any
}

// maxRoom is the largest room, in bytes. A request copies what is not longer, so
// that nothing of the room is on its way when the message's memory is used again.
const maxRoom = buffers.MaxCopied

// spares are messages that nobody has any more, by the size of their memory.
var spares = newSpares()

func newSpares() *[buffers.Sizes]spare.Pool[Message] {
	all := new([buffers.Sizes]spare.Pool[Message])
	for class := range all {
		all[class].Touch = func(m *Message) uint64 { return m.hash + uint64(len(m.Data)+len(m.OrderingKey)) }
	}
	return all
}

// Of the spare messages of a size, so many bytes are at hand at most, so many
// messages, and so small a part of what may be held.
const (
	mostBytesAtHand = 64 << 10
	mostAtHand      = 32
	partAtHand      = 256
)

// recycler takes and gives spare messages. It is not safe for concurrent use.
type recycler struct {
	hands [buffers.Sizes]spare.Hand[Message]
}

// newRecycler returns a recycler for a receiver that holds so many messages at most.
func newRecycler(maxEvents int) *recycler {
	r := new(recycler)
	for class := range r.hands {
		r.hands[class] = spares[class].Hand(max(1, min(mostAtHand, mostBytesAtHand/buffers.Size(class), maxEvents/partAtHand)))
	}
	return r
}

// empty returns a message with so many bytes of memory.
func (r *recycler) empty(size int) *Message {
	class, capacity, pooled := buffers.SizeFor(size)
	if !pooled {
		return &Message{memory: make([]byte, 0, size)}
	}
	if m := r.hands[class].Take(); m != nil {
		*m = Message{memory: m.memory[:0]}
		return m
	}
	return &Message{memory: make([]byte, 0, capacity)}
}

// reuse gives a message and its memory back, which nobody may have any part of.
func (r *recycler) reuse(m *Message) {
	class, capacity, pooled := buffers.SizeFor(cap(m.memory))
	if !pooled || capacity != cap(m.memory) {
		return
	}
	if race.Enabled {
		buffers.Spoil(m.memory[:capacity])
	}
	r.hands[class].Give(m)
}

// message returns a message with these texts and this data, which it copies, each
// message by itself: one that is held for long must not keep in memory what came
// with it.
func (r *recycler) message(id, ordering, ackID, data []byte) *Message {
	texts, room := len(id)+len(ordering)+len(ackID), len(data)
	if room > maxRoom {
		room = 0
	}
	m := r.empty(texts + len(data) + room)
	b := append(append(append(append(m.memory, id...), ordering...), ackID...), data...)
	// Nobody writes to these bytes before reuse.
	all := unsafe.String(unsafe.SliceData(b), texts)
	m.ID, m.OrderingKey, m.ackID = all[:len(id)], all[len(id):len(id)+len(ordering)], all[len(id)+len(ordering):]
	if len(data) > 0 {
		m.Data = b[texts:len(b):len(b)]
	}
	m.memory = b
	return m
}

// Room is memory for who has the message, and lives as long as it does. It is
// empty, and has room for as many bytes as there are in Data, unless those are more
// than maxRoom.
func (m *Message) Room() []byte {
	n := len(m.memory)
	if len(m.Data) > maxRoom {
		return nil
	}
	return m.memory[n:n:min(cap(m.memory), n+maxRoom)]
}

// Size is what the message counts against the bound on bytes.
func (m *Message) Size() int64 { return int64(m.size) }
