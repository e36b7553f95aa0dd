package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

const sampleFile = "../../internal/devstack/sample/events.ndjson"

// line writes a message in the form of `worker publish`.
func line(t *testing.T, m *pubsubpb.PubsubMessage) []byte {
	t.Helper()
	content := map[string]any{}
	if len(m.GetAttributes()) > 0 {
		content["attributes"] = m.GetAttributes()
	}
	if len(m.GetData()) > 0 {
		content["dataBase64"] = m.GetData()
	}
	if m.GetOrderingKey() != "" {
		content["orderingKey"] = m.GetOrderingKey()
	}
	b, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// fingerprint has the parts of a message that the publisher decides.
func fingerprint(m *pubsubpb.PubsubMessage) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m.GetAttributes())) {
		fmt.Fprintf(&b, "%q=%q ", key, m.GetAttributes()[key])
	}
	fmt.Fprintf(&b, "%q %s", m.GetOrderingKey(), m.GetData())
	return b.String()
}

// TestSampleEventsAreRelayed relays all sample events, every unusual valid event and every
// kind of invalid one in one run, and compares all results.
func TestSampleEventsAreRelayed(t *testing.T) {
	h := newEnv(t)

	// The published messages by their content.
	var valid []*pubsubpb.PubsubMessage
	content, err := os.ReadFile(sampleFile)
	h.must(err)
	for text := range bytes.Lines(content) {
		var sample struct {
			Attributes map[string]string
			Data       json.RawMessage
		}
		h.must(json.Unmarshal(text, &sample))
		valid = append(valid, &pubsubpb.PubsubMessage{Data: sample.Data, Attributes: sample.Attributes})
	}
	samples := len(valid)
	if samples != 2000 {
		t.Fatalf("%d sample events, want 2000", samples)
	}
	valid = append(valid, oddities()...)
	rejects := rejects()
	var lines []byte
	for _, m := range valid[samples:] {
		lines = append(lines, line(t, m)...)
	}
	known := map[string]*reject{}
	for i, r := range rejects {
		lines = append(lines, line(t, r.message)...)
		if f := fingerprint(r.message); known[f] != nil {
			t.Fatalf("%s: the same message as %s", r.name, known[f].name)
		} else {
			known[f] = &rejects[i]
		}
	}

	published := execute(t, h.environ(), nil, "publish", sampleFile).exits(0)
	contains(t, published.stdout, "2000")
	execute(t, h.environ(), bytes.NewReader(lines), "publish", "--as-is").exits(0)

	// Pub/Sub has exactly these messages.
	ledger := h.ledger(len(valid) + len(rejects))
	want := map[string]int{}
	for _, m := range valid {
		want[fingerprint(m)]++
	}
	for f := range known {
		want[f]++
	}
	healthy := make([]*pubsubpb.PubsubMessage, 0, len(valid))
	for _, m := range ledger {
		f := fingerprint(m)
		if want[f]--; want[f] < 0 {
			t.Errorf("message %s was not published like this: %s", m.GetMessageId(), clip(f))
		}
		if known[f] == nil {
			healthy = append(healthy, m)
		}
	}

	// The emulator needs some time for messages of 10 MB.
	got := h.run("WORKER_DRAIN_IDLE=3s").exits(0)

	counts := map[string]int{}
	for _, r := range rejects {
		counts[r.reason]++
	}
	got.sums(summary{Received: len(ledger), Submitted: len(valid), Rejected: counts, Ended: "drained"})
	h.recordedExactly(healthy)
	h.empty()
	for id, l := range h.deadLetters(len(rejects)) {
		m := ledger[id]
		r := known[fingerprint(m)]
		if r == nil {
			t.Errorf("message %s was dead-lettered, and is valid: %v", id, l.DLQ)
			continue
		}
		t.Run(r.name, func(t *testing.T) { r.judge(t, m, l) })
	}
}

// judge compares a dead-lettered message with the expected reject.
func (r *reject) judge(t *testing.T, m *pubsubpb.PubsubMessage, l deadLetter) {
	l.matches(t, m)
	if got := l.DLQ["dlq_reason"]; got != r.reason {
		t.Errorf("dlq_reason is %q, want %q (%s)", got, r.reason, l.DLQ["dlq_detail"])
	}
	for _, part := range r.says {
		contains(t, l.DLQ["dlq_detail"], part)
	}
	if got := l.DLQ["dlq_attempts"]; got != "0" {
		t.Errorf("dlq_attempts is %q, want 0: it was never sent", got)
	}
	if got := l.DLQ["dlq_encoding"]; got != r.encoding {
		t.Errorf("dlq_encoding is %q, want %q", got, r.encoding)
	}
	if got := l.DLQ["dlq_replays"]; got != r.replays {
		t.Errorf("dlq_replays is %q, want %q", got, r.replays)
	}
	if got := l.DLQ["dlq_event_id"]; r.eventID != "" && got != r.eventID {
		t.Errorf("dlq_event_id is %q, want %q", got, r.eventID)
	} else if got != "" && r.noID {
		t.Errorf("dlq_event_id is %q, and no valid one was given", got)
	}
}
