// Package table is a hash table of entries that are elsewhere. It is one row of
// hashes and pointers, so that whatever is done in it touches hardly more than one
// cache line, and no entry but one that has the same hash.
package table

import "iter"

// Table holds entries by their hashes, of which the lower bits must be well
// distributed. It is not safe for concurrent use.
type Table[T any] struct {
	slots []slot[T] // a power of two; entries that would have the same one stand in a row
	count int
}

type slot[T any] struct {
	hash  uint64
	entry *T // nil: free
}

const firstSlots = 1 << 10

// New returns an empty table.
func New[T any]() Table[T] { return Table[T]{slots: make([]slot[T], firstSlots)} }

// Len is how many entries there are.
func (t *Table[T]) Len() int { return t.count }

func (t *Table[T]) mask() uint64 { return uint64(len(t.slots) - 1) }

// Find returns the entry with this hash that is the same, nil if there is none.
func (t *Table[T]) Find(hash uint64, same func(*T) bool) *T {
	for at := hash & t.mask(); t.slots[at].entry != nil; at = (at + 1) & t.mask() {
		if s := &t.slots[at]; s.hash == hash && same(s.entry) {
			return s.entry
		}
	}
	return nil
}

// Add enters what is not in the table.
func (t *Table[T]) Add(hash uint64, entry *T) {
	if t.count >= len(t.slots)/3*2 {
		t.grow()
	}
	t.put(slot[T]{hash, entry})
	t.count++
}

func (t *Table[T]) put(s slot[T]) {
	at := s.hash & t.mask()
	for t.slots[at].entry != nil {
		at = (at + 1) & t.mask()
	}
	t.slots[at] = s
}

// Remove takes out an entry that is there, under this hash. It panics if it is not.
func (t *Table[T]) Remove(hash uint64, entry *T) {
	mask := t.mask()
	free := hash & mask
	for t.slots[free].entry != entry {
		if t.slots[free].entry == nil {
			panic("table: an entry to be removed is not there")
		}
		free = (free + 1) & mask
	}
	// What comes after it in its row must stay findable.
	for at := (free + 1) & mask; t.slots[at].entry != nil; at = (at + 1) & mask {
		s := t.slots[at]
		if passed := (at - s.hash) & mask; passed >= (at-free)&mask {
			t.slots[free], free = s, at
		}
	}
	t.slots[free] = slot[T]{}
	t.count--
}

// Clear takes out all entries.
func (t *Table[T]) Clear() {
	clear(t.slots)
	t.count = 0
}

// All are the entries, in no order. The table must not change meanwhile.
func (t *Table[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, s := range t.slots {
			if s.entry != nil && !yield(s.entry) {
				return
			}
		}
	}
}

func (t *Table[T]) grow() {
	old := t.slots
	t.slots = make([]slot[T], 2*len(old))
	for _, s := range old {
		if s.entry != nil {
			t.put(s)
		}
	}
}
