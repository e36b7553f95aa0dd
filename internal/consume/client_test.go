package consume

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

const (
	topicName = "projects/p/topics/events"
	subName   = "projects/p/subscriptions/relay"
)

func newServer(t *testing.T) (*pubsubserver.Server, *Client) {
	t.Helper()
	s, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.CreateTopic(topicName); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateSubscription(subName, topicName); err != nil {
		t.Fatal(err)
	}
	return s, newClient(t, s, subName)
}

func newClient(t *testing.T, s *pubsubserver.Server, subscription string) *Client {
	t.Helper()
	c, err := NewClient(t.Context(), subscription,
		option.WithEndpoint(s.Addr()),
		option.WithoutAuthentication(),
		option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func publish(t *testing.T, s *pubsubserver.Server, n int) []string {
	t.Helper()
	messages := make([]*pubsubpb.PubsubMessage, n)
	for i := range messages {
		messages[i] = &pubsubpb.PubsubMessage{
			Data: fmt.Appendf(nil, "data %d", i), Attributes: map[string]string{"n": fmt.Sprint(i)}, OrderingKey: "key",
		}
	}
	ids, err := s.Publish(topicName, messages...)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// eventually polls for the effect of another process or goroutine.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func (r *rig) waitFor(fresh, again int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d messages, %d again", fresh, again), func() bool {
		f, a := r.box.counts()
		return f >= fresh && a >= again
	})
	if f, a := r.box.counts(); f != fresh || a != again {
		r.t.Errorf("%d messages, %d again", f, a)
	}
}

func TestReceiveFromServer(t *testing.T) {
	s, c := newServer(t)
	ids := publish(t, s, 6000)
	r := newRig(t, c, Options{})
	defer r.end()
	r.waitFor(6000, 0)

	byID := map[string]*Message{}
	for _, m := range r.box.all() {
		byID[m.ID] = m
	}
	for i, id := range ids {
		m := byID[id]
		if m == nil {
			t.Fatalf("message %d is missing", i)
		}
		if string(m.Data) != fmt.Sprintf("data %d", i) || !cmp.Equal(m.Attributes, map[string]string{"n": fmt.Sprint(i)}) ||
			m.OrderingKey != "key" || m.PublishTime.IsZero() || m.PublishTime.After(time.Now()) ||
			m.Size() < int64(len(m.Data)+len(m.ID)+len("key")) {
			t.Fatalf("message %d is %+v", i, m)
		}
	}

	// Nacked messages are redelivered at once, with a new ack id.
	r.Nack(r.box.all()[:1000])
	r.waitFor(7000, 0)
	s.ExpireLeases(subName)
	r.waitFor(7000, 6000)
	r.Ack(r.box.all())
	if err := r.flush(10 * time.Second); err != nil {
		t.Error(err)
	}
	if got := s.Stats(subName); got.Acked != 6000 || got.Leased+got.Backlog != 0 {
		t.Errorf("%+v", got)
	}
}

func TestServerFaults(t *testing.T) {
	t.Run("broken streams", func(t *testing.T) {
		s, c := newServer(t)
		r := newRig(t, c, Options{})
		defer r.end()
		for i := range 3 {
			eventually(t, "all streams are open", func() bool { return s.Streams(subName) == 4 })
			publish(t, s, 100)
			r.waitFor(100*(i+1), 0)
			s.BreakStreams(nil)
		}
		r.Ack(r.box.all())
		if err := r.flush(10 * time.Second); err != nil || s.Stats(subName).Acked != 300 {
			t.Errorf("%v, %+v", err, s.Stats(subName))
		}
	})
	t.Run("lost answers to acknowledgements", func(t *testing.T) {
		s, c := newServer(t)
		publish(t, s, 100)
		r := newRig(t, c, Options{})
		defer r.end()
		r.waitFor(100, 0)
		s.SetFault(func(method string, _ any) error {
			if method == "Acknowledge" {
				s.SetFault(nil)
				return pubsubserver.AfterServing(status.Error(codes.Unavailable, "lost"))
			}
			return nil
		})
		r.Ack(r.box.all())
		if err := r.flush(10 * time.Second); err != nil || s.Stats(subName).Acked != 100 {
			t.Errorf("%v, %+v", err, s.Stats(subName))
		}
	})
	t.Run("no such subscription", func(t *testing.T) {
		s, _ := newServer(t)
		r := NewReceiver(newClient(t, s, subName+"-other"), defaults(Options{
			Subscription: subName + "-other", Intervals: Intervals{Refused: 300 * time.Millisecond},
		}), nil)
		defer r.Close()
		err := r.Receive(t.Context())
		refused, ok := errors.AsType[*RefusedError](err)
		if !ok || status.Code(err) != codes.NotFound || refused.For < 300*time.Millisecond ||
			!strings.Contains(err.Error(), subName+"-other") || !strings.Contains(err.Error(), "NotFound") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a refusal of one stream that passes", func(t *testing.T) {
		s, c := newServer(t)
		r := newRig(t, c, Options{})
		defer r.end()
		for i, code := range []codes.Code{codes.NotFound, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.Unimplemented} {
			eventually(t, "all streams are open", func() bool { return s.Streams(subName) == 4 })
			s.BreakStreams(status.Error(code, "for a moment"))
			publish(t, s, 10)
			r.waitFor(10*(i+1), 0)
		}
	})
	t.Run("a lease out of range", func(t *testing.T) {
		_, c := newServer(t)
		// The reason must survive between opening and receiving.
		stream, err := c.Stream(t.Context(), Flow{Lease: time.Second, MaxEvents: 1, MaxBytes: 1})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v", err)
		}
	})
}

