package app_test

import (
	"context"
	"net"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sys/unix"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
)

// TestDeadConnectionIsNoticed requires a TCP user timeout on a connection to the real
// Pub/Sub, so that a connection ends whose packets are lost.
func TestDeadConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	server := startPubSub(t)
	conns := make(chan *net.TCPConn, 10)
	opts := append(app.PubSubOptions(&config.Config{PubSubEndpoint: server.Addr()}),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err == nil {
				conns <- conn.(*net.TCPConn)
			}
			return conn, err
		})))
	client, err := pubsub.NewTopicAdminClient(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	// Any answer shows that a connection is set up.
	for range 4 {
		_, _ = client.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topicName})
	}
	for range 4 {
		select {
		case conn := <-conns:
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Control(func(fd uintptr) {
				ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
				if err != nil || time.Duration(ms)*time.Millisecond != 20*time.Second {
					t.Errorf("the user timeout is %d ms, %v", ms, err)
				}
			}); err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("no connection")
		}
	}
}
