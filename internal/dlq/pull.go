package dlq

import (
	"context"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

const (
	// minPause avoids a busy loop where pulls are answered at once.
	minPause = 100 * time.Millisecond
	// pullGrace is how long a pull may still take after the end. It is longer than a pull
	// waits, because a server may continue a pull that the client has cancelled, and lease
	// released messages to it.
	pullGrace = 4 * time.Second
	// releasePause divides WaitingPull: that part of it, 0.5 s by default, passes between
	// the deadline of a waiting pull and a release. Pub/Sub learns of the deadline a little
	// later than the client, and until then would lease released messages to that pull,
	// whose answer nobody reads.
	releasePause = 6
)

// pullNow pulls without waiting for messages.
func (q *Queue) pullNow(ctx context.Context) ([]*pubsubpb.ReceivedMessage, error) {
	return q.pull(ctx, true, q.opts.AnswerTimeout)
}

// pullWaiting pulls for WaitingPull, or until messages come. If Pub/Sub answers
// earlier without messages, it pulls again for the rest of the time.
func (q *Queue) pullWaiting(ctx context.Context) ([]*pubsubpb.ReceivedMessage, error) {
	end := time.Now().Add(q.opts.WaitingPull)
	for {
		asked := time.Now()
		received, err := q.pull(ctx, false, max(time.Until(end), minPause))
		if err != nil || len(received) > 0 {
			return received, err
		}
		if err := retry.Sleep(ctx, min(minPause-time.Since(asked), time.Until(end))); err != nil {
			return nil, err
		}
		if !time.Now().Before(end) {
			return nil, nil
		}
	}
}

// pull pulls until there is an answer. A waiting pull that reaches its deadline is no
// error: there were no messages.
func (q *Queue) pull(ctx context.Context, immediately bool, timeout time.Duration) ([]*pubsubpb.ReceivedMessage, error) {
	return retry.Bounded(ctx, &q.bounds, func() ([]*pubsubpb.ReceivedMessage, error) {
		rpc, cancel := retry.Outlive(ctx, pullGrace)
		defer cancel()
		rpc, stop := context.WithTimeout(rpc, timeout)
		defer stop()
		received, err := q.sub.Pull(rpc, q.opts.MaxMessages, immediately)
		if err == nil {
			return received, nil
		}
		if !immediately && status.Code(err) == codes.DeadlineExceeded {
			q.cut = time.Now()
			return nil, nil
		}
		q.failures++
		return nil, err
	}, q.retrying)
}

// retrying logs that a request failed and is tried again.
func (q *Queue) retrying(err error, class retry.Class) {
	if class == retry.Refusal {
		q.opts.Logger.Warn("Pub/Sub refuses; trying again, because what was just created or granted takes a while", "error", err)
		return
	}
	q.opts.Logger.Warn("Pub/Sub does not answer; asking again", "error", err)
}
