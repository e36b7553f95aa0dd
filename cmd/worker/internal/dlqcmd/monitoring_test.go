package dlqcmd

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
)

// statsCounted runs stats with a Cloud Monitoring that has counted so many messages; a
// negative number means that it refuses.
func (h *testQueue) statsCounted(counted int, args ...string) dlqResult {
	h.t.Helper()
	monitoring := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if counted < 0 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"timeSeries":[{"points":[{"interval":{"endTime":"2026-11-27T10:04:00Z"},"value":{"int64Value":"%d"}}]}]}`, counted)
	}))
	defer monitoring.Close()
	options := testOptions
	options.MonitoringEndpoint = monitoring.URL
	env := h.environment(append([]string{"stats"}, args...)...)
	var stdout, stderr strings.Builder
	env.Stdout, env.Stderr = &stdout, &stderr
	status := command.Main(h.t.Context(), env, func(env command.Env) *cli.Command {
		return &cli.Command{Name: "worker", Commands: []*cli.Command{New(env, options)}, Writer: env.Stdout, ErrWriter: env.Stderr}
	})
	return dlqResult{status, stdout.String(), stderr.String()}
}

// TestStatsReportsLeasedMessages: while another reader has leased a part of the queue,
// stats says that its count is too low, and how many messages Cloud Monitoring has counted.
func TestStatsReportsLeasedMessages(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for i := range 20 {
		h.put(deadLettered(i, goodData(i)))
	}
	release := h.lease(15)
	const rest = "Cloud Monitoring counted 20 messages in the queue at 2026-11-27T10:04:00Z, and 5 came: another process has leased the rest, or removed it since"
	const unknown = "whether another process has leased more messages is not known: "
	for _, c := range []struct {
		name           string
		counted        int
		args           []string
		stdout, stderr string
	}{
		{"counted", 20, nil, "\nat least 5 messages from ", rest},
		{"counted, as JSON", 20, []string{"--output", "json"}, `"count_at_least":true}`, rest},
		{"counted, with a filter", 20, []string{"--reason", "oversized"}, "no dead-lettered messages that are free to read\n", rest},
		{"refused", -1, nil, "\nat least 5 messages from ", unknown + "Cloud Monitoring cannot be asked: you may not read Cloud Monitoring; expected roles/monitoring.viewer"},
	} {
		if got := h.statsCounted(c.counted, c.args...); got.status != 0 || !strings.Contains(got.stdout, c.stdout) || !strings.Contains(got.stderr, c.stderr) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if got := h.expect(0, "", "stats"); !strings.Contains(got.stdout, "\nat least 5 messages from ") || !strings.Contains(got.stderr, unknown+"an emulator has no Cloud Monitoring") {
		t.Errorf("an emulator: %+v", got)
	}
	release()
	// No other reader: a count that is older than the newest messages is no contradiction.
	for _, counted := range []int{20, 3} {
		if got := h.statsCounted(counted); !strings.Contains(got.stdout, "\n20 messages from ") || got.stderr != "" {
			t.Errorf("alone, %d counted: %+v", counted, got)
		}
	}
	h.left(20)
}
