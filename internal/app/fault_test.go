package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
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

func has(events []*gatewayserver.Event, i int) bool {
	for _, e := range events {
		if e.GetId() == eventID(i) {
			return true
		}
	}
	return false
}

func TestPassingFailures(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unknown, codes.DeadlineExceeded} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			h := newEnv(t)
			var failures atomic.Int32
			h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
				if failures.Add(1) <= 7 {
					return gatewayserver.Fault{Err: status.Error(code, "passing")}
				}
				return gatewayserver.Fault{}
			})
			h.publish(numbered(50)...)
			s, err := h.run(t.Context())
			h.drained(s, err, 50, none{})
			h.once(50)
		})
	}
}

func TestStreamCutAfterResponse(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var cuts atomic.Int32
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		if len(events) > 1 && cuts.Add(1) == 1 {
			var half []string
			for _, e := range events[:len(events)/2] {
				half = append(half, e.GetId())
			}
			return gatewayserver.Fault{Omit: half, Err: status.Error(codes.Unavailable, "cut"), Phase: gatewayserver.AfterResponding}
		}
		return gatewayserver.Fault{}
	})
	h.publish(numbered(40)...)
	s, err := h.run(t.Context(), "WORKER_REJECT_AFTER=1")
	// Only one submission is allowed, so an omission that counted would dead-letter the
	// event.
	h.drained(s, err, 40, none{})
	h.once(40)
}

func TestGatewayDownAtStart(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	h.gateway.SetDown(true)
	h.publish(numbered(10)...)
	go func() {
		time.Sleep(1500 * time.Millisecond) // how long it is down
		if n := h.pubsub.Stats(subName).Delivered; n != 0 {
			h.t.Errorf("%d messages were pulled before the gateway was there", n)
		}
		h.gateway.SetDown(false)
	}()
	s, err := h.run(t.Context())
	h.drained(s, err, 10, none{})
	h.once(10)
}

func TestPoisonByPassingCode(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		if has(events, 13) {
			return gatewayserver.Fault{Err: status.Error(codes.Internal, "cannot decode")}
		}
		return gatewayserver.Fault{}
	})
	h.publish(numbered(64)...)
	s, err := h.run(t.Context())
	h.drained(s, err, 63, none{event.GatewayRefused: 1})
	h.once(64, 13)
}

// TestLeftOut has an event that Pub/Sub refuses, in a real gateway's bundles, where its
// neighbours are left out with it. TestKnownGatewayFailures of test/sim has the times.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	for _, n := range []int{20, 150} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			h := newEnv(t)
			h.gateway.SetLose(func(ids []string) bool { return slices.Contains(ids, eventID(3)) })
			h.publish(numbered(n)...)
			s, err := h.run(t.Context(), "WORKER_REJECT_AFTER=3")
			h.drained(s, err, n-1, none{event.GatewayRejected: 1})
			h.once(n, 3)
			if got, err := strconv.Atoi(h.deadLetters()[0].GetAttributes()["dlq_attempts"]); err != nil || got < 3 {
				t.Errorf("dlq_attempts = %d, %v, want 3 at least", got, err)
			}
		})
	}
}

// TestLargeEvent has events beyond the size of a batch. Each is a batch of its own.
func TestLargeEvent(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	alone := true
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		for _, e := range events {
			alone = alone && (len(events) == 1 || e.GetParameters().GetPrivateMetadata() == nil)
		}
		return gatewayserver.Fault{}
	})
	h.publish(numbered(5)...)
	for i, size := range []int{5_000_000, 9_000_000} {
		h.publish(message(fmt.Sprintf(`{"feature":"cody.chat","action":"sent","id":%q,"privateMetadata":{"text":%q}}`, eventID(5+i), strings.Repeat("x", size))))
	}
	s, err := h.run(t.Context())
	h.drained(s, err, 7, none{})
	h.once(7)
	if !alone {
		t.Error("a large event shared its payload")
	}
}

func TestNothingRecorded(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var answers atomic.Int32
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		return gatewayserver.Fault{OmitAll: answers.Add(1) <= 6}
	})
	h.publish(numbered(100)...)
	s, err := h.run(t.Context(), "WORKER_REJECT_AFTER=1", "WORKER_BATCH_MAX_EVENTS=10")
	h.drained(s, err, 100, none{})
	h.once(100)
}

