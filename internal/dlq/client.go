package dlq

import (
	"context"
	"fmt"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
)

// Subscription is what a queue needs of the dead-letter subscription.
type Subscription interface {
	// Pull returns at most so many messages; none when there is nothing for now.
	// immediately means that it does not wait for any.
	Pull(ctx context.Context, most int, immediately bool) ([]*pubsubpb.ReceivedMessage, error)
	Acknowledge(ctx context.Context, ackIDs []string) error
	ModifyAckDeadline(ctx context.Context, ackIDs []string, lease time.Duration) error
}

// Client is the Subscription that speaks to Pub/Sub.
type Client struct {
	client       *pubsub.SubscriptionAdminClient
	subscription string
	clock        clock
}

// ClockOffset is how far Pub/Sub's clock is ahead of the local one, as far as its
// answers have told; 0 if they agree.
func (c *Client) ClockOffset() time.Duration { return time.Duration(c.clock.offset.Load()) }

// NewClient returns a client for a subscription, given by its full name.
func NewClient(ctx context.Context, subscription string, opts ...option.ClientOption) (*Client, error) {
	client, err := pubsub.NewSubscriptionAdminClient(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	// The queue has its own retries, which know what is at stake.
	client.CallOptions.Pull = nil
	client.CallOptions.Acknowledge = nil
	client.CallOptions.ModifyAckDeadline = nil
	return &Client{client: client, subscription: subscription}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.client.Close() }

// Pull asks once for messages.
func (c *Client) Pull(ctx context.Context, most int, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
	date, learn := c.clock.ask()
	response, err := c.client.Pull(ctx, &pubsubpb.PullRequest{
		Subscription: c.subscription,
		MaxMessages:  int32(most),
		//nolint:staticcheck // Deprecated for consumers that poll; this asks whether the queue is empty.
		ReturnImmediately: immediately,
	}, date)
	learn()
	if err != nil {
		return nil, err
	}
	return response.GetReceivedMessages(), nil
}

// Acknowledge acknowledges the ack ids.
func (c *Client) Acknowledge(ctx context.Context, ackIDs []string) error {
	return c.client.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: c.subscription, AckIds: ackIDs})
}

// ModifyAckDeadline sets the rest of the leases; 0 gives the messages back.
func (c *Client) ModifyAckDeadline(ctx context.Context, ackIDs []string, lease time.Duration) error {
	return c.client.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription:       c.subscription,
		AckIds:             ackIDs,
		AckDeadlineSeconds: int32(lease / time.Second),
	})
}
