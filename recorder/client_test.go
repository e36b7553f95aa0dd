package recorder

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"go.uber.org/goleak"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

const topic = "projects/p/topics/telemetry-events"

// patience bounds waits for what must happen.
const patience = 30 * time.Second

func newServer(t *testing.T, opts ...pstest.ServerReactorOption) (*pstest.Server, []option.ClientOption) {
	t.Helper()
	server := pstest.NewServer(opts...)
	t.Cleanup(func() { _ = server.Close() })
	if _, err := server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
	return server, plainText(server.Addr)
}

func plainText(addr string) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(addr), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestPublishes sends events through Google's client, and has the worker's decoder
// read what has arrived.
func TestPublishes(t *testing.T) {
	server, opts := newServer(t)
	r, err := New(t.Context(), Config{
		Service: Service{ID: "cody-gateway", Environment: "prod", Version: "2026.46.1"},
		Topic:   topic, ClientOptions: opts, Logger: quiet(),
	})
	if err != nil {
		t.Fatal(err)
	}
	const n = 1200
	for range n {
		if err := typical(tracedContext(), r); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	isStats(t, r, Stats{Published: n})
	messages := server.Messages()
	if len(messages) != n {
		t.Fatalf("%d messages", len(messages))
	}
	decoder := worker(t)
	ids := map[string]bool{}
	want := map[string]string{
		"schema_version": "1", "service_id": "cody-gateway", "service_environment": "prod", "service_version": "2026.46.1",
	}
	for _, m := range messages {
		if !maps.Equal(m.Attributes, want) {
			t.Fatalf("attributes %v", m.Attributes)
		}
		e, rejection := decoder.Decode(event.Message{ID: m.ID, PublishTime: m.PublishTime, Data: m.Data, Attributes: m.Attributes})
		if rejection != nil {
			t.Fatal(rejection)
		}
		ids[string(e.ID())] = true
	}
	if len(ids) != n {
		t.Errorf("%d ids", len(ids))
	}
}

// TestOwnPublisher uses a publisher of the caller's, which stays usable.
func TestOwnPublisher(t *testing.T) {
	server, opts := newServer(t)
	client, err := pubsub.NewClient(t.Context(), "p", opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	publisher := client.Publisher(topic)
	defer publisher.Stop()
	r, err := New(t.Context(), Config{Service: Service{ID: "sams"}, Publisher: publisher, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	record(t, r, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.Publish(ctx, &pubsub.Message{Data: []byte("mine")}).Get(ctx); err != nil {
		t.Error(err)
	}
	if got := len(server.Messages()); got != 2 {
		t.Errorf("%d messages", got)
	}
	if _, ok := server.Messages()[0].Attributes["service_environment"]; ok {
		t.Error("says an environment that nobody gave")
	}
}

// TestRefused has a topic that does not take the event: it fails, and nothing is
// tried again.
func TestRefused(t *testing.T) {
	_, opts := newServer(t, pstest.WithErrorInjection("Publish", codes.PermissionDenied, "no"))
	r, err := New(t.Context(), Config{Service: Service{ID: "sams"}, Topic: topic, ClientOptions: opts, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	record(t, r, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := errors.Join(r.Flush(ctx), r.Close(ctx)); err != nil {
		t.Error(err)
	}
	isStats(t, r, Stats{Failed: 1})
}

// TestPubSubComesBack starts without any Pub/Sub: events wait, and arrive when it
// is there.
func TestPubSubComesBack(t *testing.T) {
	var server atomic.Pointer[pstest.Server]
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		s := server.Load()
		if s == nil {
			return nil, errors.New("nobody is there")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
	}
	r, err := New(t.Context(), Config{
		Service: Service{ID: "sams"}, Topic: topic, BufferEvents: 10, Logger: quiet(),
		ClientOptions: append(plainText("passthrough:///pubsub"), option.WithGRPCDialOption(grpc.WithContextDialer(dial))),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		record(t, r, nil)
	}
	record(t, r, ErrDropped)
	later, _ := newServer(t)
	server.Store(later)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	isStats(t, r, Stats{Published: 10, Dropped: 1})
	ids := []string{}
	for _, m := range later.Messages() {
		ids = append(ids, string(m.Data))
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 10 {
		t.Errorf("%d different messages", len(ids))
	}
}

// TestCloseWithoutPubSub gives up in time, and leaves nothing running.
func TestCloseWithoutPubSub(t *testing.T) {
	r, err := New(t.Context(), Config{
		Service: Service{ID: "sams"}, Topic: topic, ClientOptions: plainText("127.0.0.1:1"), Logger: quiet(),
	})
	if err != nil {
		t.Fatal(err)
	}
	record(t, r, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := r.Close(ctx); !errors.Is(err, ErrUnconfirmed) {
		t.Error(err)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("took %v", took)
	}
	isStats(t, r, Stats{Failed: 1})
	if err := r.Close(t.Context()); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("again: %v", err)
	}
	for until := time.Now().Add(patience); ; {
		err := goleak.Find(forever)
		if err == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}
