package app

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/telemetry-relay/config"
)

// Ending bounds the time for the last reports of a run, to OpenTelemetry and Sentry, so
// that Cloud Run does not kill the process meanwhile.
type Ending struct {
	started  time.Time
	deadline time.Duration // of the job; 0: none
	signal   atomic.Pointer[time.Time]
}

const (
	// reportMost is the time without a deadline.
	reportMost = 10 * time.Second
	// reportLeast is the time in any case. Most reports need a fraction of it.
	reportLeast = time.Second
	// killAfter is when Cloud Run kills a process after SIGTERM, less some reserve.
	killAfter = 9 * time.Second
	// startReserve is for the time that Cloud Run counts before the process starts.
	startReserve = 3 * time.Second
)

// NewEnding returns the ending of a run that starts now and is stopped by ctx.
func NewEnding(ctx context.Context, cfg *config.Config) *Ending {
	e := &Ending{started: time.Now(), deadline: cfg.JobDeadline}
	context.AfterFunc(ctx, func() {
		now := time.Now()
		e.signal.Store(&now)
	})
	return e
}

// Time is how long one of the two may take from now.
func (e *Ending) Time() time.Duration {
	left := reportMost
	if e.deadline > 0 {
		left = min(left, time.Until(e.started.Add(e.deadline-startReserve)))
	}
	if at := e.signal.Load(); at != nil {
		left = min(left, time.Until(at.Add(killAfter)))
	}
	return max(left/2, reportLeast)
}
