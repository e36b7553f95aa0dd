package relay

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// recent remembers what was settled, for some minutes and in bounded memory, so
// that a further delivery is known. It keeps two generations: the current one, and
// the one before.
type recent struct {
	most            int // of one generation
	current, before map[fingerprint]struct{}
}

func newRecent(most int) *recent {
	return &recent{most: most, current: make(map[fingerprint]struct{}), before: make(map[fingerprint]struct{})}
}

func (r *recent) add(f fingerprint) {
	if len(r.current) >= r.most {
		r.turn()
	}
	r.current[f] = struct{}{}
}

// turn begins a new generation in the memory of the one before the current, which
// is forgotten.
func (r *recent) turn() {
	clear(r.before)
	r.current, r.before = r.before, r.current
}

func (r *recent) has(f fingerprint) bool {
	_, now := r.current[f]
	if now {
		return true
	}
	_, before := r.before[f]
	return before
}

func (r *recent) empty() bool { return len(r.current)+len(r.before) == 0 }

// fingerprint stands for a recorded event: service, environment, id and bytes;
// or for the id of a message. 128 bits: a collision would lose an event, and
// must not happen.
type fingerprint [16]byte

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
