package chain

import (
	"math/rand/v2"
	"testing"
)

type entry struct {
	name int
	link Link[entry]
}

func newTable() Table[entry] { return New(func(e *entry) *Link[entry] { return &e.link }) }

// TestAgainstMap compares the table with a map, under hashes that collide.
func TestAgainstMap(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, seed))
		table, want := newTable(), map[int]*entry{}
		hash := func(name int) uint64 { return uint64(name % (1 + int(seed)*300)) }
		find := func(name int) *entry {
			for e := table.First(hash(name)); e != nil; e = table.Next(e) {
				if e.name == name {
					return e
				}
			}
			return nil
		}
		for range 20_000 {
			name := rng.IntN(4000)
			if got := find(name); got != want[name] {
				t.Fatalf("seed %d: found %v, want %v", seed, got, want[name])
			}
			if e := want[name]; e != nil && rng.IntN(3) > 0 {
				table.Remove(e)
				delete(want, name)
			} else if e == nil {
				want[name] = &entry{name: name}
				table.Add(hash(name), want[name])
			}
			if table.Len() != len(want) {
				t.Fatalf("seed %d: %d entries, want %d", seed, table.Len(), len(want))
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
	}
}

func BenchmarkAddFindRemove(b *testing.B) {
	table := newTable()
	entries := make([]entry, 1<<14)
	i := uint64(0)
	for b.Loop() {
		e := &entries[i%uint64(len(entries))]
		if i >= uint64(len(entries)) {
			table.Remove(e)
		}
		hash := i * 0x9e3779b97f4a7c15
		if table.First(hash) != nil {
			b.Fatal("found")
		}
		table.Add(hash, e)
		i++
	}
}
