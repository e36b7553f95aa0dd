package relay

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// recent remembers what was settled, for some minutes and in bounded memory, so
// that a further delivery is known. It keeps two generations: the current one,
// and the one before. Each is written in a row and found by an index, since a map
// of so many would miss the processor's caches several times an event. The index
// has both of them side by side, so that a search misses them once.
type recent struct {
	most    int // of one generation
	current int // which one it is
	all     [2][]fingerprint
	index   [][2]uint32 // entries; 0: free. At least half of each generation's are
	bits    int         // of an entry that are a place
}

// newRecent takes memory that costs nothing before it is used.
func newRecent(most int) *recent {
	size := 2
	for size < 2*most {
		size *= 2
	}
	r := &recent{most: most, index: make([][2]uint32, size), bits: bits.Len(uint(most))}
	for g := range r.all {
		r.all[g] = make([]fingerprint, 0, most)
	}
	return r
}

// entry is a place in all, plus one, and above it as many bits of the fingerprint
// as fit: only if they are equal, it is worth to look there.
func (r *recent) entry(place uint32, f *fingerprint) uint32 {
	return uint32(f.high())<<r.bits | place
}

func (r *recent) add(f fingerprint) {
	if len(r.all[r.current]) >= r.most {
		r.turn()
	}
	g := r.current
	r.all[g] = append(r.all[g], f)
	*r.slot(g, &f) = r.entry(uint32(len(r.all[g])), &f)
}

// turn begins a new generation in the memory of the one before the current, which
// is forgotten.
func (r *recent) turn() {
	r.current = 1 - r.current
	for i := range r.index {
		r.index[i][r.current] = 0
	}
	r.all[r.current] = r.all[r.current][:0]
}

func (r *recent) has(f *fingerprint) bool { return *r.slot(0, f) != 0 || *r.slot(1, f) != 0 }

func (r *recent) empty() bool { return len(r.all[0])+len(r.all[1]) == 0 }

// slot is where a fingerprint of a generation stands in the index, or a free one
// if it does not.
func (r *recent) slot(g int, f *fingerprint) *uint32 {
	mask, same := uint64(len(r.index)-1), r.entry(0, f)
	for at := f.low() & mask; ; at = (at + 1) & mask {
		slot := &r.index[at][g]
		if *slot == 0 {
			return slot
		}
		if place := *slot ^ same; place>>r.bits == 0 && r.all[g][place-1] == *f {
			return slot
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

// event is the fingerprint of an event with this id that was made of these data.
func (d digests) event(publisher uint64, id *[16]byte, data []byte) (f fingerprint) {
	var b [32]byte
	copy(b[:16], id[:])
	binary.LittleEndian.PutUint64(b[16:], maphash.Bytes(d.data, data))
	binary.LittleEndian.PutUint64(b[24:], publisher)
	binary.LittleEndian.PutUint64(f[:8], maphash.Bytes(d.low, b[:]))
	binary.LittleEndian.PutUint64(f[8:], maphash.Bytes(d.high, b[:]))
	return f
}

// publisher is the hash of an identity.
func (d digests) publisher(p event.Publisher) uint64 {
	return maphash.String(d.low, p.ServiceID) ^ maphash.String(d.high, p.Environment)
}

func (d digests) message(id string) (f fingerprint) {
	binary.LittleEndian.PutUint64(f[:8], maphash.String(d.low, id))
	binary.LittleEndian.PutUint64(f[8:], maphash.String(d.high, id))
	return f
}
