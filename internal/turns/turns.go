// Package turns decides who is next when services share what is scarce, such as
// streams to the gateway. It decides only: it knows neither time nor I/O.
//
// Services take turns, and the environments of a service take turns within the turns
// of their service. So a service that makes up ten thousand environments has no more
// turns than one that has a single one. Nobody waits for an absent service: one that
// is alone has every turn.
package turns

import "container/list"

// Queue holds values by service (S) and environment (E). Taking the next value costs
// the same whatever number of services and environments there is, apart from those
// that are passed over because they are busy. An empty service or environment leaves
// nothing behind. The zero value is an empty queue; it is not safe for concurrent use.
type Queue[S, E comparable, V any] struct {
	services level[S, *service[E, V]]
	count    int
}

// service is a service with something in the queue.
type service[E comparable, V any] struct {
	environments level[E, *environment[V]]
}

// environment is an environment with something in the queue.
type environment[V any] struct {
	values []V // in the order in which they came; never empty
}

// Busy says which services and environments are skipped, because they have their share of a
// scarce resource. A nil function skips none.
type Busy[S, E comparable] struct {
	Service     func(S) bool
	Environment func(E) bool
}

// Has reports whether a service or an environment is skipped.
func (b Busy[S, E]) Has(s S, e E) bool {
	return b.Service != nil && b.Service(s) || b.Environment != nil && b.Environment(e)
}

// Push puts a value behind the others of its environment. A service or an
// environment that had nothing in the queue is the last one to have its turn.
func (q *Queue[S, E, V]) Push(s S, e E, v V) {
	ofService := q.services.get(s, func() *service[E, V] { return new(service[E, V]) })
	ofEnvironment := ofService.environments.get(e, func() *environment[V] { return new(environment[V]) })
	ofEnvironment.values = append(ofEnvironment.values, v)
	q.count++
}

// Next takes the value whose turn it is. Its service and its environment have their
// next turns after everybody else's. The second result is false when nothing is
// left, or only what belongs to busy services and environments.
func (q *Queue[S, E, V]) Next(busy Busy[S, E]) (v V, ok bool) {
	for s := range q.services.all(busy.Service) {
		for e := range s.value.environments.all(busy.Environment) {
			values := e.value.values
			v = values[0]
			clear(values[:1]) // what has left must not be kept alive
			e.value.values = values[1:]
			q.count--
			s.value.environments.turned(e, len(values) == 1)
			q.services.turned(s, s.value.environments.order.Len() == 0)
			return v, true
		}
	}
	return v, false
}

// Len is how many values there are.
func (q *Queue[S, E, V]) Len() int { return q.count }

// TakeAll takes everything, in the order of the turns.
func (q *Queue[S, E, V]) TakeAll() []V {
	all := make([]V, 0, q.count)
	for {
		v, ok := q.Next(Busy[S, E]{})
		if !ok {
			return all
		}
		all = append(all, v)
	}
}

// level holds the entries that take turns, by key and in their order.
type level[K comparable, V any] struct {
	byKey map[K]*list.Element
	order list.List // of *entry[K, V], the next one first
}

type entry[K comparable, V any] struct {
	key     K
	value   V
	element *list.Element
}

// get returns the value of a key, and enters it at the end if there is none.
func (l *level[K, V]) get(key K, empty func() V) V {
	if element, ok := l.byKey[key]; ok {
		return element.Value.(*entry[K, V]).value
	}
	if l.byKey == nil {
		l.byKey = make(map[K]*list.Element)
	}
	e := &entry[K, V]{key: key, value: empty()}
	e.element = l.order.PushBack(e)
	l.byKey[key] = e.element
	return e.value
}

// all yields the entries in their order, without those that are busy.
func (l *level[K, V]) all(busy func(K) bool) func(yield func(*entry[K, V]) bool) {
	return func(yield func(*entry[K, V]) bool) {
		for element := l.order.Front(); element != nil; element = element.Next() {
			e := element.Value.(*entry[K, V])
			if busy != nil && busy(e.key) {
				continue
			}
			if !yield(e) {
				return
			}
		}
	}
}

// turned notes that an entry has had its turn: it is the last one now, or leaves if
// it is empty.
func (l *level[K, V]) turned(e *entry[K, V], empty bool) {
	if empty {
		l.order.Remove(e.element)
		delete(l.byKey, e.key)
		return
	}
	l.order.MoveToBack(e.element)
}
