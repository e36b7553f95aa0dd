package app_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// TestDrainWithoutAnswersToPulls requires that a drain at its deadline without an answer to
// its pulls counts as one without proof. It is a success, because it has relayed all events
// that it received.
func TestDrainWithoutAnswersToPulls(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	h.pubsub.SetFault(func(method string, _ any) error {
		if method == "Pull" {
			return status.Error(codes.Unavailable, "down")
		}
		return nil
	})
	h.publish(numbered(10)...)
	// A pull without an answer in time is an empty one, and the machine may be busy.
	summary, err := h.runWith(t.Context(), consume.Intervals{Pull: 3 * time.Second}, "JOB_EXECUTION_DEADLINE=17s", "WORKER_SHUTDOWN_TIMEOUT=2s") // 10 s to receive
	if err != nil || summary.Ended != relay.Deadline || summary.Submitted != 10 {
		t.Errorf("got %s, %v", toJSON(summary), err)
	}
	for _, want := range []string{"could not prove that the subscription is empty", `"pull_error":`} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("the log has no %s", want)
		}
	}
}
