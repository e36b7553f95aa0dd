package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"

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

	// The garbage collector's share of the live heap: it begins anew when the heap has
	// grown by so many percent. A larger share costs memory, a smaller one CPU. With 500
	// publishers, a gateway that takes 250 ms and 512 streams in flight, the process takes
	// 121 MiB with minGarbagePercent, and 133 MiB with 80 %.
	minGarbagePercent = 60
	maxGarbagePercent = 150
	// usualHeap is the size to which the heap may grow, in bytes, before the share is
	// smaller than maxGarbagePercent. The whole process takes some 40 MiB more.
	usualHeap = 80 << 20
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
// the configuration, unless GOGC or GOMEMLIMIT are set. The target adapts to the live heap
// until stop is called.
func LimitMemory(cfg *config.Config) (stop func()) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryBase + int64(cfg.MaxOutstandingBytes)*memoryPercent/100)
	}
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	c := &collector{percent: minGarbagePercent}
	debug.SetGCPercent(c.percent)
	c.afterCycle()
	return func() { c.stopped.Store(true) }
}

// collector gives the garbage collector the share that the usual memory allows. With few
// publishers little is alive, and half of the collector's work can be saved.
type collector struct {
	percent int // the cleanup of the latest cycle writes and reads it
	stopped atomic.Bool
}

// afterCycle has the share adapted after the next cycle of the garbage collector, and
// after each further one.
func (c *collector) afterCycle() {
	// The garbage collector frees this object in its next cycle. A pointer in it keeps it
	// apart from other small objects.
	type cycle struct{ _ *byte }
	runtime.AddCleanup(new(cycle), func(c *collector) {
		if c.stopped.Load() {
			return
		}
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		if percent := garbagePercent(live[0].Value.Uint64()); percent != c.percent {
			c.percent = percent
			debug.SetGCPercent(percent)
		}
		c.afterCycle()
	}, c)
}

// garbagePercent is the share, in steps of ten percent, with which a heap of so many live
// bytes grows to usualHeap.
func garbagePercent(live uint64) int {
	percent := (usualHeap - int64(live)) * 100 / max(1, int64(live))
	return int(min(max(percent, minGarbagePercent), maxGarbagePercent)) / 10 * 10
}
