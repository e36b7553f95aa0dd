// Package retry waits and tries again: pauses that end with their context, backoff, and
// which errors another try may mend.
package retry

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Kind is what an error says about trying again.
type Kind int

const (
	// Transient: it may work the next time.
	Transient Kind = iota
	// Late is Transient, and the only reason is a timeout.
	Late
	// Final: it will not work.
	Final
)

// Until tries until it works, an error is Final, or ctx ends, with growing pauses
// of up to most. When ctx has ended, the error is what went wrong last: that the
// time is over says less, and may be known to a try before it is to ctx.
func Until[T any](ctx context.Context, most time.Duration, try func() (T, error), kind func(error) Kind) (T, error) {
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = most
	var last error
	result, err := backoff.Retry(ctx, func() (T, error) {
		result, err := try()
		if err == nil {
			return result, nil
		}
		k := kind(err)
		if k == Final {
			return result, backoff.Permanent(err)
		}
		if last == nil || ctx.Err() == nil && k != Late {
			last = err
		}
		return result, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0))
	if err != nil && last != nil && ctx.Err() != nil {
		err = last
	}
	return result, err
}

// Sleep waits for d, or until ctx ends, and then returns ctx's error.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// NewBackOff returns pauses that double from first to max, each give or take a half by
// chance.
func NewBackOff(first, max time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = first, max, 2
	b.Reset()
	return b
}
