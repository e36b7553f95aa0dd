package app_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// TestNeverAnswered has a dependency that never answers, from the start to the end of the
// run. That is an outage although no call has failed, and the log says so while it lasts.
func TestNeverAnswered(t *testing.T) {
	for _, c := range []struct {
		name     string
		hang     func(h *env)
		logged   string
		reported string
	}{
		{"SAMS", func(h *env) {
			h.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) { return 0, "", time.Hour, true })
		}, "SAMS has not answered yet", "before SAMS answered"},
		{"the gateway", func(h *env) {
			h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault { return gatewayserver.Fault{Hang: true} })
		}, "the gateway has not answered yet", "before the gateway answered"},
		{"Pub/Sub", func(h *env) {
			h.pubsub.SetFault(func(string, any) error { return pubsubserver.ErrHang })
		}, "Pub/Sub has not been reached yet", "before Pub/Sub could be reached"},
	} {
		for _, ended := range []relay.Ended{relay.Deadline, relay.Signal} {
			t.Run(c.name+" until the "+string(ended), func(t *testing.T) {
				t.Parallel()
				h := newEnv(t)
				c.hang(h)
				ctx, vars := t.Context(), []string{"WORKER_SHUTDOWN_TIMEOUT=1s"}
				if ended == relay.Deadline {
					vars = append(vars, "JOB_EXECUTION_DEADLINE=14s")
				} else {
					var cancel context.CancelFunc
					ctx, cancel = context.WithCancel(ctx)
					defer cancel()
					go func() { // until it is logged what has not answered
						for ctx.Err() == nil && !strings.Contains(h.log.String(), c.logged) {
							time.Sleep(10 * time.Millisecond)
						}
						cancel()
					}()
				}
				s, err := h.run(ctx, vars...)
				if err == nil || !strings.Contains(err.Error(), c.reported) || s.Ended != ended || s.Received != 0 {
					t.Errorf("%s, %v", toJSON(s), err)
				}
				if log := h.log.String(); strings.Count(log, c.logged) != 1 {
					t.Errorf("the log does not say once %q:\n%s", c.logged, log)
				}
			})
		}
	}
}
