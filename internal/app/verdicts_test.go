package app_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// TestFaultsInLog: a run leaves a line for each fault in its log, also if it ends within a
// minute.
func TestFaultsInLog(t *testing.T) {
	h := newEnv(t)
	const detail = "user.userId: expected an integer, got a string"
	bad := func(i int, release string) string {
		return h.publish(message(`{"feature":"cody.chat","action":"sent","id":"`+eventID(i)+`","user":{"userId":"4711"},"privateMetadata":{"secret":"hush"}}`, "service_version", release))[0]
	}
	first := bad(0, "1.85.0")
	bad(1, "1.85.1")
	h.publish(message(`{`), message(`{"feature":"cody.chat","action":"sent"}`))
	s, err := h.run(t.Context())
	h.drained(s, err, 1, map[event.Reason]int{event.InvalidEvent: 2, event.MalformedPayload: 1})

	type line struct {
		Message   string `json:"msg"`
		Fault     string `json:"fault"`
		Count     int    `json:"count"`
		Detail    string `json:"detail"`
		EventID   string `json:"event_id"`
		MessageID string `json:"message_id"`
		Release   string `json:"release"`
	}
	found := map[string]line{}
	for text := range strings.Lines(h.log.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err == nil && l.Fault != "" {
			if _, twice := found[l.Fault]; twice {
				t.Errorf("two lines of %s", l.Fault)
			}
			found[l.Fault] = l
		}
	}
	id := fault.Of("invalid_event", "cody-gateway", detail).ID()
	got := found[id]
	// Which of the two came first depends on Pub/Sub's order.
	if got.MessageID != first {
		got.EventID, got.MessageID, got.Release = eventID(0), first, "1.85.0"
	}
	want := line{"Events of a fault were dead-lettered", id, 2, detail, eventID(0), first, "1.85.0"}
	if diff := cmp.Diff(want, got); diff != "" || len(found) != 2 {
		t.Errorf("%d faults, one of them (-want +got):\n%s", len(found), diff)
	}
	if strings.Contains(h.log.String(), "hush") {
		t.Error("the log contains private metadata")
	}
}
