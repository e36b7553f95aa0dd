// Package submit records events at Telemetry Gateway: it authenticates through
// SAMS, sends one batch a stream, and tells for each event what became of it.
package submit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// Batch is what one stream carries: events of one publisher, with different
// ids, of less than 4 MiB together. Without events it asks whether the gateway
// is there and takes the publisher.
type Batch struct {
	// RequestID names the stream in the gateway's logs and ours.
	RequestID string
	Publisher event.Publisher
	Events    []*event.Event
	// Control asks for a control when the stream fails by what may pass: a
	// stream with the same identity and no events.
	Control bool
}

// Result is what became of a batch.
type Result struct {
	// Listed says for each event whether the gateway has recorded it. It is nil
	// when there was no answer.
	Listed []bool
	// Failure is why the stream failed; nil when it ended well. It may have
	// failed after the answer.
	Failure *Failure
	// Took is how long it took, without the wait for a token.
	Took time.Duration
}

// Code is the gRPC code with which the stream ended.
func (r Result) Code() codes.Code {
	if r.Failure == nil {
		return codes.OK
	}
	return r.Failure.Code
}

// Options of a Client.
type Options struct {
	// URL of the gateway: https://…, or http://… for plain text.
	URL string
	// Timeout of one stream.
	Timeout time.Duration
	// Tokens authenticate the streams.
	Tokens *Tokens
	// Self is the identity under which the worker itself asks.
	Self event.Publisher
}

// Client submits to one gateway. It is safe for concurrent use.
type Client struct {
	conn    *grpc.ClientConn
	timeout time.Duration
	tokens  *Tokens
	self    event.Publisher
}

// The contract's settings for connections.
const (
	keepaliveTime    = 20 * time.Second
	keepaliveTimeout = 10 * time.Second
	idleTimeout      = time.Minute
	// A gateway that returns is found again this soon.
	reconnectDelay = 2 * time.Second
	connectTimeout = 10 * time.Second
)

// NewClient returns a client; it connects when it is first used.
func NewClient(opts Options) (*Client, error) {
	u, err := url.Parse(opts.URL)
	if err != nil {
		return nil, fmt.Errorf("gateway URL: %w", err)
	}
	host, port := u.Hostname(), u.Port()
	transport := credentials.NewTLS(nil)
	if port == "" {
		port = "443"
	}
	if u.Scheme == "http" {
		transport = insecure.NewCredentials()
		if u.Port() == "" {
			port = "80"
		}
	}
	conn, err := grpc.NewClient("dns:///"+net.JoinHostPort(host, port),
		grpc.WithTransportCredentials(transport),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                keepaliveTime,
			Timeout:             keepaliveTimeout,
			PermitWithoutStream: true,
		}),
		grpc.WithIdleTimeout(idleTimeout),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectDelay},
			MinConnectTimeout: connectTimeout,
		}),
		// What is submitted again, and when, is decided in one place.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("telemetry-relay"),
	)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return &Client{conn: conn, timeout: opts.Timeout, tokens: opts.Tokens, self: opts.Self}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Probe asks without recording anything whether the gateway can be reached and
// accepts a token. The error is a *Failure.
func (c *Client) Probe(ctx context.Context, requestID string) error {
	if f := c.Submit(ctx, Batch{RequestID: requestID, Publisher: c.self}).Failure; f != nil {
		return f
	}
	return nil
}

// Submit sends a batch in a stream of its own and waits for the outcome.
func (c *Client) Submit(ctx context.Context, b Batch) Result {
	r := c.authenticated(ctx, b)
	switch {
	case r.Failure == nil:
	case r.Failure.Class == BatchRefused:
		r.Failure.Class = c.whoseFault(ctx, b)
	case r.Failure.Class == Passing && b.Control:
		r.Failure.Control = ControlPassed
		if c.authenticated(ctx, Batch{RequestID: b.RequestID, Publisher: b.Publisher}).Failure != nil {
			r.Failure.Control = ControlFailed
		}
	}
	return r
}

