package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/preflight"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

const (
	// connections is the number of connections of a Pub/Sub client, as in the official
	// client on four processors or more. Streams and requests are spread over them, so
	// that a dead connection stalls only some of both.
	connections = 4
	// keepaliveTime is the time without traffic after which gRPC pings the server, as in
	// the official client. It also sets a TCP user timeout of 20 s: a connection whose
	// peer acknowledges nothing for that time counts as dead.
	keepaliveTime = 5 * time.Minute
)

// The windows bound the bytes that were received and not read yet. gRPC's own windows grow
// with the bandwidth, to megabytes that no other bound covers. A stream's window suffices
// for the 10 MB/s of a Pub/Sub stream over a round trip of 50 ms. A connection's window
// suffices for two streams, which may share a connection after they were reopened. So a
// client buffers at most connections × connectionWindow, 4 MiB.
const (
	streamWindow     = 512 << 10
	connectionWindow = 1 << 20
)

// writeBuffer is how many bytes a connection collects before it writes them. A request with
// acks has up to 500 KB and so needs few system calls.
const writeBuffer = 128 << 10

// PubSubOptions returns the options of every Pub/Sub client.
func PubSubOptions(cfg *config.Config) []option.ClientOption {
	opts := []option.ClientOption{
		option.WithGRPCConnectionPool(connections),
		option.WithGRPCDialOption(grpc.WithInitialWindowSize(streamWindow)),
		option.WithGRPCDialOption(grpc.WithInitialConnWindowSize(connectionWindow)),
		option.WithGRPCDialOption(grpc.WithWriteBufferSize(writeBuffer)),
	}
	if cfg.EmulatorHost != "" {
		return append(opts,
			option.WithEndpoint(cfg.EmulatorHost),
			option.WithoutAuthentication(),
			option.WithTelemetryDisabled(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		)
	}
	if cfg.PubSubEndpoint != "" {
		opts = append(opts, option.WithEndpoint(cfg.PubSubEndpoint))
	}
	return append(opts, option.WithGRPCDialOption(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime})))
}

// connect makes the clients of the run. They need credentials, for which it waits as for
// other resources that may be missing at the start.
func connect(ctx context.Context, cfg *config.Config, opts Options) (events *consume.Client, deadLetters *topic.Client, err error) {
	pubsub := PubSubOptions(cfg)
	err = preflight.Wait(ctx, opts.StartWait, opts.Logger, func() (fault error, passes bool) {
		events, fault = consume.NewClient(ctx, cfg.SubscriptionName(), pubsub...)
		if fault == nil {
			if deadLetters, fault = topic.NewClient(ctx, cfg.DeadLetterTopicName(), pubsub...); fault != nil {
				fault = errors.Join(fault, events.Close())
			}
		}
		if fault != nil {
			fault = fmt.Errorf("the worker has no credentials for Google Cloud; expected those of a service account, or a file in GOOGLE_APPLICATION_CREDENTIALS: %w", fault)
		}
		return fault, true
	})
	return events, deadLetters, err
}
