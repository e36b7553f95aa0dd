package consume

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/ackresult"
)

// requests runs requests to Pub/Sub of one kind concurrently, so that a slow answer delays
// only the messages of its own request.
type requests struct {
	slots   chan struct{} // has an element for each running request
	running *sync.WaitGroup
}

// maxRequests bounds the requests of one kind that run at once.
const maxRequests = 64

func newRequests() requests {
	return requests{slots: make(chan struct{}, maxRequests), running: new(sync.WaitGroup)}
}

// start runs a request in a goroutine once a slot is free. It returns a channel that is
// closed at the end of the request. It fails only if ctx ends.
func (q requests) start(ctx context.Context, request func()) (done <-chan struct{}, err error) {
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ended := make(chan struct{})
	q.running.Go(func() {
		defer func() { <-q.slots }()
		defer close(ended)
		request()
	})
	return ended, nil
}

func (q requests) wait() { q.running.Wait() }

// fate is the result for an ack id of a request.
type fate uint8

const (
	taken fate = iota // Pub/Sub has done it
	again             // another try may help
	lost              // Pub/Sub no longer accepts the id
)

// call is a request about ack ids.
type call func(ctx context.Context, ackIDs []string) error

// attempt sends one request and returns the fate of each id. The error is that of the
// request. It is nil if all ids were taken.
func attempt(ctx context.Context, timeout time.Duration, do call, ids []string) ([]fate, error) {
	fates := make([]fate, len(ids))
	do = do.within(timeout)
	err := do(ctx, ids)
	if err == nil {
		return fates, nil
	}
	if results, ok := ackresult.Of(err); ok {
		// Ids that the answer does not name are sent again. A second time does no harm.
		for i, id := range ids {
			fates[i] = again
			if results[id] == ackresult.Permanent {
				fates[i] = lost
			}
		}
		return fates, err
	}
	for i := range fates {
		fates[i] = again
	}
	if invalid(err) && len(ids) > 1 && !bisect(ctx, do, ids, fates) {
		// Pub/Sub refuses every id, so the ids may not be the reason.
		for i := range fates {
			fates[i] = again
		}
	}
	return fates, err
}

// within bounds the duration of each request.
func (do call) within(timeout time.Duration) call {
	return func(ctx context.Context, ids []string) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return do(ctx, ids)
	}
}

// bisect sends both halves of a request that was refused as invalid, to find the invalid
// ids. It reports whether Pub/Sub took any id, and leaves the fates of ids unchanged whose
// request failed for another reason.
func bisect(ctx context.Context, do call, ids []string, fates []fate) (took bool) {
	if len(ids) == 1 {
		fates[0] = lost
		return false
	}
	half := len(ids) / 2
	for _, part := range [...]struct{ from, to int }{{0, half}, {half, len(ids)}} {
		ids, fates := ids[part.from:part.to:part.to], fates[part.from:part.to]
		switch err := do(ctx, ids); {
		case err == nil:
			clear(fates) // taken
			took = true
		case invalid(err):
			took = bisect(ctx, do, ids, fates) || took
		}
	}
	return took
}

// invalid reports whether Pub/Sub refused a request for its content: without exactly-once
// delivery it answers so to a malformed ack id. FailedPrecondition is no such code. Without
// a result per id it means that something else is missing, such as the topic's key.
func invalid(err error) bool { return status.Code(err) == codes.InvalidArgument }
