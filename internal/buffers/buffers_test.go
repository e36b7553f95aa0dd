package buffers

import "testing"

func TestSizes(t *testing.T) {
	for _, c := range []struct{ length, capacity int }{
		{0, 0}, {1, 1}, {255, 255}, {256, 256}, {257, 320}, {320, 320}, {321, 384}, {512, 512}, {513, 640}, {897, 1024},
		{16 << 10, 16 << 10}, {16<<10 + 1, 20 << 10}, {1<<20 - 1, 1 << 20}, {1 << 20, 1 << 20}, {1<<20 + 1, 1<<20 + 1},
	} {
		for range 3 { // new ones and used ones
			b := Pool.Get(c.length)
			if len(*b) != c.length || cap(*b) != c.capacity {
				t.Errorf("%d bytes: got %d of %d, want a capacity of %d", c.length, len(*b), cap(*b), c.capacity)
			}
			Pool.Put(b)
		}
	}
}

// TestClasses holds each length against the sizes around it.
func TestClasses(t *testing.T) {
	last, lastSize := -1, smallest-1
	for length := smallest; length <= largest; length++ {
		class, size, pooled := SizeFor(length)
		switch {
		case !pooled, length <= lastSize && (class != last || size != lastSize),
			length > lastSize && (class != last+1 || size < length || size-length > size/5),
			class >= Sizes, Size(class) != size:
			t.Fatalf("%d bytes are of size %d, number %d, after size %d, number %d", length, size, class, lastSize, last)
		}
		last, lastSize = class, size
	}
	if last != Sizes-1 || lastSize != largest {
		t.Errorf("the largest is %d, number %d, want %d, number %d", lastSize, last, largest, Sizes-1)
	}
}

// TestForeign puts what is not of the pool: it must not come back as something
// larger than it is.
func TestForeign(t *testing.T) {
	for range 100 {
		b := make([]byte, 300)
		Pool.Put(&b)
		if got := Pool.Get(310); cap(*got) != 320 {
			t.Fatalf("capacity %d, want 320", cap(*got))
		}
	}
}

// TestReuse guards the counts: what was put back is used again, without a new
// allocation.
func TestReuse(t *testing.T) {
	if got := testing.AllocsPerRun(1000, func() { Pool.Put(Pool.Get(100_000)) }); got > 1 {
		t.Errorf("%v allocations for a buffer that was put back", got)
	}
}

// BenchmarkGet takes and puts back a buffer of a batch's size.
func BenchmarkGet(b *testing.B) {
	for b.Loop() {
		Pool.Put(Pool.Get(300_000))
	}
}
