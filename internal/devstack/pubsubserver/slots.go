package pubsubserver

import "time"

// nowhere ends a list of slots.
const nowhere = ^uint32(0)

type slotState uint8

const (
	slotFree    slotState = iota
	slotReady             // in the backlog
	slotLeased            // in one of the lease lists
	slotDropped           // acknowledged while ready; free once it leaves the backlog
)

// slot holds one unacknowledged message. Slots never move, so an ack id can name
// them.
type slot struct {
	message    message
	delivery   uint64    // number of the latest delivery; 0 before the first
	deadline   time.Time // of the lease
	holder     *consumer // whose flow control counts it; nil unless leased by a stream
	prev, next uint32    // in the lease list
	attempts   int32     // deliveries so far
	lease      uint16    // seconds, which is also the index of the lease list
	state      slotState
	awaited    bool // the lease is still the one that a stream's delivery gave
}

// unacked reports whether the slot holds a message that is not acknowledged.
func (s *slot) unacked() bool { return s.state == slotReady || s.state == slotLeased }

// slots is the table of a queue's messages. The queue's lock guards it.
type slots struct {
	tag    uint32              // of the ack ids that name the slots
	chunks []*[chunkSlots]slot // grow without moving what is there
	used   uint32              // slots that were ever used
	free   []uint32            // those of them that are free again
}

// chunkSlots is how many slots the table grows by.
const chunkSlots = 1 << 10

func (s *slots) at(i uint32) *slot { return &s.chunks[i/chunkSlots][i%chunkSlots] }

// add puts a message into a free slot. It is ready then, and must go into the backlog.
func (s *slots) add(m message, attempts int32) uint32 {
	var i uint32
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
	} else {
		i = s.used
		s.used++
		if int(i/chunkSlots) == len(s.chunks) {
			s.chunks = append(s.chunks, new([chunkSlots]slot))
		}
	}
	*s.at(i) = slot{message: m, attempts: attempts, state: slotReady, prev: nowhere, next: nowhere}
	return i
}

func (s *slots) release(i uint32) {
	*s.at(i) = slot{}
	s.free = append(s.free, i)
}

// find returns the slot that an ack id names, if the id is not out of date. valid
// reports whether the id is well formed.
func (s *slots) find(id string) (i uint32, found, valid bool) {
	tag, i, delivery, ok := parseAckID(id)
	if !ok || tag != s.tag {
		return 0, false, false
	}
	if i >= s.used || s.at(i).delivery != delivery || delivery == 0 {
		return 0, false, true
	}
	return i, true, true
}

func (s *slots) findLeased(id string) (i uint32, leased bool) {
	i, found, _ := s.find(id)
	return i, found && s.at(i).state == slotLeased
}

func (s *slots) wellFormed(ids []string) bool {
	for _, id := range ids {
		if _, _, valid := s.find(id); !valid {
			return false
		}
	}
	return true
}
