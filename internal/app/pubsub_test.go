package app_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
)

// TestClientSurvivesDeadConnection requires that a client has four connections, also to an
// emulator, and that the others go on when one of them delivers nothing more.
func TestClientSurvivesDeadConnection(t *testing.T) {
	t.Parallel()
	server := startPubSub(t)
	if err := server.CreateTopic(topicName); err != nil {
		t.Fatal(err)
	}
	front := newFront(t, server.Addr())
	client, err := pubsub.NewTopicAdminClient(t.Context(), app.PubSubOptions(&config.Config{EmulatorHost: front.addr()})...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	client.CallOptions.GetTopic = nil // no tries of its own
	ask := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		_, err := client.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: topicName})
		return err
	}
	for range 8 {
		if err := ask(time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if got := front.accepted(); got != 4 {
		t.Errorf("%d connections, want 4", got)
	}
	front.freeze(2)
	failed := 0
	for range 8 {
		if ask(5*time.Second) != nil {
			failed++
		}
	}
	if failed != 2 {
		t.Errorf("%d of 8 requests failed, want the 2 on the dead connection", failed)
	}
}

// front passes connections on to a server, and can freeze one of them.
type front struct {
	listener net.Listener
	work     sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	frozen int // which one takes what is sent on it, and passes on nothing
}

func newFront(t *testing.T, server string) *front {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{listener: listener, frozen: -1}
	f.work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			i := len(f.conns)
			f.conns = append(f.conns, conn)
			f.mu.Unlock()
			f.work.Go(func() { f.pass(i, conn, server) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		f.mu.Lock()
		for _, conn := range f.conns {
			_ = conn.Close()
		}
		f.mu.Unlock()
		f.work.Wait()
	})
	return f
}

func (f *front) addr() string { return f.listener.Addr().String() }

func (f *front) accepted() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

func (f *front) freeze(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = i
}

// pass passes bytes on in both directions until either side ends.
func (f *front) pass(i int, conn net.Conn, server string) {
	defer conn.Close()
	other, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(conn, other)
		_ = conn.Close()
	})
	buf := make([]byte, 32<<10)
	for {
		n, err := conn.Read(buf)
		f.mu.Lock()
		frozen := f.frozen == i
		f.mu.Unlock()
		if !frozen {
			_, _ = other.Write(buf[:n])
		}
		if err != nil {
			break
		}
	}
	_ = other.Close()
	back.Wait()
}
