// Package buffers is the memory in which requests and responses are on their way.
package buffers

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	smallest = 8  // 256 B: what is smaller is cheaper to allocate
	largest  = 20 // 1 MiB: what is larger is rare, and should not stay in memory
)

// pool has buffers of each power of two between. Other than those of gRPC's own
// pool they are not cleared before they are used again, which costs more than
// filling them, and at most half of one is unused.
type pool struct {
	sizes [largest + 1]sync.Pool
}

// Pool is for the whole process.
var Pool mem.BufferPool = new(pool)

// Get returns a buffer of this length. It holds anything: who takes it fills it.
func (p *pool) Get(length int) *[]byte {
	size := sizeOf(length)
	if size < smallest || size > largest {
		b := make([]byte, length)
		return &b
	}
	if b, ok := p.sizes[size].Get().(*[]byte); ok {
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length, 1<<size)
	return &b
}

// Put takes a buffer back.
func (p *pool) Put(b *[]byte) {
	size := sizeOf(cap(*b))
	if size < smallest || size > largest || cap(*b) != 1<<size {
		return
	}
	p.sizes[size].Put(b)
}

// sizeOf is the exponent of the power of two that holds so many bytes.
func sizeOf(length int) int {
	if length == 0 {
		return 0
	}
	return bits.Len(uint(length - 1))
}
