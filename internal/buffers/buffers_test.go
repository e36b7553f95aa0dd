package buffers

import "testing"

func TestSizes(t *testing.T) {
	for _, c := range []struct{ length, capacity int }{
		{0, 0}, {1, 1}, {100, 100}, {128, 128}, {129, 256}, {256, 256}, {257, 512}, {16 << 10, 16 << 10},
		{16<<10 + 1, 32 << 10}, {1 << 20, 1 << 20}, {1<<20 + 1, 1<<20 + 1},
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

// TestForeign puts what is not of the pool: it must not come back as something
// larger than it is.
func TestForeign(t *testing.T) {
	for range 100 {
		b := make([]byte, 300)
		Pool.Put(&b)
		if got := Pool.Get(400); cap(*got) != 512 {
			t.Fatalf("capacity %d, want 512", cap(*got))
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
