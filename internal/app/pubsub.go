package app

import (
	"time"

	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/buffers"
)

const (
	// connections is how many connections a client of Pub/Sub has, as the official
	// client on four processors or more. Streams and requests take turns on them, so
	// that a dead one stalls some of both but not all.
	connections = 4
	// keepaliveTime is after how long without traffic gRPC pings the server, as in
	// the official client. With it comes a TCP user timeout of 20 s, after which a
	// connection counts as dead that does not take what is sent on it.
	keepaliveTime = 5 * time.Minute
)

// What is received and not read yet is bounded: gRPC's own windows grow with the
// line, to megabytes that nobody accounts for. A stream's window lets 10 MB/s, which
// is what Pub/Sub gives, through a line of 50 ms. A connection's has room for two
// streams, which may share one after they were reopened. So a client holds at
// most connections × connectionWindow, 4 MiB.
const (
	streamWindow     = 512 << 10
	connectionWindow = 1 << 20
)

// PubSubOptions are the options of every Pub/Sub client.
func PubSubOptions(cfg *config.Config) []option.ClientOption {
	opts := []option.ClientOption{
		option.WithGRPCConnectionPool(connections),
		option.WithGRPCDialOption(grpc.WithInitialWindowSize(streamWindow)),
		option.WithGRPCDialOption(grpc.WithInitialConnWindowSize(connectionWindow)),
		option.WithGRPCDialOption(experimental.WithBufferPool(buffers.Pool)),
		option.WithGRPCDialOption(grpc.WithWriteBufferSize(buffers.OnTheWay)),
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
