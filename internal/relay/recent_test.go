package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// settled is the fingerprint of an event that was settled.
func settled(seeds digests, n uint64) fingerprint {
	e := event.Event{Publisher: event.Publisher{ServiceID: "svc", Environment: "prod"}}
	binary.LittleEndian.PutUint64(e.UUID[:], n)
	return seeds.event(seeds.publisher(e.Publisher), &e.UUID, e.UUID[:])
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
		f := settled(seeds, n)
		if got, want := r.has(f), current[n] || before[n]; got != want {
			t.Fatalf("%d is remembered: %v, want %v", n, got, want)
		}
		if current[n] {
			continue // what is known is not added
		}
		if len(current) == most || rng.IntN(200) == 0 {
			before, current = current, map[uint64]bool{}
			r.turn()
		}
		r.add(f)
		current[n] = true
	}
}

// TestFingerprints differ by all that makes an event another one.
func TestFingerprints(t *testing.T) {
	seeds := newDigests()
	e := event.Event{Publisher: event.Publisher{ServiceID: "svc", Environment: "prod"}}
	fingerprintOf := func(e event.Event, data string) fingerprint {
		return seeds.event(seeds.publisher(e.Publisher), &e.UUID, []byte(data))
	}
	base := fingerprintOf(e, "data")
	if fingerprintOf(e, "data") != base {
		t.Error("the same event has two fingerprints")
	}
	for name, change := range map[string]func(*event.Event){
		"id":          func(e *event.Event) { e.UUID[15] = 1 },
		"service":     func(e *event.Event) { e.Publisher.ServiceID = "other" },
		"environment": func(e *event.Event) { e.Publisher.Environment = "dev" },
		"identity":    func(e *event.Event) { e.Publisher = event.Publisher{ServiceID: "prod", Environment: "svc"} },
	} {
		other := e
		change(&other)
		if fingerprintOf(other, "data") == base {
			t.Errorf("another %s has the same fingerprint", name)
		}
	}
	if fingerprintOf(e, "Data") == base {
		t.Error("other data have the same fingerprint")
	}
}

// TestRemembering allocates nothing, event by event.
func TestRemembering(t *testing.T) {
	seeds, r := newDigests(), newRecent(1000)
	n := uint64(0)
	remember := func() {
		n++
		if f := settled(seeds, n); !r.has(f) {
			r.add(f)
		}
	}
	if got := testing.AllocsPerRun(5000, remember); got > 0 {
		t.Errorf("%.2f allocations an event", got)
	}
}

// BenchmarkSettle is what is done to remember an event that was recorded.
func BenchmarkSettle(b *testing.B) {
	seeds, r := newDigests(), newRecent(recentEvents)
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		if f := settled(seeds, n); !r.has(f) {
			r.add(f)
		}
	}
}
