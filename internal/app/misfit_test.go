package app_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// TestMisfitIsAnOutage has another server than the gateway answer for some time in the
// middle of a run, as a proxy does while the gateway is being replaced.
func TestMisfitIsAnOutage(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var streams atomic.Int32
	h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
		if n := streams.Add(1); n > 1 && n <= 6 {
			return gatewayserver.Fault{Err: status.Error(codes.Unimplemented, "unexpected HTTP status code received from server: 404 (Not Found)")}
		}
		return gatewayserver.Fault{}
	})
	h.publish(numbered(20)...)
	s, err := h.run(t.Context())
	h.drained(s, err, 20, none{})
	h.once(20)
}

// TestMisfitAtStart requires that several wrong answers in a row, but not a single one,
// mean that the address is wrong.
func TestMisfitAtStart(t *testing.T) {
	misfit := status.Error(codes.Unimplemented, "unknown service")
	t.Run("gateway, for a moment", func(t *testing.T) {
		t.Parallel()
		h := newEnv(t)
		var streams atomic.Int32
		h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
			if streams.Add(1) <= 2 {
				return gatewayserver.Fault{Err: misfit}
			}
			return gatewayserver.Fault{}
		})
		h.publish(numbered(3)...)
		s, err := h.run(t.Context())
		h.drained(s, err, 3, none{})
	})
	t.Run("gateway, for good", func(t *testing.T) {
		t.Parallel()
		h := newEnv(t)
		h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault { return gatewayserver.Fault{Err: misfit} })
		s, err := h.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no Telemetry Gateway") || s.Ended != relay.Failed {
			t.Errorf("%s, %v", toJSON(s), err)
		}
	})
	page := func(h *env, limit int32) {
		var requests atomic.Int32
		h.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
			return http.StatusNotFound, "<html>no such page</html>", 0, requests.Add(1) <= limit
		})
	}
	t.Run("SAMS, for a moment", func(t *testing.T) {
		t.Parallel()
		h := newEnv(t)
		page(h, 2)
		h.publish(numbered(3)...)
		s, err := h.run(t.Context())
		h.drained(s, err, 3, none{})
	})
	t.Run("SAMS, for good", func(t *testing.T) {
		t.Parallel()
		h := newEnv(t)
		page(h, 1<<30)
		s, err := h.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "SAMS refuses to give a token (HTTP 404)") || s.Ended != relay.Failed {
			t.Errorf("%s, %v", toJSON(s), err)
		}
	})
}
