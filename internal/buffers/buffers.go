// Package buffers is the memory in which requests and responses are on their way.
package buffers

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
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
