package app

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// TestGarbagePercent has the collector's share for a live heap.
func TestGarbagePercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0:         150,
		1:         150,
		32 << 20:  150,
		36 << 20:  120,
		40 << 20:  100,
		45 << 20:  70,
		50 << 20:  60,
		80 << 20:  60,
		300 << 20: 60,
	} {
		if got := garbagePercent(live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d %%", live>>20, got, want)
		}
	}
}

// TestGarbagePercentFollowsLiveHeap has the share after the collector's cycles.
func TestGarbagePercentFollowsLiveHeap(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	c := &collector{}
	c.afterCycle()
	reaches := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			runtime.GC()
			got := debug.SetGCPercent(want)
			if got == want {
				return
			}
			debug.SetGCPercent(got)
			if time.Now().After(deadline) {
				t.Fatalf("the share is %d %%, want %d %%", got, want)
			}
		}
	}
	reaches(maxGarbagePercent)
	kept := make([]byte, usualHeap)
	reaches(minGarbagePercent)
	runtime.KeepAlive(kept)
	reaches(maxGarbagePercent)
	c.stopped.Store(true)
}
