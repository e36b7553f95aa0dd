package recorder

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
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
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

const topic = "projects/p/topics/telemetry-events"

// patience bounds the waits of the tests.
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

// TestEventsReachDecoder sends events through Google's client, and has the worker's decoder
// read what has arrived.
func TestEventsReachDecoder(t *testing.T) {
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

// TestOwnPublisher uses a publisher of the caller, which stays usable.
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

// TestRefusedEventIsNotRetried has a topic that refuses the event. The event fails without
// a retry, and Flush reports it once.
func TestRefusedEventIsNotRetried(t *testing.T) {
	_, opts := newServer(t, pstest.WithErrorInjection("Publish", codes.InvalidArgument, "no"))
	r, err := New(t.Context(), Config{Service: Service{ID: "sams"}, Topic: topic, ClientOptions: opts, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	record(t, r, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = r.Flush(ctx)
	if !errors.Is(err, ErrFailed) || status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), ": 1; the last one: ") {
		t.Errorf("%v", err)
	}
	if err := r.Flush(ctx); err != nil {
		t.Errorf("again: %v", err)
	}
	record(t, r, nil)
	if err := r.Close(ctx); !errors.Is(err, ErrFailed) || errors.Is(err, ErrUnconfirmed) || status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
	s := r.Stats()
	if s.Failed != 2 || s.BufferedBytes != 0 || s.PublishedBytes != 0 {
		t.Errorf("%+v", s)
	}
}

// refusing refuses to publish with each of the codes once.
type refusing struct {
	mu    sync.Mutex
	codes []codes.Code
}

func (r *refusing) React(any) (handled bool, ret any, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.codes) == 0 {
		return false, nil, nil
	}
	code := r.codes[0]
	r.codes = r.codes[1:]
	return true, nil, status.Error(code, "not yet")
}

// TestRefusalPasses has a topic or a permission that is created after the service has
// started, and a token that is renewed.
func TestRefusalPasses(t *testing.T) {
	reactor := &refusing{codes: []codes.Code{codes.NotFound, codes.PermissionDenied, codes.Unauthenticated, codes.Unavailable}}
	server, opts := newServer(t, pstest.ServerReactorOption{FuncName: "Publish", Reactor: reactor})
	r, err := New(t.Context(), Config{Service: Service{ID: "sams"}, Topic: topic, ClientOptions: opts, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	record(t, r, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	m := server.Messages()[0]
	size := len(m.Data)
	for name, value := range m.Attributes {
		size += len(name) + len(value)
	}
	isStats(t, r, Stats{Published: 1, PublishedBytes: uint64(size)})
}

// TestTimeoutNamesLastError requires that an error for lack of time names the error of the
// last try.
func TestTimeoutNamesLastError(t *testing.T) {
	_, refuses := newServer(t, pstest.WithErrorInjection("Publish", codes.PermissionDenied, "User not authorized"))
	for _, c := range []struct {
		opts []option.ClientOption
		code codes.Code
		want string
	}{
		{plainText("127.0.0.1:1"), codes.Unavailable, "127.0.0.1:1: connect: connection refused"},
		{refuses, codes.PermissionDenied, "User not authorized"},
	} {
		var log bytes.Buffer
		cfg := Config{
			Service: Service{ID: "sams"}, Topic: topic, ClientOptions: c.opts, RetryFor: 500 * time.Millisecond,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}
		r, err := New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		record(t, r, nil)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err = r.Flush(ctx)
		if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), c.want) || status.Code(err) != c.code && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush: %v", err)
		}
		if err := r.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		cancel()
		if text := log.String(); !strings.Contains(text, c.want) || !strings.Contains(text, "topic="+topic) {
			t.Errorf("the log: %s", text)
		}
		// Close gives the event up, with the same cause.
		cfg.RetryFor = patience
		if r, err = New(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		record(t, r, nil)
		ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
		if err := r.Close(ctx); !errors.Is(err, ErrUnconfirmed) || errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Close: %v", err)
		}
		cancel()
	}
}

// TestPubSubComesBack starts without Pub/Sub. Events wait, and arrive once it is available.
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
