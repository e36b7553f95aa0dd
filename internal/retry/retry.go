// Package retry repeats requests that failed for a transient reason. It has pauses that
// end with their context, backoff, and the classes of Pub/Sub's errors.
package retry

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Kind is the meaning of an error for another try.
type Kind int

const (
	// Transient: it may work the next time.
	Transient Kind = iota
	// Late is Transient, and the only reason is a timeout.
	Late
	// Final: it will not work.
	Final
)

// Until repeats a try until it succeeds, an error is Final, or ctx ends, with growing
// pauses of up to longest. When ctx ends, Until returns the last error of a try and not
// ctx's own, because the reason says more than the timeout. A try may notice the timeout
// before ctx does, so an error that is Late does not replace an earlier one.
func Until[T any](ctx context.Context, longest time.Duration, try func() (T, error), kind func(error) Kind) (T, error) {
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = longest
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

// Outlive returns a context that ends this long after ctx. With it a request in flight may
// finish after an interrupt: if it were cut, its effect would be unknown.
func Outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return work, func() { stop(); cancel() }
}

// NewBackOff returns pauses that double from first to longest, each give or take a half by
// chance.
func NewBackOff(first, longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = first, longest, 2
	b.Reset()
	return b
}
