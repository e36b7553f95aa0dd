package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// drained checks the usual good end of a drain.
func (h *env) drained(s relay.Summary, err error, submitted int, rejected map[event.Reason]int) {
	h.t.Helper()
	if err != nil {
		h.t.Error(err)
	}
	if s.Ended != relay.Drained || s.Submitted != submitted || toJSON(s.Rejected) != toJSON(rejected) || s.Released != 0 {
		h.t.Errorf("got %s, want %d submitted and rejected %s", toJSON(s), submitted, toJSON(rejected))
	}
	h.empty()
	reasons := map[event.Reason]int{}
	for _, m := range h.deadLetters() {
		reasons[event.Reason(m.GetAttributes()["dlq_reason"])]++
	}
	if toJSON(reasons) != toJSON(rejected) {
		h.t.Errorf("dead letters: %s, want %s", toJSON(reasons), toJSON(rejected))
	}
}

type none = map[event.Reason]int

func TestDeadLetterTopicDeleted(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var down atomic.Bool
	down.Store(true)
	h.pubsub.SetFault(func(method string, _ any) error {
		if method == "Publish" && down.Load() {
			return status.Error(codes.Unavailable, "down")
		}
		return nil
	})
	h.publish(message(`[]`), message(`{"feature":"x","action":"y"}`))
	h.publish(numbered(10)...)
	go func() {
		for len(h.gateway.Recorded()) < 10 {
			time.Sleep(10 * time.Millisecond) // poll: the healthy ones flow on
		}
		time.Sleep(time.Second)
		down.Store(false)
	}()
	s, err := h.run(t.Context())
	h.drained(s, err, 10, none{event.MalformedPayload: 1, event.InvalidEvent: 1})
}

func TestLeaseLost(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var once atomic.Bool
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		if once.CompareAndSwap(false, true) {
			h.pubsub.ExpireLeases(subName) // everything is delivered again
			return gatewayserver.Fault{Delay: 300 * time.Millisecond}
		}
		return gatewayserver.Fault{}
	})
	h.publish(numbered(50)...)
	s, err := h.run(t.Context())
	h.drained(s, err, 50, none{})
	h.once(50)
	if s.Duplicates == 0 || s.Received != 50+s.Duplicates {
		t.Errorf("got %s", toJSON(s))
	}
}

func TestSignalFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		cancel()
		return gatewayserver.Fault{Delay: 300 * time.Millisecond}
	})
	h.publish(numbered(100)...)
	s, err := h.run(ctx, "WORKER_MODE=continuous", "WORKER_BATCH_MAX_EVENTS=10", "WORKER_SUBMIT_CONCURRENCY=2")
	if err != nil || s.Ended != relay.Signal || s.Submitted == 0 {
		t.Errorf("got %s, %v", toJSON(s), err)
	}
	if got := len(h.pubsub.Messages(subName)); got != 100-s.Submitted {
		t.Errorf("%d messages in the subscription, want %d", got, 100-s.Submitted)
	}
	if leased := h.pubsub.Stats(subName).Leased; leased > 0 && s.Released > 0 {
		// Messages in the connection's buffers expire; the received ones are released.
		t.Logf("%d messages are still leased", leased)
	}
}

func TestNoisyPublisherHoldsUpNobody(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		return gatewayserver.Fault{Delay: 50 * time.Millisecond}
	})
	const noisy, quiet = 3000, 20
	h.publish(numbered(noisy)...)
	for i := range quiet {
		h.publish(message(fmt.Sprintf(`{"feature":"sams.user","action":"created","id":%q}`, eventID(noisy+i)),
			"service_environment", fmt.Sprintf("env-%d", i)))
	}
	s, err := h.run(t.Context(), "WORKER_BATCH_MAX_EVENTS=50", "WORKER_SUBMIT_CONCURRENCY=2")
	h.drained(s, err, noisy+quiet, none{})
	// The noisy publisher needs some 60 streams, one after another. The others need 20,
	// concurrently and in turn with it.
	before := 0
	for at, r := range h.gateway.Recorded() {
		if r.Environment != "test" {
			before = at
		}
	}
	if before > noisy/2+quiet {
		t.Errorf("a quiet publisher's event was recorded only after %d others", before)
	}
}

