package consume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/uuid"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Client is the Subscriber that speaks to Pub/Sub.
type Client struct {
	client       *pubsub.SubscriptionAdminClient
	subscription string
	id           string // tells Pub/Sub which streams belong together
}

// withCodec makes a call use codec for its request and its response.
var withCodec = gax.WithGRPCOptions(grpc.ForceCodecV2(codec{}))

// NewClient returns a client for a subscription, given by its full name.
func NewClient(ctx context.Context, subscription string, opts ...option.ClientOption) (*Client, error) {
	client, err := pubsub.NewSubscriptionAdminClient(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	// The receiver repeats failed calls itself, because it knows which messages they are
	// about.
	client.CallOptions.StreamingPull = nil
	client.CallOptions.Pull = nil
	client.CallOptions.Acknowledge = nil
	client.CallOptions.ModifyAckDeadline = nil
	return &Client{client: client, subscription: subscription, id: uuid.NewString()}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.client.Close() }

// Stream opens a streaming pull. When ctx ends, the client closes the stream in good order:
// Recv returns the messages that Pub/Sub still delivers, for at most closeTimeout, and then
// an error. If the stream were cut instead, the server would go on assigning messages to
// it, and no subscriber could get them until their leases end.
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
		s.sending.Lock()
		defer s.sending.Unlock()
		_ = stream.CloseSend() // if it fails, the stream has ended
	})
	return s, nil
}

func (c *Client) open(ctx context.Context, flow Flow) (pubsubpb.Subscriber_StreamingPullClient, error) {
	// The generated client adds this header to every call except StreamingPull.
	ctx = gax.InsertMetadataIntoOutgoingContext(ctx, "x-goog-request-params", "subscription="+url.QueryEscape(c.subscription))
	stream, err := c.client.StreamingPull(ctx, withCodec)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&pubsubpb.StreamingPullRequest{
		Subscription:             c.subscription,
		ClientId:                 c.id,
		StreamAckDeadlineSeconds: int32(flow.Lease / time.Second),
		MaxOutstandingMessages:   int64(flow.MaxEvents),
		MaxOutstandingBytes:      flow.MaxBytes,
		ProtocolVersion:          protocolVersion,
	})
	if err != nil {
		// Send fails without a reason; Recv returns it.
		if reason := stream.RecvMsg(NewResponse(nil)); reason != nil {
			err = reason
		}
		return nil, streamError(err)
	}
	return stream, nil
}

// protocolVersion 1 means that the client expects answers to its pings.
const protocolVersion = 1

// closeTimeout is how long Pub/Sub may take to end a stream that is closed.
const closeTimeout = time.Second

type pullStream struct {
	stream  pubsubpb.Subscriber_StreamingPullClient
	sending sync.Mutex // gRPC allows one Send or CloseSend at a time
	end     context.CancelFunc
	forget  func() bool // stops watching ctx
}

// Ping sends an empty request. Pub/Sub answers with a response without messages.
func (s *pullStream) Ping() error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.stream.Send(&pubsubpb.StreamingPullRequest{})
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

// Pull requests messages once. Unless it is to be answered immediately, it waits for them
// until ctx ends. An empty result is no error.
func (c *Client) Pull(ctx context.Context, limit int, immediately bool) (Response, error) {
	response, err := c.client.Pull(ctx, &pubsubpb.PullRequest{
		Subscription:      c.subscription,
		MaxMessages:       int32(limit),
		ReturnImmediately: immediately, //nolint:staticcheck // deprecated; it alone tells a slow answer from none
	})
	if deadline, ok := ctx.Deadline(); ok && !immediately && status.Code(err) == codes.DeadlineExceeded && time.Until(deadline) < clockSlack {
		return NewResponse(nil), nil
	}
	if err != nil {
		return nil, err
	}
	// Pulls are rare, so encoding the response once more costs little.
	encoded, err := proto.Marshal(response)
	if err != nil {
		return nil, err
	}
	return NewResponse(encoded), nil
}

// clockSlack is how much earlier a deadline may end on the server than here. The deadline
// travels as a duration, and the timers of both sides differ a little.
const clockSlack = 250 * time.Millisecond

// Acknowledge acknowledges the ack ids.
func (c *Client) Acknowledge(ctx context.Context, ackIDs []string) error {
	return c.client.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: c.subscription, AckIds: ackIDs}, withCodec)
}

// ModifyAckDeadline makes the leases end after a duration that begins now.
func (c *Client) ModifyAckDeadline(ctx context.Context, ackIDs []string, lease time.Duration) error {
	return c.client.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription:       c.subscription,
		AckIds:             ackIDs,
		AckDeadlineSeconds: int32(lease / time.Second),
	})
}

// errEnded replaces io.EOF, the regular end of a stream.
var errEnded = errors.New("the stream has ended")

func streamError(err error) error {
	if errors.Is(err, io.EOF) {
		return errEnded
	}
	return err
}
