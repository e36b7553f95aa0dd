package app

import (
	"os"
	"runtime/debug"

	"github.com/sourcegraph/telemetry-relay/config"
)

const (
	// Of an event, its message and its encoding, which is kept up to 140 % of that, are
	// in memory at once; a part of them is on its way. The rest is what the worker needs
	// without any. With the program itself that stays within three times what may be
	// outstanding by default.
	memoryPercent = 250
	memoryBase    = 40 << 20
)

// LimitMemory has the process keep to the memory that the configuration implies,
// unless GOMEMLIMIT says otherwise. It is for the process as a whole.
func LimitMemory(cfg *config.Config) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryBase + int64(cfg.MaxOutstandingBytes)*memoryPercent/100)
	}
}
