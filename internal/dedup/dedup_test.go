package dedup_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/dedup"
)

func fingerprint(h dedup.Hasher, n uint64) dedup.Fingerprint {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:], n)
	return h.Event(h.Publisher("svc", "prod"), id, id[:])
}

// TestCacheRemembersTwoGenerations compares the cache with plain sets: it has the
// present generation and the one before, no more and no less.
func TestCacheRemembersTwoGenerations(t *testing.T) {
	const size = 50
	hasher, cache := dedup.NewHasher(), dedup.NewCache(size)
	if !cache.Empty() {
		t.Error("a new cache is not empty")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	current, earlier := map[uint64]bool{}, map[uint64]bool{}
	for range 20_000 {
		n := rng.Uint64N(300)
		f := fingerprint(hasher, n)
		if got, want := cache.Has(f), current[n] || earlier[n]; got != want {
			t.Fatalf("%d is remembered: %v, want %v", n, got, want)
		}
		if current[n] {
			continue // what is known is not added
		}
		if turn := rng.IntN(200) == 0; turn || len(current) == size {
			earlier, current = current, map[uint64]bool{}
			if turn {
				cache.Turn()
			}
		}
		cache.Add(f)
		current[n] = true
		if cache.Empty() {
			t.Fatal("the cache is empty")
		}
	}
}

// TestFingerprintsDiffer by all that makes an event another one.
func TestFingerprintsDiffer(t *testing.T) {
	type event struct {
		service, environment string
		id                   [16]byte
		data                 string
	}
	hasher := dedup.NewHasher()
	of := func(e event) dedup.Fingerprint {
		return hasher.Event(hasher.Publisher(e.service, e.environment), e.id, []byte(e.data))
	}
	base := event{"svc", "prod", [16]byte{}, "data"}
	if copied := base; of(copied) != of(base) {
		t.Error("the same event has two fingerprints")
	}
	for name, change := range map[string]func(*event){
		"id":          func(e *event) { e.id[15] = 1 },
		"service":     func(e *event) { e.service = "other" },
		"environment": func(e *event) { e.environment = "dev" },
		"identity":    func(e *event) { e.service, e.environment = "prod", "svc" },
		"data":        func(e *event) { e.data = "Data" },
	} {
		other := base
		if change(&other); of(other) == of(base) {
			t.Errorf("another %s has the same fingerprint", name)
		}
	}
	if hasher.Message("1") == hasher.Message("2") {
		t.Error("two messages have the same fingerprint")
	}
}

// BenchmarkCache is what is done to remember an event that was recorded.
func BenchmarkCache(b *testing.B) {
	hasher, cache := dedup.NewHasher(), dedup.NewCache(100_000)
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		if f := fingerprint(hasher, n); !cache.Has(f) {
			cache.Add(f)
		}
	}
}
