package app_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
	"github.com/sourcegraph/telemetry-relay/internal/receipts"
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

const (
	receiptsTopic = "projects/" + project + "/topics/telemetry-receipts"
	receiptsSub   = "projects/" + project + "/subscriptions/telemetry-receipts-oncall"
	replayID      = "20261120T100000Z-abc234"
)

// replayed makes the replay of an event.
func replayed(data, origin string, more ...string) *pubsubpb.PubsubMessage {
	return message(data, append([]string{
		"replay_count", "1", "replay_id", replayID, "origin_message_id", origin, "origin_publish_time", "2026-11-20T10:00:00Z",
	}, more...)...)
}

// receipts are those in the subscription, by the first message.
func (h *env) receipts() map[string]receipts.Receipt {
	h.t.Helper()
	all := map[string]receipts.Receipt{}
	for _, m := range h.pubsub.Messages(receiptsSub) {
		r, ok := receipts.Read(m.GetAttributes())
		if !ok || len(m.GetData()) > 0 || r.ReplayID != replayID {
			h.t.Errorf("not a receipt of the replay: %v", m)
		}
		if _, twice := all[r.OriginMessageID]; twice {
			h.t.Errorf("two receipts for %s", r.OriginMessageID)
		}
		if age := time.Since(r.At); age < 0 || age > time.Minute {
			h.t.Errorf("the receipt's time is %v", r.At)
		}
		r.ReplayID, r.At = "", time.Time{}
		all[r.OriginMessageID] = r
	}
	return all
}

// TestReceipts: each replayed message has one receipt with its verdict, and other messages
// have none.
func TestReceipts(t *testing.T) {
	h := newEnv(t)
	h.check(h.pubsub.CreateTopic(receiptsTopic))
	h.check(h.pubsub.CreateSubscription(receiptsSub, receiptsTopic))
	valid := func(i int) string {
		return `{"feature":"cody.chat","action":"sent","id":"` + eventID(i) + `"}`
	}
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		var f gatewayserver.Fault
		for _, e := range events {
			if e.GetId() == eventID(2) {
				f.Omit = append(f.Omit, e.GetId())
			}
		}
		return f
	})
	var others []*pubsubpb.PubsubMessage
	for i := range 200 { // proof that the gateway records others
		others = append(others, message(valid(100+i)))
	}
	h.publish(append(others,
		message(valid(0)),                   // no replay
		message(`{`),                        // no replay either
		replayed(valid(1), "m1"),            // recorded
		replayed(valid(2), "m2"),            // left out
		replayed(`{"feature":"cody.`, "m3"), // rejected
		replayed(valid(0), "m4"),            // a copy
		replayed(valid(5), "m5", "x", "y"),  // recorded
		message(valid(6), "replay_count", "1", "origin_message_id", "m6", "origin_publish_time", "2026-11-20T10:00:00Z"), // by an older dlq
		message(valid(7), "replay_id", replayID), // forged
	)...)
	s, err := h.run(t.Context(), "RECEIPTS_TOPIC=telemetry-receipts")
	if err != nil || s.Duplicates != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	digest := h.config().Services.Digest()
	want := map[string]receipts.Receipt{
		"m1": {OriginMessageID: "m1", EventID: eventID(1), Verdict: receipts.Recorded, ServicesDigest: digest},
		"m2": {OriginMessageID: "m2", EventID: eventID(2), Verdict: receipts.Rejected, Reason: "gateway_rejected", ServicesDigest: digest},
		"m3": {OriginMessageID: "m3", Verdict: receipts.Rejected, Reason: "malformed_payload", ServicesDigest: digest},
		"m4": {OriginMessageID: "m4", EventID: eventID(0), Verdict: receipts.Duplicate, ServicesDigest: digest},
		"m5": {OriginMessageID: "m5", EventID: eventID(5), Verdict: receipts.Recorded, ServicesDigest: digest},
	}
	got := h.receipts()
	if got["m4"].Verdict == receipts.Recorded { // the copy came first
		want["m4"] = got["m4"]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("receipts (-want +got):\n%s", diff)
	}
}

// TestReceiptsUnavailable: without the topic, or without an answer of it, a run settles
// everything as usual, ends well and in time.
func TestReceiptsUnavailable(t *testing.T) {
	for name, c := range map[string]struct {
		vars  []string
		exist bool
		hangs bool
		warn  bool
	}{
		"an older configuration":   {},
		"the topic does not exist": {vars: []string{"RECEIPTS_TOPIC=telemetry-receipts"}, warn: true},
		"the topic hangs":          {vars: []string{"RECEIPTS_TOPIC=telemetry-receipts"}, exist: true, hangs: true, warn: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newEnv(t)
			if c.exist {
				h.check(h.pubsub.CreateTopic(receiptsTopic))
			}
			h.pubsub.SetFault(func(_ string, req any) error {
				if p, ok := req.(*pubsubpb.PublishRequest); ok && c.hangs && p.GetTopic() == receiptsTopic {
					return pubsubserver.ErrHang
				}
				return nil
			})
			h.publish(replayed(`{"feature":"cody.chat","action":"sent","id":"`+eventID(0)+`"}`, "m1"), replayed(`{`, "m2"))
			began := time.Now()
			s, err := h.run(t.Context(), c.vars...)
			h.drained(s, err, 1, map[event.Reason]int{event.MalformedPayload: 1})
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("the run took %v", took)
			}
			if got := strings.Contains(h.log.String(), "Receipts of replayed events were not published"); got != c.warn {
				t.Errorf("warned: %v", got)
			}
		})
	}
}
