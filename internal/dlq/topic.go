package dlq

import (
	"context"
	"fmt"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
)

// publishTimeout bounds one request; a 10 MB message on a slow line needs some.
const publishTimeout = 20 * time.Second

// TopicClient is the Topic that speaks to Pub/Sub.
type TopicClient struct {
	client *pubsub.TopicAdminClient
	topic  string
}

// NewTopicClient returns a client for a topic, given by its full name.
func NewTopicClient(ctx context.Context, topic string, opts ...option.ClientOption) (*TopicClient, error) {
	client, err := pubsub.NewTopicAdminClient(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	// Whoever publishes has its own retries, and says when the topic is away.
	client.CallOptions.Publish = nil
	return &TopicClient{client: client, topic: topic}, nil
}

// Publish publishes the messages in one request and waits for the confirmation.
func (c *TopicClient) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	response, err := c.client.Publish(ctx, &pubsubpb.PublishRequest{Topic: c.topic, Messages: messages})
	if err != nil {
		return err
	}
	if got := len(response.GetMessageIds()); got != len(messages) {
		return fmt.Errorf("Pub/Sub confirmed %d of %d messages", got, len(messages))
	}
	return nil
}

// Close closes the connection.
func (c *TopicClient) Close() error { return c.client.Close() }