func TestHangingStreamHoldsUpNobody(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	others := make(chan struct{}) // closed when the other publisher's events are recorded
	var late atomic.Bool
	h.gateway.SetOnPayload(func(info gatewayserver.StreamInfo, _ []*gatewayserver.Event) gatewayserver.Fault {
		if info.Identity.ServiceID == "sams" {
			select {
			case <-others:
			case <-time.After(time.Minute):
				late.Store(true)
			}
		}
		return gatewayserver.Fault{}
	})
	h.publish(numbered(30)...)
	for i := range 30 {
		h.publish(message(fmt.Sprintf(`{"feature":"sams.user","action":"created","id":%q}`, eventID(100+i)), "service_id", "sams"))
	}
	go func() {
		defer close(others)
		for len(h.gateway.Recorded()) < 30 && t.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond) // poll
		}
	}()
	s, err := h.run(t.Context(), "WORKER_SUBMIT_TIMEOUT=90s")
	h.drained(s, err, 60, none{})
	if late.Load() {
		t.Error("the other publisher's events waited for the streams that hang")
	}
}

func TestRevokedToken(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var streams atomic.Int32
	h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
		if streams.Add(1) == 3 {
			h.sams.RevokeAll()
		}
		return gatewayserver.Fault{}
	})
	h.publish(numbered(100)...)
	s, err := h.run(t.Context(), "WORKER_BATCH_MAX_EVENTS=5")
	h.drained(s, err, 100, none{})
	h.once(100)
}

func TestCredentialsRefusedIsAnOutage(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.PermissionDenied, codes.Unauthenticated} {
		h := newEnv(t)
		var refuse atomic.Bool
		h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
			if refuse.Load() {
				return gatewayserver.Fault{Err: status.Error(code, "no")}
			}
			return gatewayserver.Fault{}
		})
		h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
			refuse.Store(true)
			return gatewayserver.Fault{}
		})
		h.publish(numbered(20)...)
		s, err := h.run(t.Context(), "WORKER_BATCH_MAX_EVENTS=10", "WORKER_SUBMIT_CONCURRENCY=1", "JOB_EXECUTION_DEADLINE=16s", "WORKER_SHUTDOWN_TIMEOUT=1s")
		if err == nil || s.Ended != relay.Deadline || s.AllRejected() != 0 || s.Submitted == 0 || s.Submitted+s.Released != s.Received {
			t.Errorf("got %s, %v", toJSON(s), err)
		}
		if !strings.Contains(h.log.String(), `"level":"ERROR","msg":"Not delivering","why":"the worker's credentials are refused"`) {
			t.Error("it was not loud")
		}
	}
}

func TestWrongClientAtStart(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	h.publish(numbered(3)...)
	s, err := h.run(t.Context(), "SAMS_CLIENT_SECRET=very-wrong-secret")
	if err == nil || !strings.Contains(err.Error(), "SAMS refuses the client") || s.Ended != relay.Failed || s.Received != 0 {
		t.Errorf("got %s, %v", toJSON(s), err)
	}
	if strings.Contains(h.log.String()+err.Error(), "very-wrong") {
		t.Error("the secret is shown")
	}
}

