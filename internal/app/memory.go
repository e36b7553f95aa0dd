package app

import (
	"os"
	"runtime/debug"

	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"

	"github.com/sourcegraph/telemetry-relay/config"
)

// gRPC takes the memory of requests and answers from a pool, and clears a whole buffer
// before it is used again. Its own pool has no size between 32 KiB and 1 MiB, but an
// answer of the gateway has 40 KB, and a request with 2,500 acks 450 KB. This one has all
// powers of two, so that half of a buffer is used at least. gRPC allows this only during
// initialization.
func init() {
	pool, err := mem.NewBinaryTieredBufferPool(8, 10, 12, 14, 15, 16, 17, 18, 19, 20)
	if err != nil {
		panic(err) // only sizes that the machine cannot have are refused
	}
	experimental.SetDefaultBufferPool(pool)
}

const (
	// memoryPercent is the memory of events in flight, as a share of their bound. An event
	// in flight is in memory as its message and as its encoding, whose buffer has up to 140
	// % of the message's size, and parts of both are copied while they are sent. memoryBase
	// is for a worker without events. By default the sum, with the program itself, is at
	// most three times WORKER_MAX_OUTSTANDING_BYTES.
	memoryPercent = 250
	memoryBase    = 40 << 20

	// With 500 publishers and 20,000 events in flight, the process takes 121 MiB with this
	// share, and 131 MiB with 80 %.
	garbagePercent = 60
)

// commandGarbagePercent is the same for a command that reads the dead-letter queue. Most of
// its memory is that of messages that it has already looked at, and Pub/Sub, not the CPU,
// decides how fast it reads.
const commandGarbagePercent = 30

// LimitCommandMemory sets the garbage collector's target for a command that reads many
// messages, unless GOGC is set.
func LimitCommandMemory() {
	limitGarbage(commandGarbagePercent)
}

func limitGarbage(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// LimitMemory sets the garbage collector's target and the memory limit from the bounds of
// the configuration, unless GOGC or GOMEMLIMIT are set.
func LimitMemory(cfg *config.Config) {
	limitGarbage(garbagePercent)
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryBase + int64(cfg.MaxOutstandingBytes)*memoryPercent/100)
	}
}
