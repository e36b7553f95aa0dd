// Package chain is a hash table whose chains run through what it holds: an entry
// costs no memory of its own, and a search that finds nothing, which is what a
// search for a duplicate nearly always does, touches no entry.
package chain

import "iter"

// Link is the part of an entry that belongs to the table that holds it.
type Link[T any] struct {
	hash uint64
	next *T
}

// Table holds entries by their hashes. It is not safe for concurrent use.
type Table[T any] struct {
	link    func(*T) *Link[T]
	buckets []*T // a power of two
	count   int
}

const firstBuckets = 1 << 10

// New returns an empty table. link returns an entry's Link.
func New[T any](link func(*T) *Link[T]) Table[T] {
	return Table[T]{link: link, buckets: make([]*T, firstBuckets)}
}

// Len is how many entries there are.
func (t *Table[T]) Len() int { return t.count }

func (t *Table[T]) bucket(hash uint64) **T { return &t.buckets[hash&uint64(len(t.buckets)-1)] }

// First returns an entry with this hash, nil if there is none.
func (t *Table[T]) First(hash uint64) *T { return t.from(*t.bucket(hash), hash) }

// Next returns another entry with the hash of this one, nil after the last.
func (t *Table[T]) Next(entry *T) *T {
	l := t.link(entry)
	return t.from(l.next, l.hash)
}

func (t *Table[T]) from(entry *T, hash uint64) *T {
	for entry != nil {
		l := t.link(entry)
		if l.hash == hash {
			return entry
		}
		entry = l.next
	}
	return nil
}

// Add enters what is not in a table.
func (t *Table[T]) Add(hash uint64, entry *T) {
	if t.count == len(t.buckets) {
		t.grow()
	}
	t.put(hash, entry)
	t.count++
}

func (t *Table[T]) put(hash uint64, entry *T) {
	at := t.bucket(hash)
	*t.link(entry) = Link[T]{hash, *at}
	*at = entry
}

// Remove takes out an entry that is there.
func (t *Table[T]) Remove(entry *T) {
	l := t.link(entry)
	at := t.bucket(l.hash)
	for *at != entry {
		at = &t.link(*at).next
	}
	*at, l.next = l.next, nil
	t.count--
}

// All are the entries, in no order. The table must not change meanwhile.
func (t *Table[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, entry := range t.buckets {
			for ; entry != nil; entry = t.link(entry).next {
				if !yield(entry) {
					return
				}
			}
		}
	}
}

func (t *Table[T]) grow() {
	old := t.buckets
	t.buckets = make([]*T, 2*len(old))
	for _, entry := range old {
		for entry != nil {
			l := t.link(entry)
			next := l.next
			t.put(l.hash, entry)
			entry = next
		}
	}
}
