// Package spare is memory that is used again: what nobody has any more, until
// somebody needs something of its kind. It goes from hand to hand by the dozen, since
// a sync.Pool costs more for each thing than what is done with many of them.
package spare

import "sync"

// Pool has spare things of one kind. What nobody takes for long is left to the
// collector. The zero value is empty; it is safe for concurrent use.
type Pool[T any] struct {
	// Touch, if set, reads something of each cache line of a thing that will be taken
	// soon, so that the processor waits for many of them at once. What it returns means
	// nothing.
	Touch func(*T) uint64

	full, empty sync.Pool // of *handful[T]
}

type handful[T any] struct{ things []*T }

// Hand has some of a pool's things at hand, to give and to take. It is not safe for
// concurrent use.
type Hand[T any] struct {
	pool *Pool[T]
	most int         // how many are moved at once
	at   *handful[T] // nil: none, as soon as it is empty or full

	touched uint64 // nothing
}

// Hand returns a hand for a pool, that has at most so many things.
func (p *Pool[T]) Hand(most int) Hand[T] { return Hand[T]{pool: p, most: most} }

// Give takes what nobody has any more.
func (h *Hand[T]) Give(thing *T) {
	if h.at == nil {
		if h.at, _ = h.pool.empty.Get().(*handful[T]); h.at == nil {
			h.at = &handful[T]{make([]*T, 0, h.most)}
		}
	}
	h.at.things = append(h.at.things, thing)
	if len(h.at.things) >= h.most {
		h.pool.full.Put(h.at)
		h.at = nil
	}
}

// Take returns a spare thing, which has been in anything; nil if there is none.
func (h *Hand[T]) Take() *T {
	if h.at == nil {
		if h.at, _ = h.pool.full.Get().(*handful[T]); h.at == nil {
			return nil
		}
		if h.pool.Touch != nil {
			for _, thing := range h.at.things {
				h.touched += h.pool.Touch(thing)
			}
		}
	}
	last := len(h.at.things) - 1
	thing := h.at.things[last]
	h.at.things[last] = nil
	h.at.things = h.at.things[:last]
	if last == 0 {
		h.pool.empty.Put(h.at)
		h.at = nil
	}
	return thing
}

// Drop gives back what is at hand, when the hand is not needed any more.
func (h *Hand[T]) Drop() {
	if h.at != nil {
		h.pool.full.Put(h.at)
		h.at = nil
	}
}
