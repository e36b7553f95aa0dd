// Package dedup remembers what was settled lately, so that a redelivery of it is
// known. Pub/Sub delivers a message again when an acknowledgement was lost or came
// late, and the gateway would record the event twice.
package dedup

import (
	"encoding/binary"
	"hash/maphash"
)

// Fingerprint stands for an event (its publisher, id and bytes) or for the id of a
// message. It has 128 bits, because a collision would lose an event.
type Fingerprint [16]byte

// Cache remembers fingerprints in two generations, each with a bounded number of
// entries. The older one is forgotten as a whole when a new one begins, so an entry is
// remembered for one generation at least and two at most. A Cache is not safe for
// concurrent use.
type Cache struct {
	max              int // entries of one generation
	current, earlier map[Fingerprint]struct{}
}

// NewCache returns an empty cache with at most so many entries a generation. It takes
// memory as it fills.
func NewCache(size int) *Cache {
	return &Cache{max: size, current: map[Fingerprint]struct{}{}, earlier: map[Fingerprint]struct{}{}}
}

// Add remembers a fingerprint. A generation that is full is followed by a new one.
func (c *Cache) Add(f Fingerprint) {
	if len(c.current) >= c.max {
		c.Turn()
	}
	c.current[f] = struct{}{}
}

// Turn begins a new generation, in the memory of the one that is forgotten.
func (c *Cache) Turn() {
	clear(c.earlier)
	c.current, c.earlier = c.earlier, c.current
}

// Has reports whether a fingerprint is remembered.
func (c *Cache) Has(f Fingerprint) bool {
	if _, ok := c.current[f]; ok {
		return true
	}
	_, ok := c.earlier[f]
	return ok
}

// Empty reports whether nothing is remembered.
func (c *Cache) Empty() bool { return len(c.current)+len(c.earlier) == 0 }

// Hasher makes fingerprints. Each run draws new seeds, so that a publisher cannot construct
// events that collide.
type Hasher struct{ data, low, high maphash.Seed }

// NewHasher draws new seeds.
func NewHasher() Hasher {
	return Hasher{maphash.MakeSeed(), maphash.MakeSeed(), maphash.MakeSeed()}
}

// Publisher is the hash of an identity, for Event: many events share one.
func (h Hasher) Publisher(serviceID, environment string) uint64 {
	return maphash.String(h.low, serviceID) ^ maphash.String(h.high, environment)
}

// Event is the fingerprint of an event that a publisher gave this id, and whose
// message has these data.
func (h Hasher) Event(publisher uint64, id [16]byte, data []byte) (f Fingerprint) {
	var b [32]byte
	copy(b[:16], id[:])
	binary.LittleEndian.PutUint64(b[16:], maphash.Bytes(h.data, data))
	binary.LittleEndian.PutUint64(b[24:], publisher)
	binary.LittleEndian.PutUint64(f[:8], maphash.Bytes(h.low, b[:]))
	binary.LittleEndian.PutUint64(f[8:], maphash.Bytes(h.high, b[:]))
	return f
}

// Message is the fingerprint of a message's id.
func (h Hasher) Message(id string) (f Fingerprint) {
	binary.LittleEndian.PutUint64(f[:8], maphash.String(h.low, id))
	binary.LittleEndian.PutUint64(f[8:], maphash.String(h.high, id))
	return f
}