// whoseFault asks again without the events, and then under another identity:
// only then does a refusal of the stream say what is the matter.
func (c *Client) whoseFault(ctx context.Context, b Batch) Class {
	if len(b.Events) > 0 {
		same := c.authenticated(ctx, Batch{RequestID: b.RequestID, Publisher: b.Publisher})
		if same.Failure == nil {
			return BatchRefused
		}
		if same.Failure.Class != BatchRefused {
			return Passing // no verdict now
		}
	}
	if b.Publisher == c.self {
		return Unusable
	}
	other := c.authenticated(ctx, Batch{RequestID: b.RequestID, Publisher: c.self})
	switch {
	case other.Failure == nil:
		return IdentityRefused
	case other.Failure.Class == BatchRefused:
		return Unusable
	}
	return Passing
}

// authenticated sends a batch with a token. A refused token is replaced once,
// at once: it may have been revoked.
func (c *Client) authenticated(ctx context.Context, b Batch) Result {
	for attempt := 0; ; attempt++ {
		token, err := c.tokens.Token(ctx)
		if err != nil {
			return Result{Failure: tokenFailure(err)}
		}
		r := c.stream(ctx, token, b)
		if attempt == 0 && r.Listed == nil && r.Failure != nil && r.Failure.Class == Credentials {
			c.tokens.Invalidate(token)
			continue
		}
		return r
	}
}

func tokenFailure(err error) *Failure {
	f := &Failure{Class: SAMS, Code: codes.Unavailable, Err: err}
	var refused *CredentialsError
	if errors.As(err, &refused) {
		f.Class, f.Code = Credentials, codes.Unauthenticated
	}
	return f
}

var streamDesc = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

func (c *Client) stream(ctx context.Context, token string, b Batch) Result {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	started := time.Now()
	answer := &answer{events: b.Events}
	err := c.exchange(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), b, answer)
	r := Result{Listed: answer.listed, Took: time.Since(started)}
	if err != nil {
		r.Failure = classify(err)
	}
	return r
}

// exchange is one stream: metadata, at most one payload, its answer, the end.
func (c *Client) exchange(ctx context.Context, b Batch, a *answer) error {
	stream, err := c.conn.NewStream(ctx, streamDesc,
		telemetrygatewayv1.TelemeteryGatewayService_RecordEvents_FullMethodName, grpc.ForceCodecV2(codec{}))
	if err != nil {
		return err
	}
	if err := send(stream, open(b), a); err != nil {
		return err
	}
	if len(b.Events) > 0 {
		if err := send(stream, payload(b.Events), a); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for answers := 0; ; answers++ {
		switch err := stream.RecvMsg(a); {
		case errors.Is(err, io.EOF):
			if len(b.Events) > 0 && answers == 0 {
				return status.Error(codes.Internal, "the gateway ended the stream without an answer")
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// send sends a message. When the gateway has ended the stream already, its
// reason is what receiving returns.
func send(stream grpc.ClientStream, message any, a *answer) error {
	err := stream.SendMsg(message)
	for errors.Is(err, io.EOF) {
		if reason := stream.RecvMsg(a); reason != nil {
			if errors.Is(reason, io.EOF) {
				return status.Error(codes.Internal, "the gateway ended the stream early")
			}
			return reason
		}
	}
	return err
}

func open(b Batch) *telemetrygatewayv1.RecordEventsRequest {
	return &telemetrygatewayv1.RecordEventsRequest{
		Payload: &telemetrygatewayv1.RecordEventsRequest_Metadata{
			Metadata: &telemetrygatewayv1.RecordEventsRequestMetadata{
				RequestId: b.RequestID,
				Identifier: &telemetrygatewayv1.Identifier{
					Identifier: &telemetrygatewayv1.Identifier_ManagedService{
						ManagedService: &telemetrygatewayv1.Identifier_ManagedServiceIdentifier{
							ServiceId:          b.Publisher.ServiceID,
							ServiceEnvironment: &b.Publisher.Environment,
						},
					},
				},
			},
		},
	}
}
