package app

import (
	"os"
	"runtime/debug"

	"github.com/sourcegraph/telemetry-relay/config"
)

const (
	// Of a large event, its message, its encoded form and a copy on its way are
	// in memory at once; the rest is what the worker needs without any.
	memoryFactor = 3
	memoryBase   = 64 << 20

	// What is held is most of what is in memory, and its memory is used again, so that
	// collections are rare: a small share for garbage costs nothing.
	garbagePercent = 35
)

// LimitMemory has the process keep to the memory that the configuration implies,
// unless GOGC or GOMEMLIMIT say otherwise. It is for the process as a whole.
func LimitMemory(cfg *config.Config) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryBase + memoryFactor*int64(cfg.MaxOutstandingBytes))
	}
}
