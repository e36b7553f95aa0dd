package consume

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/ackresult"
)

// requests runs requests of one kind to Pub/Sub beside each other, so that one slow
// answer holds up nothing but what it is about.
type requests struct {
	slots   chan struct{} // one is taken for each request under way
	running *sync.WaitGroup
}

// maxRequests bounds the requests of one kind that are under way at once.
const maxRequests = 64

func newRequests() requests {
	return requests{slots: make(chan struct{}, maxRequests), running: new(sync.WaitGroup)}
}

// start runs a request in a goroutine of its own, once a slot is free. The channel
// that it returns is closed at the request's end. Only the end of ctx makes it fail.
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

// fate is what became of an ack id in a request.
type fate uint8

const (
	taken fate = iota // Pub/Sub has done what was asked
	again             // another try may help
	lost              // Pub/Sub does not accept the id any more
)

// call is a request about ack ids.
type call func(ctx context.Context, ackIDs []string) error

// attempt sends one request and says what became of each id. The error is that of
// the request, and is nil if all ids were taken.
func attempt(ctx context.Context, timeout time.Duration, do call, ids []string) ([]fate, error) {
	fates := make([]fate, len(ids))
	do = do.within(timeout)
	err := do(ctx, ids)
	if err == nil {
		return fates, nil
	}
	if results, ok := ackresult.Of(err); ok {
		// Ids that the answer does not name are sent again: twice does no harm.
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
		// Pub/Sub refuses each of them, so the ids may not be the reason.
		for i := range fates {
			fates[i] = again
		}
	}
	return fates, err
}

// within bounds each request.
func (do call) within(timeout time.Duration) call {
	return func(ctx context.Context, ids []string) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return do(ctx, ids)
	}
}

// bisect sends both halves of a request that was refused as invalid, to find the
// ids for which it was, and reports whether Pub/Sub took any id. The fates that it
// does not set remain.
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

// invalid reports whether Pub/Sub refused a request for what is in it. Without
// exactly-once delivery that is how it answers to a malformed ack id. FailedPrecondition
// is not among these codes: without results per id it means that something else is
// missing, such as the key of the topic.
func invalid(err error) bool { return status.Code(err) == codes.InvalidArgument }
