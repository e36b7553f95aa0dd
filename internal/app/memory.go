package app

import (
	"os"
	"runtime/debug"

	"github.com/sourcegraph/telemetry-relay/config"
)

const (
	// An event in flight has its message and its encoding in memory, and the encoding is
	// kept up to 140 % of the message's size. Some of both are copied while they are sent.
	// memoryBase is for a worker without events. By default the sum, with the program
	// itself, stays within three times WORKER_MAX_OUTSTANDING_BYTES.
	memoryPercent = 250
	memoryBase    = 40 << 20

	// With 500 publishers and as much outstanding as may be by default, the runtime's own
	// share of 100 % takes some 130 MiB, and this one less than 128.
	garbagePercent = 80
)

// LimitMemory sets the process's share of garbage and its memory limit from the bounds of
// the configuration, unless GOGC or GOMEMLIMIT are set.
func LimitMemory(cfg *config.Config) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryBase + int64(cfg.MaxOutstandingBytes)*memoryPercent/100)
	}
}
