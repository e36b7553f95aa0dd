package app_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

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
