package retry

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Class is the meaning of a failed request's status code for another try.
type Class int

const (
	// Outage: Pub/Sub does not answer, or cannot serve the request for now.
	Outage Class = iota
	// Refusal: the code looks final, but Pub/Sub is known to answer with it temporarily:
	// Unauthenticated while a token cannot be renewed (google-cloud-go#6920, #6315,
	// #11775), PermissionDenied while a grant propagates (python-pubsub#18,
	// java-pubsub#330), NotFound for a new resource (java-pubsub#81), FailedPrecondition
	// while a key is disabled, and Unimplemented, which clients make of a proxy's HTTP 404.
	Refusal
	// Fault: the request itself is wrong, and stays so.
	Fault
)

// ClassOf returns the class of an error. One without a status is an Outage.
func ClassOf(err error) Class {
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.Aborted, codes.Internal,
		codes.Unknown, codes.DeadlineExceeded, codes.Canceled:
		return Outage
	case codes.Unauthenticated, codes.PermissionDenied, codes.NotFound,
		codes.FailedPrecondition, codes.Unimplemented:
		return Refusal
	}
	return Fault
}

// Bounds limit how long a request to Pub/Sub is repeated. Requests to the same topic or
// subscription share them, because one success shows that refusals are transient. Do not
// copy them after first use.
type Bounds struct {
	// Outage is how long any request is repeated.
	Outage time.Duration
	// Refusal is how long a refused request is repeated before the first success. Until
	// then a refusal is more likely a wrong name or a missing permission than a transient
	// state, and a person may wait for the command.
	Refusal time.Duration

	worked atomic.Bool
}

// maxPause is the longest pause between two tries, plus or minus half of it by chance. It
// is short, so that a new resource or grant is noticed soon.
const maxPause = 2 * time.Second

// remindEvery is how often notify is called for one kind of failure.
const remindEvery = 10 * time.Second

// Bounded tries until it works, the error is a Fault, the bounds are reached, or ctx
// ends. It calls notify before it tries again: the first time, when the class of
// the errors changes, and every ten seconds.
func Bounded[T any](ctx context.Context, b *Bounds, try func() (T, error), notify func(err error, class Class)) (T, error) {
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = maxPause
	began := time.Now()
	var (
		notified time.Time
		about    Class
	)
	return backoff.Retry(ctx, func() (T, error) {
		result, err := try()
		switch {
		case err == nil:
			b.worked.Store(true)
			return result, nil
		case ctx.Err() != nil:
			return result, backoff.Permanent(ctx.Err())
		case !b.allow(ClassOf(err), time.Since(began)):
			return result, backoff.Permanent(err)
		}
		return result, err
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(b.Outage), backoff.WithNotify(func(err error, _ time.Duration) {
		class := ClassOf(err)
		if notified.IsZero() || class != about || time.Since(notified) >= remindEvery {
			notified, about = time.Now(), class
			notify(err, class)
		}
	}))
}

// allow reports whether to try again after that time.
func (b *Bounds) allow(class Class, elapsed time.Duration) bool {
	switch class {
	case Outage:
		return true
	case Refusal:
		return b.worked.Load() || elapsed < b.Refusal
	case Fault:
	}
	return false
}
