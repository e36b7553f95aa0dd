package app

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/telemetry-relay/config"
)

// Ending bounds the time for the last reports of a run, to OpenTelemetry and Sentry, so
// that Cloud Run does not kill the process before they are sent.
type Ending struct {
	started  time.Time
	deadline time.Duration // of the job; 0 if it has none
	signal   atomic.Pointer[time.Time]
}

const (
	// maxReport is the time without a deadline.
	maxReport = 10 * time.Second
	// minReport is the shortest time. Most reports need a fraction of it.
	minReport = time.Second
	// killAfter is the time from SIGTERM until Cloud Run kills a process, less some
	// reserve.
	killAfter = 9 * time.Second
	// startReserve is for the time that Cloud Run counts before the process starts.
	startReserve = 3 * time.Second
)

// flushMost is the time for receipts without a signal.
const flushMost = 2 * time.Second

// Flush is how long the receipts may take from now: after a signal the rest of the time
// in which the run must stop, and 0 if that is over.
func (e *Ending) Flush(shutdown time.Duration) time.Duration {
	left := flushMost
	if e.deadline > 0 {
		left = min(left, time.Until(e.started.Add(e.deadline-startReserve)))
	}
	if at := e.signal.Load(); at != nil {
		left = min(left, time.Until(at.Add(shutdown)))
	}
	return max(left, 0)
}

// NewEnding returns the ending of a run that starts now and is stopped by ctx.
func NewEnding(ctx context.Context, cfg *config.Config) *Ending {
	e := &Ending{started: time.Now(), deadline: cfg.JobDeadline}
	context.AfterFunc(ctx, func() {
		now := time.Now()
		e.signal.Store(&now)
	})
	return e
}

// Time returns how long one of the two reports may take from now on.
func (e *Ending) Time() time.Duration {
	left := maxReport
	if e.deadline > 0 {
		left = min(left, time.Until(e.started.Add(e.deadline-startReserve)))
	}
	if at := e.signal.Load(); at != nil {
		left = min(left, time.Until(at.Add(killAfter)))
	}
	return max(left/2, minReport)
}
