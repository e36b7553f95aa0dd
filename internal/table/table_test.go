package table

import (
	"math/rand/v2"
	"testing"
)

type entry struct{ name int }

// TestAgainstMap compares the table with a map, under hashes that collide, and that
// stand in rows that go round the end.
func TestAgainstMap(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, seed))
		table, want := New[entry](), map[int]*entry{}
		hash := func(name int) uint64 { return uint64(name%(1+int(seed)*300)) - 20 }
		find := func(name int) *entry {
			return table.Find(hash(name), func(e *entry) bool { return e.name == name })
		}
		for range 20_000 {
			name := rng.IntN(4000)
			if got := find(name); got != want[name] {
				t.Fatalf("seed %d: found %v, want %v", seed, got, want[name])
			}
			if e := want[name]; e != nil && rng.IntN(3) > 0 {
				table.Remove(hash(name), e)
				delete(want, name)
			} else if e == nil {
				want[name] = &entry{name: name}
				table.Add(hash(name), want[name])
			}
			if table.Len() != len(want) {
				t.Fatalf("seed %d: %d entries, want %d", seed, table.Len(), len(want))
			}
		}
		for name := range 4000 {
			if got := find(name); got != want[name] {
				t.Fatalf("seed %d: found %v at last, want %v", seed, got, want[name])
			}
		}
		for e := range table.All() {
			if want[e.name] != e {
				t.Fatalf("seed %d: %v is there", seed, e)
			}
			delete(want, e.name)
		}
		if len(want) > 0 {
			t.Fatalf("seed %d: %d are missing", seed, len(want))
		}
		table.Clear()
		for e := range table.All() {
			t.Fatalf("seed %d: %v is there still", seed, e)
		}
		if table.Len() != 0 {
			t.Fatalf("seed %d: %d are there still", seed, table.Len())
		}
	}
}

// TestRemoveTwice is a bug of the caller, and must not go on for ever.
func TestRemoveTwice(t *testing.T) {
	table, e := New[entry](), new(entry)
	table.Add(7, e)
	table.Add(7, new(entry))
	table.Remove(7, e)
	defer func() {
		if recover() == nil {
			t.Error("an entry was removed that is not there")
		}
	}()
	table.Remove(7, e)
}

func BenchmarkAddFindRemove(b *testing.B) {
	table := New[entry]()
	entries := make([]entry, 1<<14)
	none := func(*entry) bool { return false }
	i := uint64(0)
	hash := func(i uint64) uint64 {
		i *= 0x9e3779b97f4a7c15
		return i ^ i>>32
	}
	for b.Loop() {
		e := &entries[i%uint64(len(entries))]
		if i >= uint64(len(entries)) {
			table.Remove(hash(i-uint64(len(entries))), e)
		}
		if table.Find(hash(i), none) != nil {
			b.Fatal("found")
		}
		table.Add(hash(i), e)
		i++
	}
}
