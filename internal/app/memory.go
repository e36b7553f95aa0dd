package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/sourcegraph/telemetry-relay/config"
)

const (
	// Of a large event, its message, its encoded form and a copy on its way are
	// in memory at once; the rest is what the worker needs without any.
	memoryFactor = 3
	memoryBase   = 64 << 20

	// Most of what is allocated lives as long as an event is held, so that a
	// small share for garbage saves much memory. leastPercent is that share.
	leastPercent = 50
	// As long as little is held, the share is larger: the heap may grow to usualHeap
	// bytes, which keeps the process below 100 MiB with what is not heap.
	mostPercent = 200
	usualHeap   = 60 << 20
	// A page costs more when it is used first than many collections. So a process
	// grows only when it has collected so often that it will go on.
	settledAfter = 24
)

// LimitMemory has the process keep to the memory that the configuration implies,
// unless GOGC or GOMEMLIMIT say otherwise. It is for the process as a whole.
func LimitMemory(cfg *config.Config) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(leastPercent)
		collections := 0
		afterCollection(func() {
			if collections++; collections > settledAfter {
				debug.SetGCPercent(percent(liveHeap()))
			}
		})
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryBase + memoryFactor*int64(cfg.MaxOutstandingBytes))
	}
}

// percent is the share for garbage when so many bytes are in use.
func percent(live uint64) int {
	if live >= usualHeap {
		return leastPercent
	}
	return int(min(max((usualHeap-live)*100/max(live, 1), leastPercent), mostPercent))
}

// liveHeap is how many bytes the last collection has left.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// afterCollection calls f some time after each collection, never twice at once.
func afterCollection(f func()) {
	type garbage struct{ _ *byte } // a pointer: it is not put together with others
	runtime.AddCleanup(new(garbage), func(f func()) {
		f()
		afterCollection(f)
	}, f)
}
