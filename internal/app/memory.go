package app

import (
	"os"
	"runtime/debug"

	"github.com/sourcegraph/telemetry-relay/config"
)

const (
	// gcPercent makes the collector run more often than by default. Most of what
	// is allocated lives as long as an event is held, so that costs some 5 % of
	// the worker's time and saves a fifth of its memory.
	gcPercent = 50
	// Of a large event, its message, its encoded form and a copy on its way are
	// in memory at once; the rest is what the worker needs without any.
	memoryFactor = 3
	memoryBase   = 64 << 20
)

// LimitMemory has the process keep to the memory that the configuration implies,
// unless GOGC or GOMEMLIMIT say otherwise. It is for the process as a whole.
func LimitMemory(cfg *config.Config) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryBase + memoryFactor*int64(cfg.MaxOutstandingBytes))
	}
}
