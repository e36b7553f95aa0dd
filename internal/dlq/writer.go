package dlq

import (
	"context"
	"fmt"
	"runtime/debug"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// Topic publishes to the dead-letter topic.
type Topic interface {
	// Publish returns nil only when Pub/Sub has confirmed all messages.
	Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error
}

// Writer writes dead-lettered messages. It is safe for concurrent use.
type Writer struct {
	topic  Topic
	origin Origin
}

// NewWriter returns a writer to the topic.
func NewWriter(topic Topic, origin Origin) *Writer {
	return &Writer{topic: topic, origin: origin}
}

// Write publishes the messages and returns what became of each: nil when Pub/Sub
// has confirmed it, ErrTooLarge or ErrBroken when it can never be written, any other error
// when it is worth another try.
func (w *Writer) Write(ctx context.Context, messages []*DeadLetter) []error {
	results := make([]error, len(messages))
	var (
		request []*pubsubpb.PubsubMessage
		indexes []int
		size    int
	)
	flush := func() {
		w.publish(ctx, request, indexes, results)
		request, indexes, size = nil, nil, 0
	}
	for i, d := range messages {
		m, err := w.contained(d)
		if err != nil {
			results[i] = err
			continue
		}
		n := topic.Size(m)
		if len(request) == topic.MaxRequestMessages || (len(request) > 0 && size+n > topic.MaxRequestBytes) {
			flush()
		}
		request, indexes, size = append(request, m), append(indexes, i), size+n
	}
	flush()
	return results
}

// contained builds a dead-lettered message. A panic becomes an error of this message.
func (w *Writer) contained(d *DeadLetter) (m *pubsubpb.PubsubMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %T at %s", ErrBroken, p, debug.Stack())
		}
	}()
	return build(d, w.origin)
}

// publish sends one request. One that is refused as invalid is sent again one by
// one, so that a single message does not block the others.
func (w *Writer) publish(ctx context.Context, request []*pubsubpb.PubsubMessage, indexes []int, results []error) {
	if len(request) == 0 {
		return
	}
	err := w.topic.Publish(ctx, request)
	if err == nil {
		return
	}
	code := status.Code(err)
	// Some servers let a request above their limit time out instead of refusing it.
	above := len(request) == 1 && topic.Size(request[0]) > maxMessage &&
		(code == codes.DeadlineExceeded || code == codes.ResourceExhausted)
	if code == codes.InvalidArgument || above {
		if len(request) > 1 {
			for i := range request {
				w.publish(ctx, request[i:i+1], indexes[i:i+1], results)
			}
			return
		}
		err = fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	for _, i := range indexes {
		results[i] = err
	}
}
