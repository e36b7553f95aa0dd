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
)

// LimitMemory sets the process's memory limit from the bounds of the configuration, unless
// GOMEMLIMIT is set.
func LimitMemory(cfg *config.Config) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryBase + int64(cfg.MaxOutstandingBytes)*memoryPercent/100)
	}
}
