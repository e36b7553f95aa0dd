package topic

import (
	"context"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// Publisher publishes one request and waits for the confirmation.
type Publisher interface {
	Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error
}

// PublishPatiently publishes one request again and again as long as another try
// may help, within the bounds, which requests to one topic share. It calls notify
// before each further try.
func PublishPatiently(ctx context.Context, p Publisher, messages []*pubsubpb.PubsubMessage, bounds *retry.Bounds, notify func(error, retry.Class)) error {
	_, err := retry.Bounded(ctx, bounds, func() (struct{}, error) {
		return struct{}{}, p.Publish(ctx, messages)
	}, notify)
	return err
}
