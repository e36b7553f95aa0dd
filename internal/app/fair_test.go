package app_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
)

// TestFloodDelaysNoOtherService has one service publish events that each need a stream, and
// then another service a single event, which comes last. It counts the flood's streams
// before that event rather than seconds, because the machine has other work.
func TestFloodDelaysNoOtherService(t *testing.T) {
	t.Parallel()
	const events = 3000
	for _, c := range []struct {
		name    string
		message func(i int) *pubsubpb.PubsubMessage
		before  int32 // streams before the honest event, at most
		batches int   // in all, at most
	}{
		{
			name: "made-up environments", before: events / 2, batches: events + 10,
			message: func(i int) *pubsubpb.PubsubMessage {
				return message(fmt.Sprintf(`{"feature":"cody.chat","action":"sent","id":%q}`, eventID(i)), "service_environment", fmt.Sprintf("made-up-%d", i))
			},
		},
		{
			name: "the nil UUID", before: 100, batches: 200,
			message: func(i int) *pubsubpb.PubsubMessage {
				return message(fmt.Sprintf(`{"feature":"cody.chat","action":"sent","id":"00000000-0000-0000-0000-000000000000","metadata":{"n":%d}}`, i))
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newEnv(t)
			var streams, before atomic.Int32
			before.Store(-1)
			h.gateway.SetOnPayload(func(info gatewayserver.StreamInfo, _ []*gatewayserver.Event) gatewayserver.Fault {
				if info.Identity.ServiceID == "sams" {
					before.Store(streams.Load())
				} else {
					streams.Add(1)
				}
				return gatewayserver.Fault{}
			})
			messages := make([]*pubsubpb.PubsubMessage, events)
			for i := range messages {
				messages[i] = c.message(i)
			}
			h.publish(messages...)
			h.publish(message(fmt.Sprintf(`{"feature":"sams.user","action":"created","id":%q}`, eventID(events)), "service_id", "sams"))
			s, err := h.run(t.Context())
			h.drained(s, err, events+1, none{})
			if got := len(h.gateway.Recorded()); got != events+1 {
				t.Errorf("%d were recorded", got)
			}
			t.Logf("%d streams of the flood came before the honest event; %d batches", before.Load(), s.Batches)
			if got := before.Load(); got < 0 || got > c.before {
				t.Errorf("%d streams of the flood came before the honest event, want %d at most", got, c.before)
			}
			if s.Batches > c.batches {
				t.Errorf("%d batches, want %d at most", s.Batches, c.batches)
			}
		})
	}
}