func TestSubscriptionDeletedMidway(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	client, err := pubsub.NewSubscriptionAdminClient(t.Context(), app.PubSubOptions(h.config())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.check(client.Close()) })
	var once sync.Once
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		once.Do(func() {
			h.check(client.DeleteSubscription(context.Background(), &pubsubpb.DeleteSubscriptionRequest{Subscription: subName}))
		})
		return gatewayserver.Fault{}
	})
	h.publish(numbered(10)...)
	s, err := h.run(t.Context(), "WORKER_MODE=continuous", "WORKER_SHUTDOWN_TIMEOUT=1s")
	if err == nil || !strings.Contains(err.Error(), "PUBSUB_SUBSCRIPTION") || s.Ended != relay.Failed {
		t.Errorf("got %s, %v", toJSON(s), err)
	}
}

// TestPanicLetsMessageExpire breaks the processing of one message. The others are relayed,
// and it is redelivered when its lease ends.
func TestPanicLetsMessageExpire(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	ids := h.publish(numbered(10)...)
	cfg := h.config()
	decoder := event.NewDecoder(cfg.Services, cfg.Environment)
	client, err := consume.NewClient(t.Context(), subName, app.PubSubOptions(cfg)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.check(client.Close()) })
	tokens := submit.NewTokens(submit.TokenOptions{URL: cfg.TokenURL(), ClientID: h.sams.ClientID(), ClientSecret: h.sams.ClientSecret()})
	t.Cleanup(tokens.Close)
	gateway, err := submit.NewClient(submit.Options{URL: h.gateway.URL(), Timeout: 5 * time.Second, Tokens: tokens, Self: event.Publisher{ServiceID: app.ServiceID, Environment: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.check(gateway.Close()) })
	r := relay.New(client, gateway, nil, relay.Options{
		Batch:   batch.Limits{Events: 100, Bytes: 1 << 20},
		Streams: 2, RejectAfter: 3,
		Consume: consume.Options{MaxEvents: 100, MaxBytes: 1 << 20},
		Drain:   true, DrainIdle: 300 * time.Millisecond, ShutdownTimeout: time.Second,
		Services: cfg.Services, Environment: cfg.Environment,
		Decode: func(buf []byte, m event.Message) (event.Event, []byte, *event.Rejection) {
			if m.ID == ids[4] {
				panic("private words")
			}
			return decoder.DecodeInto(buf, m)
		},
		Metrics: metrics.New(), Logger: slog.New(slog.NewJSONHandler(&h.log, nil)),
	})
	s, err := r.Run(t.Context())
	if err != nil || s.Ended != relay.Drained || s.Submitted != 9 || s.Released != 1 || !s.Balanced(0) {
		t.Errorf("got %s, %v", toJSON(s), err)
	}
	h.once(10, 4)
	if st := h.pubsub.Stats(subName); st.Leased != 1 {
		t.Errorf("%d messages are leased, want the one that is left to expire", st.Leased)
	}
	if log := h.log.String(); !strings.Contains(log, "fault_test.go") || strings.Contains(log, "private words") {
		t.Errorf("the log should have the stack, and not the value:\n%s", log)
	}
}

// TestNoDelayOneStream has the tightest settings, and an outage. The worker must not stall.
func TestNoDelayOneStream(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var streams atomic.Int32
	h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
		if n := streams.Add(1); n > 3 && n < 9 {
			return gatewayserver.Fault{Err: status.Error(codes.Unavailable, "down")}
		}
		return gatewayserver.Fault{}
	})
	h.publish(numbered(300)...)
	s, err := h.run(t.Context(), "WORKER_BATCH_MAX_DELAY=0s", "WORKER_SUBMIT_CONCURRENCY=1", "WORKER_BATCH_MAX_EVENTS=1",
		"WORKER_MAX_OUTSTANDING_EVENTS=1", "WORKER_MAX_OUTSTANDING_BYTES=3MiB")
	h.drained(s, err, 300, none{})
	h.once(300)
}

// TestFullWorkerSubmitsPartialBatches has so many publishers that the bound on events in
// flight is reached before any batch is full. Waiting for more events would stall.
func TestFullWorkerSubmitsPartialBatches(t *testing.T) {
	t.Parallel()
	const events, limit = 2000, 400
	h := newEnv(t)
	messages := numbered(events)
	for i, m := range messages {
		m.Attributes["service_environment"] = fmt.Sprintf("env-%d", i%20)
	}
	h.publish(messages...)
	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		defer cancel()
		for len(h.recordedIDs()) < events-limit && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
	})
	s, err := h.run(ctx, "WORKER_MODE=continuous", "WORKER_BATCH_MAX_DELAY=5m", "WORKER_BATCH_MAX_EVENTS=200",
		"WORKER_MAX_OUTSTANDING_EVENTS="+strconv.Itoa(limit))
	cancel()
	watch.Wait()
	if err != nil || s.Submitted < events-limit {
		t.Errorf("%v, %s", err, toJSON(s))
	}
}
