package pubsubserver

// fifo is a queue of slots in a ring that grows.
type fifo struct {
	ring       []uint32 // its length is 0 or a power of two
	head, size int
}

func (f *fifo) push(i uint32) {
	if f.size == len(f.ring) {
		ring := make([]uint32, max(64, 2*len(f.ring)))
		n := copy(ring, f.ring[f.head:])
		copy(ring[n:], f.ring[:f.head])
		f.ring, f.head = ring, 0
	}
	f.ring[(f.head+f.size)&(len(f.ring)-1)] = i
	f.size++
}

func (f *fifo) peek() (uint32, bool) {
	if f.size == 0 {
		return 0, false
	}
	return f.ring[f.head], true
}

func (f *fifo) pop() {
	f.head = (f.head + 1) & (len(f.ring) - 1)
	f.size--
}
