package relay

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dedup"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// TestVerdicts: each rejected message and each replayed message has one verdict, and no
// other message has any.
func TestVerdicts(t *testing.T) {
	const id = "019a0000-0000-7000-8000-000000000001"
	valid := `{"feature":"a.b","action":"cd","id":"` + id + `"}`
	message := func(id, data string, attributes ...string) *consume.Message {
		all := map[string]string{"service_id": "sams"}
		for i := 0; i < len(attributes); i += 2 {
			all[attributes[i]] = attributes[i+1]
		}
		return &consume.Message{ID: id, PublishTime: time.Now(), Data: []byte(data), Attributes: all}
	}
	replayed := []string{"replay_count", "1", "origin_message_id", "7", "origin_publish_time", "2026-11-20T10:00:00Z", "replay_id", "R"}

	record := func(s *settlement, e *inflight) { s.eventRecorded(e, time.Now()) }
	written := func(s *settlement, e *inflight) { s.eventDeadLettered(e, time.Now()) }
	reject := func(s *settlement, e *inflight) {
		e.rejection = &event.Rejection{Reason: event.GatewayRejected, Detail: "left out", EventID: id}
		written(s, e)
	}
	for name, c := range map[string]struct {
		// The first message is settled by settle. The others arrive before that, and the
		// late ones after it.
		messages, late []*consume.Message
		settle         func(*settlement, *inflight)
		want           []string
	}{
		"recorded":                        {messages: []*consume.Message{message("1", valid)}, settle: record},
		"recorded, replayed":              {messages: []*consume.Message{message("1", valid, replayed...)}, settle: record, want: []string{"1 recorded " + id}},
		"recorded, an invalid count":      {messages: []*consume.Message{message("1", valid, "replay_count", "x")}, settle: record},
		"rejected":                        {messages: []*consume.Message{message("1", "[]")}, settle: written, want: []string{"1 rejected malformed_payload"}},
		"rejected, replayed":              {messages: []*consume.Message{message("1", "[]", replayed...)}, settle: written, want: []string{"1 rejected malformed_payload"}},
		"rejected by the gateway":         {messages: []*consume.Message{message("1", valid, replayed...)}, settle: reject, want: []string{"1 rejected " + id + " gateway_rejected"}},
		"an unknown service, replayed":    {messages: []*consume.Message{message("1", valid, append(replayed, "service_id", "nobody")...)}, settle: written, want: []string{"1 rejected unknown_service"}},
		"a copy in flight":                {messages: []*consume.Message{message("1", valid), message("2", valid, replayed...)}, settle: record, want: []string{"2 duplicate " + id}},
		"a copy of a rejected event":      {messages: []*consume.Message{message("1", valid, replayed...), message("2", valid, replayed...)}, settle: reject, want: []string{"1 rejected " + id + " gateway_rejected", "2 duplicate " + id + " gateway_rejected"}},
		"a redelivery":                    {messages: []*consume.Message{message("1", valid, replayed...), message("1", valid, replayed...)}, settle: record, want: []string{"1 recorded " + id}},
		"a copy of a recorded event":      {messages: []*consume.Message{message("1", valid)}, settle: record, late: []*consume.Message{message("2", valid, replayed...)}, want: []string{"2 duplicate " + id}},
		"a redelivery of a rejected one":  {messages: []*consume.Message{message("1", valid, replayed...)}, settle: reject, late: []*consume.Message{message("1", valid, replayed...)}, want: []string{"1 rejected " + id + " gateway_rejected"}},
		"a replay after the rejected one": {messages: []*consume.Message{message("1", valid)}, settle: reject, late: []*consume.Message{message("2", valid, replayed...)}, want: []string{"1 rejected " + id + " gateway_rejected"}},
		"released":                        {messages: []*consume.Message{message("1", valid, replayed...)}, settle: (*settlement).release},
		"left to expire":                  {messages: []*consume.Message{message("1", valid, replayed...)}, settle: (*settlement).letExpire},
	} {
		t.Run(name, func(t *testing.T) {
			services, err := policy.NewSet([]*policy.Service{{ID: "sams"}}, false)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			opts := Options{
				Batch: batch.Limits{Events: 10, Bytes: 1 << 20, Delay: time.Second}, Services: services, Environment: "dev",
				Logger: slog.New(slog.DiscardHandler),
				OnVerdict: func(v Verdict) {
					text := v.Message.ID + " " + string(v.Result)
					if v.EventID != "" {
						text += " " + v.EventID
					}
					if v.Rejection != nil {
						text += " " + string(v.Rejection.Reason)
					}
					if want := event.Replays(v.Message.Attributes) > 0; v.Replayed != want {
						t.Errorf("%s: replayed %v", text, v.Replayed)
					}
					got = append(got, text)
				},
			}
			l, d := parts(opts), newDecoding(opts, dedup.NewHasher())
			arrive := func(m *consume.Message) *inflight {
				e := &inflight{message: m, received: time.Now()}
				d.decodeEvent(e)
				if e.rejection != nil {
					l.admitRejected(e)
				} else {
					l.admit(e, time.Now())
				}
				return e
			}
			first := arrive(c.messages[0])
			for _, m := range c.messages[1:] {
				arrive(m)
			}
			c.settle(l.settlement, first)
			for _, m := range c.late {
				arrive(m)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}
