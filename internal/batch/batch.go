// Package batch groups what waits for company. It decides only: it knows the
// time because it is told, and does no I/O.
package batch

import (
	"container/heap"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/turns"
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

// Group is the events of one environment of a service that may travel together. It
// belongs to the caller, so that nothing is searched for. Only its first two fields
// are set by the caller.
type Group[S, E comparable, T any] struct {
	Service     S
	Environment E

	items  []item[T]
	bytes  int
	due    time.Time // of its oldest item
	queued bool      // it has its place among those that wait for their turn
	// flushed is how many of its items are due whatever their time, as far as the
	// flushes go that it has taken note of.
	flushed int
	flushes int
	timer   int // its place among the timers, while it has items and is not queued
}

// Empty reports whether nothing waits in the group.
func (at *Group[S, E, T]) Empty() bool { return len(at.items) == 0 }

type item[T any] struct {
	value T
	bytes int
	due   time.Duration // since the epoch
}

// Groups is what waits. It is not safe for concurrent use.
type Groups[S, E comparable, T any] struct {
	limits Limits
	// ready are the groups with something due.
	ready turns.Queue[S, E, *Group[S, E, T]]
	// timers are the groups that wait for their time: those that are not queued.
	timers timers[S, E, T]
	items  int
	due    int       // items of the groups that are ready
	epoch  time.Time // of the first item
	// flushes is how often everything was flushed. A group takes note of it when it is
	// next looked at, so that a flush need not walk over all that are ready.
	flushes int
	// spare is memory of groups that have become empty.
	spare [][]item[T]
}

// maxSpare bounds the memory that waits to be used again: so many times what one
// batch has.
const maxSpare = 64

// NewGroups returns the state of groups that are empty.
func NewGroups[S, E comparable, T any](limits Limits) *Groups[S, E, T] {
	return &Groups[S, E, T]{limits: limits}
}

// Add puts an item of so many bytes into a group. It becomes due when its group
// is full, and latest after the delay.
func (g *Groups[S, E, T]) Add(now time.Time, at *Group[S, E, T], bytes int, value T) {
	if g.epoch.IsZero() {
		g.epoch = now
	}
	due := now.Sub(g.epoch) + g.limits.Delay
	g.note(at)
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
	switch {
	case at.queued:
		g.due++
	case g.full(at):
		heap.Remove(&g.timers, at.timer)
		g.queue(at)
	}
}

func (g *Groups[S, E, T]) full(at *Group[S, E, T]) bool {
	return len(at.items) >= g.limits.Events || at.bytes >= g.limits.Bytes
}

// queue has a group that is not among the timers wait for its turn.
func (g *Groups[S, E, T]) queue(at *Group[S, E, T]) {
	at.queued = true
	g.due += len(at.items)
	g.ready.Push(at.Service, at.Environment, at)
}

// Len is how many items wait.
func (g *Groups[S, E, T]) Len() int { return g.items }

// Due says when something becomes due by its time, or that nothing will. What is
// due already is not counted: Next has it.
func (g *Groups[S, E, T]) Due() (time.Time, bool) {
	if len(g.timers) == 0 {
		return time.Time{}, false
	}
	return g.timers[0].due, true
}

// Next takes the next batch that is due, in turns by service and environment. The
// second result is false when there is none, or only of those that are busy.
func (g *Groups[S, E, T]) Next(now time.Time, busy turns.Busy[S, E]) (Batch[T], bool) {
	g.queueDue(now)
	at, ok := g.ready.Next(busy)
	if !ok {
		return Batch[T]{}, false
	}
	at.queued = false
	g.due -= len(at.items)
	return g.take(now, at), true
}

// queueDue has the groups whose time has come wait for their turn.
func (g *Groups[S, E, T]) queueDue(now time.Time) {
	for len(g.timers) > 0 && !g.timers[0].due.After(now) {
		g.queue(heap.Pop(&g.timers).(*Group[S, E, T]))
	}
}

// Ready is how many items are in groups with something due: how many would be taken if
// nobody were busy, apart from the last ones of a group that wait for company again.
func (g *Groups[S, E, T]) Ready(now time.Time) int {
	g.queueDue(now)
	return g.due
}

// note has a group take note of the flushes since it was last looked at.
func (g *Groups[S, E, T]) note(at *Group[S, E, T]) {
	if at.flushes != g.flushes {
		at.flushed, at.flushes = len(at.items), g.flushes
	}
}

// take cuts a batch from the front of a group.
func (g *Groups[S, E, T]) take(now time.Time, at *Group[S, E, T]) Batch[T] {
	g.note(at)
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
func (g *Groups[S, E, T]) emptied(at *Group[S, E, T]) {
	if len(g.spare) < maxSpare && cap(at.items) <= 2*g.limits.Events {
		g.spare = append(g.spare, at.items[:0])
	}
	at.items = nil
}

// Flush makes everything that waits now due.
func (g *Groups[S, E, T]) Flush() {
	for len(g.timers) > 0 {
		g.queue(heap.Pop(&g.timers).(*Group[S, E, T]))
	}
	g.flushes++
}

// TakeAll takes everything that waits, in a definite order.
func (g *Groups[S, E, T]) TakeAll() []T {
	g.Flush()
	all := make([]T, 0, g.items)
	for _, at := range g.ready.TakeAll() {
		for _, it := range at.items {
			all = append(all, it.value)
		}
		*at = Group[S, E, T]{Service: at.Service, Environment: at.Environment}
	}
	*g = *NewGroups[S, E, T](g.limits)
	return all
}

// timers is a heap of groups by the time at which they become due.
type timers[S, E comparable, T any] []*Group[S, E, T]

func (t timers[S, E, T]) Len() int           { return len(t) }
func (t timers[S, E, T]) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timers[S, E, T]) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = i, j
}

func (t *timers[S, E, T]) Push(x any) {
	at := x.(*Group[S, E, T])
	at.timer = len(*t)
	*t = append(*t, at)
}

func (t *timers[S, E, T]) Pop() any {
	last := len(*t) - 1
	at := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	return at
}
