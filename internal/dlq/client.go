package dlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
)

// Subscription has the requests to the dead-letter subscription that a Queue makes.
type Subscription interface {
	// Pull returns at most limit messages, and none when Pub/Sub has nothing for now.
	// With immediately it does not wait for messages.
	Pull(ctx context.Context, limit int, immediately bool) ([]*pubsubpb.ReceivedMessage, error)
	Acknowledge(ctx context.Context, ackIDs []string) error
	ModifyAckDeadline(ctx context.Context, ackIDs []string, lease time.Duration) error
}

// Client is the Subscription that sends its requests to Pub/Sub.
type Client struct {
	client       *pubsub.SubscriptionAdminClient
	subscription string
	clock        clock
}

// ClockOffset returns how far Pub/Sub's clock is ahead of the local one. It is 0 if
// they agree, or if no answer had a date yet.
func (c *Client) ClockOffset() time.Duration { return time.Duration(c.clock.offset.Load()) }

// NewClient returns a client for a subscription, given by its full name.
func NewClient(ctx context.Context, subscription string, opts ...option.ClientOption) (*Client, error) {
	client, err := pubsub.NewSubscriptionAdminClient(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	// Queue retries by itself, and counts what failed.
	client.CallOptions.Pull = nil
	client.CallOptions.Acknowledge = nil
	client.CallOptions.ModifyAckDeadline = nil
	return &Client{client: client, subscription: subscription}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.client.Close() }

// Pull asks once for messages.
func (c *Client) Pull(ctx context.Context, limit int, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
	date, learn := c.clock.ask()
	response, err := c.client.Pull(ctx, &pubsubpb.PullRequest{
		Subscription: c.subscription,
		MaxMessages:  int32(limit),
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

// ModifyAckDeadline sets how long the leases last from now; 0 releases the messages.
func (c *Client) ModifyAckDeadline(ctx context.Context, ackIDs []string, lease time.Duration) error {
	return c.client.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription:       c.subscription,
		AckIds:             ackIDs,
		AckDeadlineSeconds: int32(lease / time.Second),
	})
}

// retentionTimeout bounds the question for the retention.
const retentionTimeout = 5 * time.Second

// Retention returns how long the subscription keeps a message. It needs
// pubsub.subscriptions.get, which a subscriber need not have.
func (c *Client) Retention(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, retentionTimeout)
	defer cancel()
	sub, err := c.client.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: c.subscription})
	if err != nil {
		return 0, err
	}
	if sub.GetMessageRetentionDuration() == nil {
		return 0, errors.New("the subscription does not say how long it keeps messages")
	}
	return sub.GetMessageRetentionDuration().AsDuration(), nil
}
