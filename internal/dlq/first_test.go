package dlq

import (
	"maps"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// TestFirstRejectionIsCarried follows an event through two replays: the time of its
// first rejection stays, its attributes come back exactly, and each message is plain.
func TestFirstRejectionIsCarried(t *testing.T) {
	first := time.Date(2026, time.November, 20, 10, 0, 0, 5, time.UTC)
	original := map[string]string{event.AttrServiceID: "sams", "own": "x"}
	current, at := original, first
	for round := range 3 {
		m, err := build(&DeadLetter{
			MessageID: "m", PublishTime: first.Add(-time.Minute), Data: []byte("{}"), Attributes: current, RejectedAt: at,
			Rejection: event.Rejection{Reason: event.InvalidEvent, Detail: "no"},
		}, Origin{Subscription: "s", WorkerVersion: "v", ServicesDigest: "0123456789ab"})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.GetAttributes()[AttrEncoding]; got != "" {
			t.Fatalf("round %d: encoded as %s", round, got)
		}
		m.MessageId, m.PublishTime = "d", timestamppb.New(at)
		s := Read(m, "prod")
		if !s.FirstRejectedAt.Equal(first) || !s.RejectedAt.Equal(at) || s.Replays != round || s.ServicesDigest != "0123456789ab" {
			t.Errorf("round %d: %+v", round, s)
		}
		var published *pubsubpb.PubsubMessage
		r, _ := replayer(&fakeSink{})
		r.ID, r.MaxReplays = "operation", 10
		r.OnReplayed = func(_ *Stored, m *pubsubpb.PubsubMessage) { published = m }
		if err := r.Add(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if err := r.Flush(t.Context()); err != nil || published == nil {
			t.Fatal(err)
		}
		current, at = published.GetAttributes(), at.Add(time.Hour)
		without := maps.Clone(current)
		for _, name := range []string{event.AttrReplayCount, event.AttrOriginMessageID, event.AttrOriginPublishTime, event.AttrOriginRejectedAt, event.AttrReplayID} {
			if without[name] == "" {
				t.Errorf("round %d: no %s in %v", round, name, current)
			}
			delete(without, name)
		}
		if !maps.Equal(without, original) {
			t.Errorf("round %d: %v", round, without)
		}
	}
}

func TestForgedFirstRejectionIsIgnored(t *testing.T) {
	at := time.Date(2026, time.November, 20, 10, 0, 0, 0, time.UTC)
	for name, attributes := range map[string]map[string]string{
		"no replay":  {event.AttrOriginRejectedAt: "2020-01-01T00:00:00Z"},
		"nonsense":   {event.AttrOriginRejectedAt: "soon", event.AttrReplayCount: "1", event.AttrOriginMessageID: "m", event.AttrOriginPublishTime: "2026-11-20T09:00:00Z"},
		"the future": {event.AttrOriginRejectedAt: "2999-01-01T00:00:00Z", event.AttrReplayCount: "1", event.AttrOriginMessageID: "m", event.AttrOriginPublishTime: "2026-11-20T09:00:00Z"},
	} {
		m, err := build(&DeadLetter{MessageID: "m", PublishTime: at, Data: []byte("{}"), Attributes: attributes, RejectedAt: at, Rejection: event.Rejection{Reason: event.InvalidEvent}}, Origin{})
		if err != nil {
			t.Fatal(err)
		}
		m.PublishTime = timestamppb.New(at)
		if s := Read(m, "prod"); !s.FirstRejectedAt.Equal(at) || !maps.Equal(s.Original.Attributes, attributes) {
			t.Errorf("%s: %v, %v", name, s.FirstRejectedAt, s.Original.Attributes)
		}
	}
}

func TestReplayKeepsThePublishersReplayID(t *testing.T) {
	r, reported := replayer(&fakeSink{})
	s := &Stored{ID: "1", OriginalID: "m"}
	s.Original.Data, s.Original.Attributes = []byte("{}"), map[string]string{event.AttrReplayID: "mine"}
	if err := r.Add(t.Context(), s); err != nil || len(*reported) != 1 {
		t.Errorf("%v %v", err, *reported)
	}
}
