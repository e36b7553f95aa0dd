// Package buffers is the memory in which requests and responses are on their way.
package buffers

import (
	"iter"
	"math/bits"
	"slices"
	"sync"

	"google.golang.org/grpc/mem"

	"github.com/sourcegraph/telemetry-relay/internal/race"
)

const (
	smallest = 256     // bytes: what is smaller is cheaper to allocate
	largest  = 1 << 20 // what is larger is rare, and should not stay in memory

	steps    = 4 // sizes from one power of two to the next: at most a fifth of a buffer is unused
	stepBits = 2

	// Sizes is how many sizes there are.
	Sizes = (20-8)*steps + 1
)

// pool has buffers of some sizes. Other than those of gRPC's own pool they are not
// cleared before they are used again, which costs more than filling them.
type pool struct {
	sizes [Sizes]sync.Pool
}

// OnTheWay is how many bytes a connection collects before it writes them: what many
// small streams, or one large batch, send leaves in few system calls.
const OnTheWay = 128 << 10

// Pool is for the whole process.
var Pool mem.BufferPool = new(pool)

// Get returns a buffer of this length. It holds anything: who takes it fills it.
func (p *pool) Get(length int) *[]byte {
	n, size, pooled := SizeFor(length)
	if !pooled {
		b := make([]byte, length)
		return &b
	}
	if b, ok := p.sizes[n].Get().(*[]byte); ok {
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length, size)
	return &b
}

// Put takes a buffer back. Nobody may have any part of it any more.
func (p *pool) Put(b *[]byte) {
	n, size, pooled := SizeFor(cap(*b))
	if !pooled || cap(*b) != size {
		return // not from here
	}
	if race.Enabled {
		Spoil((*b)[:size])
	}
	p.sizes[n].Put(b)
}

// SizeFor returns the smallest size, in bytes, that holds so many, and its number.
// What is smaller or larger than all of them is not worth to be used again.
func SizeFor(length int) (number, size int, pooled bool) {
	if length > largest || length < smallest {
		return 0, 0, false
	}
	power := bits.Len(uint(length-1)) - 1 // the power of two below
	shift := power - stepBits
	step := (length-1)>>shift + 1 // of the steps above it: steps+1 to 2*steps
	return (power-8)*steps + step - steps, step << shift, true
}

// Size is the size, in bytes, with this number.
func Size(number int) int {
	n := number - 1 // of those above the smallest
	return (steps + 1 + n%steps) << (8 - stepBits + n/steps)
}

const (
	// Line is how many bytes the processor fetches at once.
	Line = 64
	// AtOnce is how many things are touched in a row: so few that they are still near
	// when they are worked on.
	AtOnce = 16
)

// Touch reads something of each cache line of what is far from the processor. Done
// for some in a row, before they are worked on, the processor waits for all of it at
// once. The result means nothing; it must be kept somewhere.
func Touch[T string | []byte](b T) (sum byte) {
	for i := 0; i < len(b); i += Line {
		sum += b[i]
	}
	return sum
}

// Ahead are all of these, each after touch was called with it and with those that come
// next.
func Ahead[T any](all []T, touch func(T)) iter.Seq[T] {
	return func(yield func(T) bool) {
		for some := range slices.Chunk(all, AtOnce) {
			for _, it := range some {
				touch(it)
			}
			for _, it := range some {
				if !yield(it) {
					return
				}
			}
		}
	}
}

// Spoil makes whoever reads what was given back see that it is not there. It is for
// tests: those under the race detector.
func Spoil(b []byte) {
	for i := range b {
		b[i] = 0xDB
	}
}
