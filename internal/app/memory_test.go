package app

import (
	"runtime"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, mostPercent},
		{1 << 20, mostPercent},
		{usualHeap / 4, mostPercent},
		{usualHeap / 2, 100},
		{usualHeap * 2 / 3, leastPercent},
		{usualHeap - 1, leastPercent},
		{usualHeap, leastPercent},
		{1 << 40, leastPercent},
	} {
		if got := percent(c.live); got != c.want {
			t.Errorf("%d bytes: %d %%, want %d", c.live, got, c.want)
		}
	}
}

func TestAfterCollection(t *testing.T) {
	called := make(chan struct{})
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	afterCollection(func() {
		select {
		case called <- struct{}{}:
		case <-end:
		}
	})
	deadline := time.After(10 * time.Second)
	for noticed := 0; noticed < 3; {
		runtime.GC()
		select {
		case <-called:
			noticed++
		case <-time.After(10 * time.Millisecond): // it may not have been waited for yet
		case <-deadline:
			t.Fatal("collections were not noticed")
		}
	}
	if liveHeap() == 0 {
		t.Error("nothing is in use")
	}
}
