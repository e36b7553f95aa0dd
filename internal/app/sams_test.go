package app_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

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
