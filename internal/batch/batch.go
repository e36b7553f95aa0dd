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

// Groups holds what waits, in groups of items that may travel together. G names
// a group, and O its owner: groups of one owner share a turn, so that one with
// many events does not hold up the others. It is not safe for concurrent use.
type Groups[G, O comparable, T any] struct {
	limits Limits
	groups map[G]*group[G, O, T]
	owners map[O]*owner[G, O, T]
	// turns are the owners with something due, the next one first.
	turns []*owner[G, O, T]
	// timers are the groups that wait for their time: those that are not queued.
	timers timers[G, O, T]
	items  int
	epoch  time.Time // of the first item
	// spare are groups that are gone, with their memory: most come again.
	spare []*group[G, O, T]
}

// maxSpare bounds the groups that wait to be used again.
const maxSpare = 64

type group[G, O comparable, T any] struct {
	key    G
	owner  *owner[G, O, T]
	items  []item[T]
	bytes  int
	due    time.Time // of its oldest item
	queued bool      // among its owner's due groups
	// flushed is how many of its items are due whatever their time.
	flushed int
	timer   int // its place among the timers, while it is not queued
}

type item[T any] struct {
	value T
	bytes int
	due   time.Duration // since the epoch
}

type owner[G, O comparable, T any] struct {
	key    O
	due    []*group[G, O, T]
	groups int
	turn   bool // among turns
}

// NewGroups returns empty groups.
func NewGroups[G, O comparable, T any](limits Limits) *Groups[G, O, T] {
	return &Groups[G, O, T]{
		limits: limits,
		groups: make(map[G]*group[G, O, T]),
		owners: make(map[O]*owner[G, O, T]),
	}
}

// Add puts an item of so many bytes into a group. It becomes due when its group
// is full, and latest after the delay.
func (g *Groups[G, O, T]) Add(now time.Time, key G, ownerKey O, bytes int, value T) {
	if g.epoch.IsZero() {
		g.epoch = now
	}
	due := now.Sub(g.epoch) + g.limits.Delay
	at, ok := g.groups[key]
	if !ok {
		at = g.group()
		at.key, at.owner, at.due = key, g.owner(ownerKey), g.epoch.Add(due)
		at.owner.groups++
		g.groups[key] = at
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

func (g *Groups[G, O, T]) full(at *group[G, O, T]) bool {
	return len(at.items) >= g.limits.Events || at.bytes >= g.limits.Bytes
}

func (g *Groups[G, O, T]) owner(key O) *owner[G, O, T] {
	o, ok := g.owners[key]
	if !ok {
		o = &owner[G, O, T]{key: key}
		g.owners[key] = o
	}
	return o
}

// group is a group without items: one that is gone, or a new one.
func (g *Groups[G, O, T]) group() *group[G, O, T] {
	last := len(g.spare) - 1
	if last < 0 {
		return new(group[G, O, T])
	}
	at := g.spare[last]
	g.spare = g.spare[:last]
	return at
}

// queue gives a group that is not among the timers its place among its owner's
// due ones, and the owner a turn.
func (g *Groups[G, O, T]) queue(at *group[G, O, T]) {
	at.queued = true
	at.owner.due = append(at.owner.due, at)
	if !at.owner.turn {
		at.owner.turn = true
		g.turns = append(g.turns, at.owner)
	}
}

// Len is how many items wait.
func (g *Groups[G, O, T]) Len() int { return g.items }

// Due says when something becomes due by its time, or that nothing will. What is
// due already is not counted: Next has it.
func (g *Groups[G, O, T]) Due() (time.Time, bool) {
	if len(g.timers) == 0 {
		return time.Time{}, false
	}
	return g.timers[0].due, true
}

// Next takes the next batch that is due, in turns by owner. An owner that busy
// names is passed over. The second result is false when there is none.
func (g *Groups[G, O, T]) Next(now time.Time, busy func(O) bool) (Batch[T], bool) {
	for len(g.timers) > 0 && !g.timers[0].due.After(now) {
		g.queue(heap.Pop(&g.timers).(*group[G, O, T]))
	}
	for i, o := range g.turns {
		if busy != nil && busy(o.key) {
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
func (g *Groups[G, O, T]) take(now time.Time, at *group[G, O, T]) Batch[T] {
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
		g.remove(at)
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

func (g *Groups[G, O, T]) remove(at *group[G, O, T]) {
	delete(g.groups, at.key)
	at.owner.groups--
	if at.owner.groups == 0 {
		delete(g.owners, at.owner.key)
	}
	if len(g.spare) < maxSpare {
		*at = group[G, O, T]{items: at.items[:0]}
		g.spare = append(g.spare, at)
	}
}

// Flush makes everything that waits now due.
func (g *Groups[G, O, T]) Flush() {
	for _, at := range g.groups {
		at.flushed = len(at.items)
	}
	for len(g.timers) > 0 {
		g.queue(heap.Pop(&g.timers).(*group[G, O, T]))
	}
}

// TakeAll takes everything that waits, in a definite order.
func (g *Groups[G, O, T]) TakeAll() []T {
	g.Flush()
	all := make([]T, 0, g.items)
	for _, o := range g.turns {
		for _, at := range o.due {
			for _, it := range at.items {
				all = append(all, it.value)
			}
		}
	}
	*g = *NewGroups[G, O, T](g.limits)
	return all
}

// timers is a heap of groups by the time at which they become due.
type timers[G, O comparable, T any] []*group[G, O, T]

func (t timers[G, O, T]) Len() int           { return len(t) }
func (t timers[G, O, T]) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timers[G, O, T]) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = i, j
}

func (t *timers[G, O, T]) Push(x any) {
	at := x.(*group[G, O, T])
	at.timer = len(*t)
	*t = append(*t, at)
}

func (t *timers[G, O, T]) Pop() any {
	last := len(*t) - 1
	at := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	return at
}