func TestRefusalsAreAttributed(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange} {
		t.Run("an event "+code.String(), func(t *testing.T) {
			t.Parallel()
			h := newEnv(t)
			h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
				if has(events, 7) || has(events, 21) {
					return gatewayserver.Fault{Err: status.Error(code, "no")}
				}
				return gatewayserver.Fault{}
			})
			h.publish(numbered(32)...)
			s, err := h.run(t.Context())
			h.drained(s, err, 30, none{event.GatewayRefused: 2})
			h.once(32, 7, 21)
		})
	}
	t.Run("an identity", func(t *testing.T) {
		t.Parallel()
		h := newEnv(t)
		h.gateway.SetOnStream(func(info gatewayserver.StreamInfo) gatewayserver.Fault {
			if info.Identity.ServiceID == "sams" {
				return gatewayserver.Fault{Err: status.Error(codes.InvalidArgument, "no")}
			}
			return gatewayserver.Fault{}
		})
		h.publish(numbered(10)...)
		h.publish(message(`{"feature":"sams.user","action":"created"}`, "service_id", "sams"))
		s, err := h.run(t.Context())
		h.drained(s, err, 10, none{event.GatewayRefused: 1})
	})
	t.Run("every identity for a while, after others were recorded", func(t *testing.T) {
		t.Parallel()
		h := newEnv(t)
		var since atomic.Int64 // Unix nanoseconds; 0: it has not begun
		h.gateway.SetOnStream(func(info gatewayserver.StreamInfo) gatewayserver.Fault {
			if info.Identity.ServiceID == "sams" && since.Load() == 0 {
				for len(h.gateway.Recorded()) < 10 {
					time.Sleep(10 * time.Millisecond) // poll: the others are recorded before
				}
				since.Store(time.Now().UnixNano())
			}
			if began := since.Load(); began > 0 && time.Since(time.Unix(0, began)) < time.Second {
				return gatewayserver.Fault{Err: status.Error(codes.InvalidArgument, "no")}
			}
			return gatewayserver.Fault{}
		})
		h.publish(numbered(10)...)
		h.publish(message(`{"feature":"sams.user","action":"created"}`, "service_id", "sams"))
		s, err := h.run(t.Context())
		h.drained(s, err, 11, none{})
	})
	t.Run("streams at random, for a while", func(t *testing.T) {
		t.Parallel()
		h := newEnv(t)
		var began atomic.Int64 // Unix nanoseconds; 0: it has not begun
		h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
			if len(h.gateway.Recorded()) == 0 {
				return gatewayserver.Fault{}
			}
			began.CompareAndSwap(0, time.Now().UnixNano())
			if time.Since(time.Unix(0, began.Load())) < 5*time.Second && rand.IntN(3) == 0 {
				return gatewayserver.Fault{Err: status.Error(codes.InvalidArgument, "one of three instances refuses all")}
			}
			return gatewayserver.Fault{}
		})
		h.publish(numbered(400)...)
		s, err := h.run(t.Context(), "WORKER_BATCH_MAX_EVENTS=5", "WORKER_SUBMIT_CONCURRENCY=4")
		h.drained(s, err, 400, none{})
	})
	for _, code := range []codes.Code{codes.InvalidArgument, codes.Unimplemented} {
		t.Run("everything "+code.String(), func(t *testing.T) {
			t.Parallel()
			h := newEnv(t)
			var streams atomic.Int32
			h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
				if streams.Add(1) > 1 { // the probe at the start passes
					return gatewayserver.Fault{Err: status.Error(code, "no")}
				}
				return gatewayserver.Fault{}
			})
			h.publish(numbered(10)...)
			// The gateway answered before in this run, so this is an outage.
			s, err := h.run(t.Context(), "WORKER_SHUTDOWN_TIMEOUT=1s", "JOB_EXECUTION_DEADLINE=16s")
			if err == nil || s.Ended != relay.Deadline || s.Submitted != 0 || s.AllRejected() != 0 || s.Released != s.Received {
				t.Errorf("got %s, %v", toJSON(s), err)
			}
			if got := len(h.pubsub.Messages(subName)); got != 10 {
				t.Errorf("%d messages in the subscription, want 10", got)
			}
		})
	}
}

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

func TestHangingGatewayAtStop(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		cancel()
		return gatewayserver.Fault{Hang: true}
	})
	h.publish(numbered(10)...)
	began := time.Now()
	s, err := h.run(ctx, "WORKER_MODE=continuous", "WORKER_SHUTDOWN_TIMEOUT=2s")
	if err == nil || s.Ended != relay.Signal || s.Released != 10 {
		t.Errorf("got %s, %v", toJSON(s), err)
	}
	if took := time.Since(began); took > 20*time.Second { // a submission may take 30 s
		t.Errorf("it took %v to stop", took)
	}
	if st := h.pubsub.Stats(subName); st.Leased != 0 {
		t.Errorf("%d messages are not released", st.Leased)
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
