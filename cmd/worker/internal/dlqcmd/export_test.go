package dlqcmd

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// TestExportKeepsTheEvent: an export has everything of a dead-lettered message. An event
// that is published from its line has the id, the timestamp and the first rejection
// that a replay would give it.
func TestExportKeepsTheEvent(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for i := range 3 {
		h.put(deadLettered(i, goodData(i), "dlq_detail", "no", "dlq_services_digest", "0123456789ab"))
	}
	native := &pubsubpb.PubsubMessage{Data: []byte(goodData(3)), Attributes: map[string]string{
		"service_id": "sams", "CloudPubSubDeadLetterSourceDeliveryCount": "100", "CloudPubSubDeadLetterSourceTopicPublishTime": "2026-11-20T08:00:00Z",
	}}
	h.put(native)
	file := filepath.Join(t.TempDir(), "messages.ndjson")
	h.expect(0, "", "export", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		m, err := ndjson.Parse(bytes.TrimSpace(line))
		if err != nil || m.DeadLetter == nil {
			t.Fatalf("%v: %s", err, line)
		}
		a := m.DeadLetter.Attributes
		own := a["dlq_reason"] == "invalid_event" && a["dlq_detail"] == "no" && a["dlq_services_digest"] == "0123456789ab" && a["dlq_rejected_at"] != ""
		if !own && a["CloudPubSubDeadLetterSourceDeliveryCount"] != "100" || len(m.Attributes) != 1 {
			t.Errorf("%s", line)
		}
	}
	h.expect(0, "", "replay", "--yes", "--services-anyway")
	env := h.environment()
	env.Args, env.Stdout, env.Stderr = []string{"worker", "publish", file}, io.Discard, os.Stderr
	if status := run(t.Context(), env); status != 0 {
		t.Fatalf("status %d", status)
	}
	services, err := policy.NewSet(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	decoder := event.NewDecoder(services, "unknown")
	seen := map[string]int{}
	for _, m := range h.replayed(8) {
		e, rejection := decoder.Decode(event.Message{ID: m.GetMessageId(), PublishTime: m.GetPublishTime().AsTime(), Data: m.GetData(), Attributes: m.GetAttributes()})
		if rejection != nil {
			t.Fatal(rejection)
		}
		seen[fmt.Sprint(string(e.Wire), m.GetAttributes()["origin_rejected_at"])]++
	}
	if len(seen) != 4 {
		t.Errorf("%d events, want 4: an export and a replay give other events", len(seen))
	}
}
