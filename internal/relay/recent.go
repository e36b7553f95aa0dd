package relay

import (
	"encoding/binary"
	"hash/maphash"
)

// recent remembers what was settled, for some minutes and in bounded memory, so
// that a further delivery is known. It keeps two generations: the current one,
// and the one before.
type recent[K comparable] struct {
	most    int // of one generation
	current map[K]struct{}
	before  map[K]struct{}
}

func newRecent[K comparable](most int) *recent[K] {
	return &recent[K]{most: most, current: make(map[K]struct{})}
}

func (r *recent[K]) add(key K) {
	if len(r.current) >= r.most {
		r.turn()
	}
	r.current[key] = struct{}{}
}

// turn begins a new generation, and forgets the one before the current.
func (r *recent[K]) turn() {
	r.before, r.current = r.current, make(map[K]struct{})
}

func (r *recent[K]) has(key K) bool {
	if _, ok := r.current[key]; ok {
		return true
	}
	_, ok := r.before[key]
	return ok
}

// fingerprint stands for a recorded event: service, environment, id and bytes.
// 128 bits: a collision would lose an event, and must not happen.
type fingerprint [16]byte

// digests are the seeds of one run.
type digests struct {
	data, low, high maphash.Seed
}

func newDigests() digests {
	return digests{maphash.MakeSeed(), maphash.MakeSeed(), maphash.MakeSeed()}
}

func (d digests) fingerprint(h *held) (f fingerprint) {
	var b [32]byte
	copy(b[:16], h.event.UUID[:])
	binary.LittleEndian.PutUint64(b[16:], h.digest)
	binary.LittleEndian.PutUint64(b[24:], h.publisher.hash)
	binary.LittleEndian.PutUint64(f[:8], maphash.Bytes(d.low, b[:]))
	binary.LittleEndian.PutUint64(f[8:], maphash.Bytes(d.high, b[:]))
	return f
}
