// Package batch groups the events of a publisher into batches. It only decides: it gets the
// time from its caller and does no I/O.
package batch

import (
	"container/heap"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/turns"
)

// Limits of a batch.
type Limits struct {
	// Events is how many events a batch has at most.
	Events int
	// Bytes is how many bytes a batch has at most. A larger event is a batch of its own.
	Bytes int
	// Delay is how long an event waits for others at most.
	Delay time.Duration
}

// Batch is a set of items that are submitted together.
type Batch[T any] struct {
	Items []T
	Bytes int
}

// Group has the waiting items of one environment of a service, which may share a batch. The
// caller keeps it with its publisher, so that Add need not search for it, and sets only its
// first two fields.
type Group[S, E comparable, T any] struct {
	Service     S
	Environment E

	items  []item[T]
	bytes  int
	due    time.Time // when its oldest item is due
	queued bool      // it is in Groups.ready
	// flushed is how many of its items are due because of a flush, whatever their time. It
	// is up to date if flushes equals that of Groups.
	flushed int
	flushes int
	timer   int // its index in Groups.timers, while it has items and is not queued
}

// Empty reports whether no item waits in the group.
func (at *Group[S, E, T]) Empty() bool { return len(at.items) == 0 }

type item[T any] struct {
	value T
	bytes int
	due   time.Duration // since Groups.epoch
}

// Groups has all waiting items. It is not safe for concurrent use.
type Groups[S, E comparable, T any] struct {
	limits Limits
	// ready are the groups with a due item, in turns.
	ready turns.Queue[S, E, *Group[S, E, T]]
	// timers are the other groups with items, by the time at which they are due.
	timers timers[S, E, T]
	items  int
	due    int       // number of items in ready
	epoch  time.Time // time of the first item
	// flushes counts the calls of Flush. A group catches up with it when it is next used,
	// so that Flush need not visit the groups in ready.
	flushes int
	// spare is the memory of groups that have become empty.
	spare [][]item[T]
}

// maxSpare is the largest number of elements of spare.
const maxSpare = 64

// NewGroups returns groups without items.
func NewGroups[S, E comparable, T any](limits Limits) *Groups[S, E, T] {
	return &Groups[S, E, T]{limits: limits}
}

// Add puts an item of this many bytes into a group. The item is due when its group is full,
// and at the latest after the delay.
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

// queue puts a group that is not among the timers into ready.
func (g *Groups[S, E, T]) queue(at *Group[S, E, T]) {
	at.queued = true
	g.due += len(at.items)
	g.ready.Push(at.Service, at.Environment, at)
}

// Len returns how many items wait.
func (g *Groups[S, E, T]) Len() int { return g.items }

// Due returns when the next group is due by its time; false if none waits for its time.
// Groups that are due already do not count.
func (g *Groups[S, E, T]) Due() (time.Time, bool) {
	if len(g.timers) == 0 {
		return time.Time{}, false
	}
	return g.timers[0].due, true
}

// Next takes the next due batch, in turns by service and environment. It returns false if
// no batch is due, or only batches of busy publishers.
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

// NextPartial takes a batch of a group that is not due: the one with the largest product of its
// number of items and the age of its oldest. So many items leave with few batches, and a
// small group has its turn, too. It returns false if no group waits, or only busy ones. It
// visits every group that waits.
func (g *Groups[S, E, T]) NextPartial(now time.Time, busy turns.Busy[S, E]) (Batch[T], bool) {
	g.queueDue(now)
	var chosen *Group[S, E, T]
	var largest float64
	for _, at := range g.timers {
		age := g.limits.Delay - at.due.Sub(now)
		product := float64(len(at.items)) * float64(age)
		if (chosen == nil || product > largest) && !busy.Has(at.Service, at.Environment) {
			chosen, largest = at, product
		}
	}
	if chosen == nil {
		return Batch[T]{}, false
	}
	heap.Remove(&g.timers, chosen.timer)
	return g.take(now, chosen), true
}

// queueDue moves the groups that are due to ready.
func (g *Groups[S, E, T]) queueDue(now time.Time) {
	for len(g.timers) > 0 && !g.timers[0].due.After(now) {
		g.queue(heap.Pop(&g.timers).(*Group[S, E, T]))
	}
}

// Ready returns how many items are in due groups. Next would return almost all of them if
// no publisher were busy: the last items of a group may have to wait again.
func (g *Groups[S, E, T]) Ready(now time.Time) int {
	g.queueDue(now)
	return g.due
}

// note updates flushed for the flushes since the group was last used.
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
	clear(at.items[:n]) // so that the items can be freed
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

// emptied keeps the memory of an empty group for another one.
func (g *Groups[S, E, T]) emptied(at *Group[S, E, T]) {
	if len(g.spare) < maxSpare && cap(at.items) <= 2*g.limits.Events {
		g.spare = append(g.spare, at.items[:0])
	}
	at.items = nil
}

// Flush makes all waiting items due.
func (g *Groups[S, E, T]) Flush() {
	for len(g.timers) > 0 {
		g.queue(heap.Pop(&g.timers).(*Group[S, E, T]))
	}
	g.flushes++
}

// TakeAll removes and returns all waiting items, in a definite order.
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

// timers is a heap of groups by the time at which they are due.
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
