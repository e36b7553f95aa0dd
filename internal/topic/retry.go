package topic

import (
	"context"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Publisher publishes one request and waits for the confirmation.
type Publisher interface {
	Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error
}

// PublishPatiently publishes one request again and again for as long as patience
// lasts and another try may help. It calls notify before each further try.
func PublishPatiently(ctx context.Context, p Publisher, messages []*pubsubpb.PubsubMessage, patience time.Duration, notify func(error)) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := p.Publish(ctx, messages)
		switch status.Code(err) {
		case codes.Unavailable, codes.Aborted, codes.Internal, codes.ResourceExhausted, codes.Unknown, codes.DeadlineExceeded:
			return struct{}{}, err
		}
		if err != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, nil
	}, backoff.WithMaxElapsedTime(patience), backoff.WithNotify(func(err error, _ time.Duration) { notify(err) }))
	return err
}
