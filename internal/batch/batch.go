// Package batch groups what waits for company. It decides only: it knows the
// time because it is told, and does no I/O.
package batch

import (
	"container/heap"
	"slices"
	"time"
)

// Limits of a batch.
type Limits struct {
	// Events in one batch, at most.
	Events int
	// Bytes of one batch, at most; a larger single event travels alone.
	Bytes int
	// Delay is the longest an event waits for company.
	Delay time.Duration
}

// Batch is what travels together.
type Batch[T any] struct {
	Items []T
	Bytes int
}

// Owner is whose turn it is: groups of one owner share a turn, so that one with many
// events does not hold up the others.
type Owner[K, T any] struct {
	// Key is the owner for the caller.
	Key  K
	due  []*Group[K, T]
	turn bool // among turns
}

// Group has items that may travel together. It belongs to the caller, so that
// nothing is searched for, and is empty when only its owner is set.
type Group[K, T any] struct {
	Owner  *Owner[K, T]
	items  []item[T]
	bytes  int
	due    time.Time // of its oldest item
	queued bool      // among its owner's due groups
	// flushed is how many of its items are due whatever their time.
	flushed int
	timer   int // its place among the timers, while it has items and is not queued
}

// Empty reports whether nothing waits in the group.
func (at *Group[K, T]) Empty() bool { return len(at.items) == 0 }

type item[T any] struct {
	value T
	bytes int
	due   time.Duration // since the epoch
}

// Groups is what waits. It is not safe for concurrent use.
type Groups[K, T any] struct {
	limits Limits
	// turns are the owners with something due, the next one first.
	turns []*Owner[K, T]
	// timers are the groups that wait for their time: those that are not queued.
	timers timers[K, T]
	items  int
	epoch  time.Time // of the first item
	// spare is memory of groups that have become empty.
	spare [][]item[T]
}

// maxSpare bounds the memory that waits to be used again: so many times what one
// batch has.
const maxSpare = 64

// NewGroups returns the state of groups that are empty.
func NewGroups[K, T any](limits Limits) *Groups[K, T] { return &Groups[K, T]{limits: limits} }

// Add puts an item of so many bytes into a group. It becomes due when its group
// is full, and latest after the delay.
func (g *Groups[K, T]) Add(now time.Time, at *Group[K, T], bytes int, value T) {
	if g.epoch.IsZero() {
		g.epoch = now
	}
	due := now.Sub(g.epoch) + g.limits.Delay
	if at.Empty() {
		at.due = g.epoch.Add(due)
		if last := len(g.spare) - 1; last >= 0 {
			at.items, g.spare = g.spare[last], g.spare[:last]
		}
		heap.Push(&g.timers, at)
	}
	at.items = append(at.items, item[T]{value, bytes, due})
	at.bytes += bytes
	g.items++
	if !at.queued && g.full(at) {
		heap.Remove(&g.timers, at.timer)
		g.queue(at)
	}
}

func (g *Groups[K, T]) full(at *Group[K, T]) bool {
	return len(at.items) >= g.limits.Events || at.bytes >= g.limits.Bytes
}

// queue gives a group that is not among the timers its place among its owner's
// due ones, and the owner a turn.
func (g *Groups[K, T]) queue(at *Group[K, T]) {
	at.queued = true
	at.Owner.due = append(at.Owner.due, at)
	if !at.Owner.turn {
		at.Owner.turn = true
		g.turns = append(g.turns, at.Owner)
	}
}

// Len is how many items wait.
func (g *Groups[K, T]) Len() int { return g.items }

// Due says when something becomes due by its time, or that nothing will. What is
// due already is not counted: Next has it.
func (g *Groups[K, T]) Due() (time.Time, bool) {
	if len(g.timers) == 0 {
		return time.Time{}, false
	}
	return g.timers[0].due, true
}

// Next takes the next batch that is due, in turns by owner. An owner that busy
// names is passed over. The second result is false when there is none.
func (g *Groups[K, T]) Next(now time.Time, busy func(K) bool) (Batch[T], bool) {
	for len(g.timers) > 0 && !g.timers[0].due.After(now) {
		g.queue(heap.Pop(&g.timers).(*Group[K, T]))
	}
	for i, o := range g.turns {
		if busy != nil && busy(o.Key) {
			continue
		}
		at := o.due[0]
		o.due[0] = nil
		o.due = o.due[1:]
		at.queued = false
		b := g.take(now, at)
		// Its next turn comes after everybody else's.
		g.turns = slices.Delete(g.turns, i, i+1)
		o.turn = false
		if len(o.due) > 0 {
			o.turn = true
			g.turns = append(g.turns, o)
		}
		return b, true
	}
	return Batch[T]{}, false
}

// take cuts a batch from the front of a group.
func (g *Groups[K, T]) take(now time.Time, at *Group[K, T]) Batch[T] {
	n, size := 0, 0
	for n < len(at.items) && n < g.limits.Events {
		if n > 0 && size+at.items[n].bytes > g.limits.Bytes {
			break
		}
		size += at.items[n].bytes
		n++
	}
	b := Batch[T]{Items: make([]T, n), Bytes: size}
	for i := range b.Items {
		b.Items[i] = at.items[i].value
	}
	clear(at.items[:n]) // what has left must not be kept alive
	g.items -= n
	at.bytes -= size
	at.flushed = max(0, at.flushed-n)
	if n == len(at.items) {
		g.emptied(at)
		return b
	}
	if rest := len(at.items) - n; rest <= n {
		copy(at.items, at.items[n:])
		clear(at.items[rest:])
		at.items = at.items[:rest]
	} else {
		at.items = at.items[n:]
	}
	at.due = g.epoch.Add(at.items[0].due)
	if g.full(at) || at.flushed > 0 || !at.due.After(now) {
		g.queue(at)
	} else {
		heap.Push(&g.timers, at)
	}
	return b
}

// emptied takes the memory of a group that has nothing any more.
func (g *Groups[K, T]) emptied(at *Group[K, T]) {
	if len(g.spare) < maxSpare && cap(at.items) <= 2*g.limits.Events {
		g.spare = append(g.spare, at.items[:0])
	}
	at.items = nil
}

// Flush makes everything that waits now due.
func (g *Groups[K, T]) Flush() {
	for len(g.timers) > 0 {
		g.queue(heap.Pop(&g.timers).(*Group[K, T]))
	}
	for _, o := range g.turns {
		for _, at := range o.due {
			at.flushed = len(at.items)
		}
	}
}

// TakeAll takes everything that waits, in a definite order.
func (g *Groups[K, T]) TakeAll() []T {
	g.Flush()
	all := make([]T, 0, g.items)
	for _, o := range g.turns {
		for _, at := range o.due {
			for _, it := range at.items {
				all = append(all, it.value)
			}
			*at = Group[K, T]{Owner: at.Owner}
		}
		o.due, o.turn = nil, false
	}
	*g = *NewGroups[K, T](g.limits)
	return all
}

// timers is a heap of groups by the time at which they become due.
type timers[K, T any] []*Group[K, T]

func (t timers[K, T]) Len() int           { return len(t) }
func (t timers[K, T]) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timers[K, T]) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = i, j
}

func (t *timers[K, T]) Push(x any) {
	at := x.(*Group[K, T])
	at.timer = len(*t)
	*t = append(*t, at)
}

func (t *timers[K, T]) Pop() any {
	last := len(*t) - 1
	at := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	return at
}
