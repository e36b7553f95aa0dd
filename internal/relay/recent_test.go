package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// settled makes an event as the loop settles it.
func settled(n uint64) *held {
	h := &held{digest: n, publisher: &publisher{id: event.Publisher{ServiceID: "svc", Environment: "prod"}, hash: 7}}
	binary.LittleEndian.PutUint64(h.event.UUID[:], n)
	return h
}

// TestRecent compares what is remembered with maps: the present generation and
// the one before, no more and no less.
func TestRecent(t *testing.T) {
	const most = 50
	seeds, r := newDigests(), newRecent(most)
	rng := rand.New(rand.NewPCG(1, 2))
	current, before := map[uint64]bool{}, map[uint64]bool{}
	for range 20_000 {
		n := rng.Uint64N(300)
		if got, want := r.has(seeds.event(settled(n))), current[n] || before[n]; got != want {
			t.Fatalf("%d is remembered: %v, want %v", n, got, want)
		}
		if current[n] {
			continue // what is known is not added
		}
		if len(current) == most || rng.IntN(200) == 0 {
			before, current = current, map[uint64]bool{}
			r.turn()
		}
		r.add(seeds.event(settled(n)))
		current[n] = true
	}
}

// TestFingerprints differ by all that makes an event another one.
func TestFingerprints(t *testing.T) {
	seeds, base := newDigests(), settled(1)
	for name, change := range map[string]func(*held){
		"id":        func(h *held) { h.event.UUID[15] = 1 },
		"data":      func(h *held) { h.digest++ },
		"publisher": func(h *held) { h.publisher = &publisher{hash: 8} },
	} {
		other := *base
		change(&other)
		if seeds.event(base) == seeds.event(&other) {
			t.Errorf("another %s has the same fingerprint", name)
		}
	}
}

// TestRemembering allocates nothing, event by event.
func TestRemembering(t *testing.T) {
	seeds, r, h := newDigests(), newRecent(1000), settled(0)
	n := uint64(0)
	remember := func() {
		n++
		h.digest = n
		if f := seeds.event(h); !r.has(f) {
			r.add(f)
		}
	}
	if got := testing.AllocsPerRun(5000, remember); got > 0 {
		t.Errorf("%.2f allocations an event", got)
	}
}

// BenchmarkSettle is what is done to remember an event that was recorded.
func BenchmarkSettle(b *testing.B) {
	seeds, r, h := newDigests(), newRecent(recentEvents), settled(0)
	b.ReportAllocs()
	for b.Loop() {
		h.digest++
		if f := seeds.event(h); !r.has(f) {
			r.add(f)
		}
	}
}
