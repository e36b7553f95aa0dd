package dlq

import (
	"maps"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// TestMessagesOfOtherVersionsAreReadAlike reads and replays messages that an older and a
// later worker have written.
func TestMessagesOfOtherVersionsAreReadAlike(t *testing.T) {
	original := map[string]string{"service_id": "sams", "service_version": "1.85.0"}
	data := []byte(`{"feature":"a.b","action":"cd"}`)
	// Every version writes these.
	common := map[string]string{
		"dlq_reason": "invalid_event", "dlq_detail": "x: y", "dlq_rejected_at": "2026-11-20T10:00:00Z", "dlq_attempts": "0",
		"dlq_message_id": "m1", "dlq_publish_time": "2026-11-20T09:00:00Z", "dlq_worker_version": "1",
	}
	for name, more := range map[string]map[string]string{
		"of an older worker": {},
		"of this version":    {"dlq_first_rejected_at": "2026-11-19T10:00:00Z", "dlq_services_digest": "a87bd7cb9d9a"},
		"of a later worker":  {"dlq_services_digest": "a87bd7cb9d9a", "dlq_shard": "7", "dlq_verdicts": "a,b"},
	} {
		attributes := map[string]string{}
		for _, part := range []map[string]string{original, common, more} {
			maps.Copy(attributes, part)
		}
		s := Read(&pubsubpb.PubsubMessage{MessageId: "d1", Data: data, Attributes: attributes, PublishTime: timestamppb.New(time.Date(2026, 11, 20, 10, 0, 1, 0, time.UTC))}, "dev")
		if s.Broken != nil || s.Reason != event.InvalidEvent || s.OriginalID != "m1" {
			t.Errorf("%s: %+v", name, s)
		}
		if diff := cmp.Diff(ndjson.Message{Data: data, Attributes: original}, s.Original); diff != "" {
			t.Errorf("%s: the original message (-want +got):\n%s", name, diff)
		}
		if got := FaultOf(s).ID(); got != FaultOf(&Stored{Reason: event.InvalidEvent, Detail: "x: y", Service: "sams"}).ID() {
			t.Errorf("%s: fault %s", name, got)
		}
		replayed, err := ReplayAttributes(s.Original.Attributes, &ndjson.DeadLetter{
			MessageID: s.OriginalID, PublishTime: s.OriginalPublishTime, FirstRejectedAt: s.FirstRejectedAt,
		}, "R1")
		if err != nil || event.Replays(replayed) != 1 || replayed[event.AttrReplayID] != "R1" {
			t.Errorf("%s: replayed with %v, %v", name, replayed, err)
		}
	}
}

// TestReplayMarksAreIgnored decodes messages with attributes of replays that the decoder
// does not know. They must not change the event.
func TestReplayMarksAreIgnored(t *testing.T) {
	services, err := policy.NewSet([]*policy.Service{{ID: "sams"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	published := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	decode := func(more map[string]string) event.Event {
		t.Helper()
		attributes := map[string]string{"service_id": "sams", "replay_count": "1", "origin_message_id": "m1", "origin_publish_time": published.Format(time.RFC3339Nano)}
		maps.Copy(attributes, more)
		e, rejection := event.NewDecoder(services, "dev").Decode(event.Message{ID: "m2", PublishTime: published.Add(time.Hour), Data: []byte(`{"feature":"a.b","action":"cd"}`), Attributes: attributes})
		if rejection != nil {
			t.Fatal(rejection)
		}
		return e
	}
	old := decode(nil)
	for name, more := range map[string]map[string]string{
		"of this version":   {"replay_id": "R1", "origin_rejected_at": "2026-11-19T10:00:00Z"},
		"of a later one":    {"replay_id": "R1", "origin_rejected_at": "never", "origin_shard": "7", "replay_plan": "x"},
		"of nobody we know": {"replay_id": "\x1b[31m"},
	} {
		if got := decode(more); string(got.Wire) != string(old.Wire) {
			t.Errorf("%s: another event", name)
		}
	}
}
