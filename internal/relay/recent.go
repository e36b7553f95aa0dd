package relay

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// recent remembers what was settled, for some minutes and in bounded memory, so
// that a further delivery is known. It keeps two generations: the current one,
// and the one before. Each is written in a row and found by an index of its own,
// since a map of so many would miss the processor's caches several times an
// event.
type recent struct {
	most            int // of one generation
	current, before generation
}

type generation struct {
	all   []fingerprint
	index []uint32 // entries; 0: free. At least half of it is
	bits  int      // of an entry that are a place
}

// An entry of the index is a place in all, plus one, and above it as many bits of
// the fingerprint as fit: only if they are equal, it is worth to look there.
func (g *generation) entry(place uint32, f fingerprint) uint32 {
	return uint32(f.high())<<g.bits | place
}

func newRecent(most int) *recent {
	return &recent{most: most, current: newGeneration(most), before: newGeneration(most)}
}

// newGeneration takes memory that costs nothing before it is used.
func newGeneration(most int) generation {
	size := 2
	for size < 2*most {
		size *= 2
	}
	return generation{make([]fingerprint, 0, most), make([]uint32, size), bits.Len(uint(most))}
}

func (r *recent) add(f fingerprint) {
	if len(r.current.all) >= r.most {
		r.turn()
	}
	g := &r.current
	g.all = append(g.all, f)
	*g.slot(f) = g.entry(uint32(len(g.all)), f)
}

// turn begins a new generation in the memory of the one before the current, which
// is forgotten.
func (r *recent) turn() {
	r.before, r.current = r.current, r.before
	clear(r.current.index)
	r.current.all = r.current.all[:0]
}

func (r *recent) has(f fingerprint) bool { return r.current.has(f) || r.before.has(f) }

func (r *recent) empty() bool { return len(r.current.all)+len(r.before.all) == 0 }

func (g *generation) has(f fingerprint) bool { return len(g.all) > 0 && *g.slot(f) != 0 }

// slot is where a fingerprint stands in the index, or a free one if it does not.
func (g *generation) slot(f fingerprint) *uint32 {
	mask, same := uint64(len(g.index)-1), g.entry(0, f)
	for at := f.low() & mask; ; at = (at + 1) & mask {
		entry := g.index[at]
		if entry == 0 {
			return &g.index[at]
		}
		if place := entry ^ same; place>>g.bits == 0 && g.all[place-1] == f {
			return &g.index[at]
		}
	}
}

// fingerprint stands for a recorded event: service, environment, id and bytes;
// or for the id of a message. 128 bits: a collision would lose an event, and
// must not happen.
type fingerprint [16]byte

func (f *fingerprint) low() uint64  { return binary.LittleEndian.Uint64(f[:8]) }
func (f *fingerprint) high() uint64 { return binary.LittleEndian.Uint64(f[8:]) }

// digests are the seeds of one run.
type digests struct {
	data, low, high maphash.Seed
}

func newDigests() digests {
	return digests{maphash.MakeSeed(), maphash.MakeSeed(), maphash.MakeSeed()}
}

func (d digests) event(h *held) (f fingerprint) {
	var b [32]byte
	copy(b[:16], h.event.UUID[:])
	binary.LittleEndian.PutUint64(b[16:], h.digest)
	binary.LittleEndian.PutUint64(b[24:], h.publisher.hash)
	binary.LittleEndian.PutUint64(f[:8], maphash.Bytes(d.low, b[:]))
	binary.LittleEndian.PutUint64(f[8:], maphash.Bytes(d.high, b[:]))
	return f
}

func (d digests) message(id string) (f fingerprint) {
	binary.LittleEndian.PutUint64(f[:8], maphash.String(d.low, id))
	binary.LittleEndian.PutUint64(f[8:], maphash.String(d.high, id))
	return f
}
