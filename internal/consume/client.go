package consume

import (
	"context"
	"fmt"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Client is the Subscriber that speaks to Pub/Sub.
type Client struct {
	client       *pubsub.SubscriptionAdminClient
	subscription string
}

// encoding has requests and responses go through our codec.
var encoding = gax.WithGRPCOptions(grpc.ForceCodecV2(codec{}))

// NewClient returns a client for a subscription, given by its full name.
func NewClient(ctx context.Context, subscription string, opts ...option.ClientOption) (*Client, error) {
	client, err := pubsub.NewSubscriptionAdminClient(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	// The receiver has its own retries, which know what is at stake.
	client.CallOptions.StreamingPull = nil
	client.CallOptions.Pull = nil
	client.CallOptions.Acknowledge = nil
	client.CallOptions.ModifyAckDeadline = nil
	return &Client{client: client, subscription: subscription}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.client.Close() }

// Stream opens a streaming pull. When ctx ends, it is closed in good order: what
// Pub/Sub still delivers comes before Recv's error, for at most closeTimeout. A
// stream that is cut would go on taking messages on the server's side, where
// nobody could get them until their leases end.
func (c *Client) Stream(ctx context.Context, flow Flow) (Stream, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	cut := context.AfterFunc(ctx, end)
	stream, err := c.open(life, flow)
	if !cut() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		end()
		return nil, err
	}
	s := &pullStream{stream: stream, end: end}
	s.forget = context.AfterFunc(ctx, func() {
		time.AfterFunc(closeTimeout, end)
		_ = stream.CloseSend() // if it fails, the stream has ended
	})
	return s, nil
}

func (c *Client) open(ctx context.Context, flow Flow) (pubsubpb.Subscriber_StreamingPullClient, error) {
	stream, err := c.client.StreamingPull(ctx, encoding)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&pubsubpb.StreamingPullRequest{
		Subscription:             c.subscription,
		StreamAckDeadlineSeconds: int32(flow.Lease / time.Second),
		MaxOutstandingMessages:   int64(flow.MaxEvents),
		MaxOutstandingBytes:      flow.MaxBytes,
	})
	if err != nil {
		// The reason is what Recv returns.
		if reason := stream.RecvMsg(NewResponse(nil)); reason != nil {
			err = reason
		}
		return nil, streamError(err)
	}
	return stream, nil
}

// closeTimeout is how long Pub/Sub may take to end a stream that is closed.
const closeTimeout = time.Second

type pullStream struct {
	stream pubsubpb.Subscriber_StreamingPullClient
	end    context.CancelFunc
	forget func() bool // that ctx may end
}

func (s *pullStream) Recv() (Response, error) {
	response := NewResponse(nil)
	if err := s.stream.RecvMsg(response); err != nil {
		s.forget()
		s.end()
		return nil, streamError(err)
	}
	return response, nil
}

// Pull asks once for messages that are there already.
func (c *Client) Pull(ctx context.Context, most int) (Response, error) {
	response, err := c.client.Pull(ctx, &pubsubpb.PullRequest{
		Subscription: c.subscription,
		MaxMessages:  int32(most),
		//nolint:staticcheck // Deprecated for consumers that poll; this asks whether the queue is empty.
		ReturnImmediately: true,
	})
	if err != nil {
		return nil, err
	}
	// It is asked for rarely: having it encoded once more costs nothing that counts.
	encoded, err := proto.Marshal(response)
	if err != nil {
		return nil, err
	}
	return NewResponse(encoded), nil
}

// Acknowledge acknowledges the ack ids.
func (c *Client) Acknowledge(ctx context.Context, ackIDs []string) error {
	return c.client.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: c.subscription, AckIds: ackIDs}, encoding)
}

// ModifyAckDeadline sets the rest of the leases.
func (c *Client) ModifyAckDeadline(ctx context.Context, ackIDs []string, lease time.Duration) error {
	return c.client.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription:       c.subscription,
		AckIds:             ackIDs,
		AckDeadlineSeconds: int32(lease / time.Second),
	})
}