func TestServerFlow(t *testing.T) {
	s, c := newServer(t)
	publish(t, s, 5000)
	r := newRig(t, c, Options{MaxEvents: 400})
	defer r.end()
	settled := 0
	for settled < 5000 {
		eventually(t, "messages come", func() bool { n, _ := r.box.counts(); return n > settled })
		if leased := s.Stats(subName).Leased; leased > 2*400 {
			t.Fatalf("%d are leased", leased)
		}
		all := r.box.all()
		r.Ack(all[settled:])
		settled = len(all)
	}
	if err := r.flush(10 * time.Second); err != nil || s.Stats(subName).Redelivered != 0 {
		t.Errorf("%v, %+v", err, s.Stats(subName))
	}
}

func TestServerPull(t *testing.T) {
	s, c := newServer(t)
	var b inbox
	r := NewReceiver(c, defaults(Options{Intervals: Intervals{Pull: 300 * time.Millisecond}}), b.handle)
	defer r.Close()
	publish(t, s, 15)
	if n, err := r.PullOnce(t.Context(), 10); n != 10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if fresh, _ := b.counts(); fresh != 10 {
		t.Errorf("%d messages", fresh)
	}
	if n, err := r.PullOnce(t.Context(), 10); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	began := time.Now()
	if n, err := r.PullOnce(t.Context(), 10); n != 0 || err != nil {
		t.Errorf("an empty queue: %d, %v", n, err)
	}
	if took := time.Since(began); took < 300*time.Millisecond || took > 2*time.Second {
		t.Errorf("waited %v for messages to come", took)
	}
	s.SetFault(func(string, any) error { return status.Error(codes.Unavailable, "unavailable") })
	began = time.Now()
	if _, err := r.PullOnce(t.Context(), 10); status.Code(err) != codes.Unavailable || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %v; the caller has its own retries", err, time.Since(began))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.PullOnce(ctx, 10); err == nil {
		t.Error("no error after the end of its context")
	}
}

// TestCutAnywhere cuts each connection after a number of bytes, at any place of a response:
// no message is lost, and none is settled twice.
func TestCutAnywhere(t *testing.T) {
	s, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := errors.Join(s.CreateTopic(topicName), s.CreateSubscription(subName, topicName)); err != nil {
		t.Fatal(err)
	}
	var (
		mu   sync.Mutex // guards rng and cuts
		rng  = rand.New(rand.NewPCG(1, 2))
		cuts int
	)
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || cuts == 30 {
			return conn, err
		}
		cuts++
		return &cutting{Conn: conn, left: 1 + rng.IntN(600_000)}, nil
	}
	c, err := NewClient(t.Context(), subName,
		option.WithEndpoint(s.Addr()), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
		option.WithGRPCConnectionPool(4),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: time.Millisecond, Multiplier: 1, MaxDelay: time.Millisecond}, MinConnectTimeout: 5 * time.Second,
		})),
		option.WithGRPCDialOption(grpc.WithContextDialer(dial)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	messages := 0
	settled := map[string]int{}
	var r *Receiver
	r = NewReceiver(c, defaults(Options{Subscription: subName}), func(_ context.Context, fresh, _ []*Message) {
		mu.Lock()
		for _, m := range fresh {
			settled[m.ID]++
		}
		mu.Unlock()
		r.Ack(fresh)
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Receive(ctx) }()
	few := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return cuts < 20
	}
	for deadline := time.Now().Add(time.Minute); (few() || s.Stats(subName).Acked < messages) && time.Now().Before(deadline); {
		if few() {
			publish(t, s, 500)
			messages += 500
		}
		time.Sleep(100 * time.Millisecond)
		s.ExpireLeases(subName) // the messages of a cut response are leased for ten minutes
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	r.Close()
	if got := s.Stats(subName); got.Acked != messages || got.Leased+got.Backlog > 0 {
		t.Errorf("%+v", got)
	}
	if len(settled) != messages || cuts < 20 {
		t.Errorf("%d messages were received over %d connections that were cut", len(settled), cuts)
	}
}
