package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const (
	viewID        = "telemetry-events-dlq-view"
	receiptsID    = "telemetry-receipts"
	receiptsSubID = "telemetry-receipts-oncall"
)

// TestReceiptsReachStatusAndTrace rejects events, replays them by a plan, and reads the
// receipts with status and trace.
func TestReceiptsReachStatusAndTrace(t *testing.T) {
	h := newEnv(t)
	vars := []string{"DLQ_VIEW_SUBSCRIPTION=" + viewID, "RECEIPTS_TOPIC=" + receiptsID, "RECEIPTS_SUBSCRIPTION=" + receiptsSubID}
	oncall := func(args ...string) result {
		return execute(t, h.environ(append(vars, "SAMS_CLIENT_ID=", "SAMS_CLIENT_SECRET=", "HOME="+t.TempDir())...), nil, args...)
	}
	// setup creates what is optional, and changes nothing a second time.
	oncall("setup").exits(0)
	contains(t, oncall("setup").exits(0).stdout, "nothing to change")

	const n = 20
	for i := range n {
		typo := "typo"
		if i == 0 {
			typo = "typp" // the expression does not correct this one
		}
		h.publish(message(fmt.Sprintf(`{"feature":"cody.chat","action":"sent","id":%q,%q:1}`, eventID(i), typo), "service_version", "1.85.0"))
	}
	h.publish(message(fmt.Sprintf(`{"feature":"cody.chat","action":"sent","id":%q}`, eventID(n))))
	worker := h.run(vars...).exits(0)
	for _, text := range []string{`"message":"Events of a fault were dead-lettered"`, `"count":19`, `"release":"1.85.0"`} {
		contains(t, worker.stderr, text)
	}

	looked := oncall("dlq", "stats", "--output", "json").exits(0)
	if strings.Contains(looked.stderr, "leased while") || !strings.HasPrefix(looked.stdout, `{"count":20,`) {
		t.Errorf("stats: %s%s", looked.stdout, looked.stderr)
	}
	trace := func(i int) (state, verdict string) {
		t.Helper()
		var a struct {
			State   string
			Replays []struct{ Verdict string }
		}
		h.must(json.Unmarshal([]byte(oncall("trace", "--output", "json", eventID(i)).exits(0).stdout), &a))
		if len(a.Replays) > 0 {
			verdict = a.Replays[0].Verdict
		}
		return a.State, verdict
	}
	if state, _ := trace(1); state != "in_queue" {
		t.Errorf("before the replay: %s", state)
	}
	oncall("dlq", "replay", "--yes", "--no-check", "--jq", "del(.typo)", "--output", "json").exits(0)
	h.run(vars...).exits(0)
	for i, want := range map[int][2]string{0: {"in_queue", "rejected"}, 1: {"recorded", "recorded"}, n - 1: {"recorded", "recorded"}, n: {"not_rejected", ""}} {
		if state, verdict := trace(i); state != want[0] || verdict != want[1] {
			t.Errorf("event %d: %s, verdict %q, want %q", i, state, verdict, want)
		}
	}
	// No trace has taken a receipt, and only replayed events have one.
	receipts := h.take(receiptsSubID, n)
	for _, m := range receipts {
		a := m.GetAttributes()
		if len(m.GetData()) > 0 || a["replay_id"] == "" || a["origin_message_id"] == "" || a["at"] == "" || a["services_digest"] == "" {
			t.Errorf("a receipt without its attributes: %v", m)
		}
	}
}
