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
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// connection is the Transport over gRPC.
type connection struct {
	conn *grpc.ClientConn
	tls  *handshakes // nil for plain text
}

// The settings that the gateway's operators ask for.
const (
	keepaliveTime    = 20 * time.Second
	keepaliveTimeout = 10 * time.Second
	idleTimeout      = time.Minute
	// reconnectDelay bounds the time until a recovered gateway is found again.
	reconnectDelay = 2 * time.Second
	connectTimeout = 10 * time.Second
)

// The windows bound the bytes that the gateway may send at once. An answer has some 40
// bytes per event.
const (
	answerWindow  = 128 << 10
	answersWindow = 1 << 20
)

// writeBuffer is how many bytes a connection collects before it writes them, so that many
// small streams, or one large batch, need few system calls.
const writeBuffer = 128 << 10

// dial prepares a connection. gRPC opens it at the first use.
func dial(address string) (*connection, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("gateway URL: %w", err)
	}
	host, port := u.Hostname(), u.Port()
	secure := &handshakes{TransportCredentials: credentials.NewTLS(nil), last: &lastHandshake{}}
	var transport credentials.TransportCredentials = secure
	if port == "" {
		port = "443"
	}
	if u.Scheme == "http" {
		transport, secure = insecure.NewCredentials(), nil
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
		// The loop decides which events are submitted again, and when.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("telemetry-relay"),
		grpc.WithWriteBufferSize(writeBuffer),
		// Fixed windows switch off gRPC's estimation of bandwidth, which sends a ping for
		// each answer.
		grpc.WithInitialWindowSize(answerWindow),
		grpc.WithInitialConnWindowSize(answersWindow),
	)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return &connection{conn: conn, tls: secure}, nil
}

var streamDesc = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// Exchange runs one stream.
func (c *connection) Exchange(ctx context.Context, token string, b Batch, l *Listing) error {
	return c.exchange(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), b, l)
}

// Close closes the connection.
func (c *connection) Close() error { return c.conn.Close() }

func (c *connection) exchange(ctx context.Context, b Batch, l *Listing) error {
	// The events are encoded before the stream is opened, so that metadata and events leave
	// together.
	var events mem.BufferSlice
	if len(b.Events) > 0 {
		events = payload(b.Events).marshal()
	}
	stream, err := c.conn.NewStream(ctx, streamDesc,
		telemetrygatewayv1.TelemeteryGatewayService_RecordEvents_FullMethodName, grpc.ForceCodecV2(codec{}),
		// Otherwise gRPC keeps each payload until the answer comes, to send it again if the
		// gateway has not processed the stream. The loop does that with the events it has.
		grpc.MaxRetryRPCBufferSize(0))
	if err != nil {
		events.Free()
		return localError{err}
	}
	if err := send(stream, open(b), l); err != nil {
		events.Free()
		return err
	}
	if len(b.Events) > 0 {
		if err := send(stream, events, l); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for answers := 0; ; answers++ {
		switch err := stream.RecvMsg(l); {
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

// send sends a message. If the gateway has already ended the stream, it returns the reason,
// which only receiving yields.
func send(stream grpc.ClientStream, message any, l *Listing) error {
	err := stream.SendMsg(message)
	for errors.Is(err, io.EOF) {
		if reason := stream.RecvMsg(l); reason != nil {
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
