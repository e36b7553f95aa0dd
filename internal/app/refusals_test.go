package app_test

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

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
