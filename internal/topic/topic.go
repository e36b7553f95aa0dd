// Package topic publishes to a Pub/Sub topic, many messages a request. It reports an error
// for each request and leaves retries to its callers.
package topic

import (
	"context"
	"fmt"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
)

// Pub/Sub's limits of one request; the second with some room for the envelope.
const (
	MaxRequestMessages = 1000
	MaxRequestBytes    = 9_500_000
)

// publishTimeout bounds one request. A 10 MB message on a slow connection needs seconds.
const publishTimeout = 20 * time.Second

// Client publishes to one topic. It is safe for concurrent use.
type Client struct {
	client *pubsub.TopicAdminClient
	topic  string
}

// NewClient returns a client for a topic, given by its full name.
func NewClient(ctx context.Context, name string, opts ...option.ClientOption) (*Client, error) {
	client, err := pubsub.NewTopicAdminClient(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	// Callers retry, and log that the topic is unavailable.
	client.CallOptions.Publish = nil
	return &Client{client: client, topic: name}, nil
}

// Publish publishes the messages in one request and waits for the confirmation.
// Messages with an ordering key must not share a request with others. The error
// has gRPC's code for status.Code, and nothing that may quote a message.
func (c *Client) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	response, err := c.client.Publish(ctx, &pubsubpb.PublishRequest{Topic: c.topic, Messages: messages})
	if err != nil {
		return shown(err)
	}
	if got := len(response.GetMessageIds()); got != len(messages) {
		return fmt.Errorf("confirmed were %d of %d messages", got, len(messages))
	}
	return nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.client.Close() }

// Size is the number of bytes that Pub/Sub counts for a message: its encoding, within a
// few bytes.
func Size(m *pubsubpb.PubsubMessage) int {
	const perField = 10 // tags and lengths
	size := len(m.GetData()) + len(m.GetOrderingKey()) + 2*perField
	for k, v := range m.GetAttributes() {
		size += len(k) + len(v) + perField
	}
	return size
}
