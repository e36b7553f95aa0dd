package relay

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/metrics"
)

// run is what all parts of a run share. The loop's goroutine reads and writes it.
type run struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics.Metrics
	rng     *rand.Rand

	// spawn starts a goroutine that Relay.Run waits for.
	spawn func(func())
	// work is the context of everything but receiving. It outlasts fetch.
	work       context.Context
	cancelWork context.CancelFunc
	// fetch is the context of everything that takes from Pub/Sub.
	fetch       context.Context
	cancelFetch context.CancelFunc

	// stopping says that nothing new is started. stopper writes it, all parts read it.
	stopping bool
	// lastBusy is when an event last arrived or was released, or a dependency was
	// unavailable. A drain reads it. Every part that sees such a thing writes it.
	lastBusy time.Time
}

func newRun(opts Options) *run {
	seed := opts.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	return &run{opts: opts, log: opts.Logger, metrics: opts.Metrics, rng: rand.New(rand.NewPCG(seed, seed))}
}

// begin gives the run its contexts. Work goes on after ctx has ended; the loop cancels
// it.
func (r *run) begin(ctx context.Context, spawn func(func()), now time.Time) {
	r.spawn, r.lastBusy = spawn, now
	r.work, r.cancelWork = context.WithCancel(context.WithoutCancel(ctx))
	r.fetch, r.cancelFetch = context.WithCancel(r.work)
}

// remindEvery is how often the log repeats that a dependency is unavailable.
const remindEvery = time.Minute

// backoff is an exponential delay with full jitter, and at least atLeast. The delay
// grows with failures, which are how many came before, from at most first to at most
// limit.
func (r *run) backoff(failures int, first, limit, atLeast time.Duration) time.Duration {
	d := limit
	if failures < 30 && first<<failures < limit {
		d = first << failures
	}
	return max(atLeast, time.Duration(r.rng.Int64N(int64(d))+1))
}
