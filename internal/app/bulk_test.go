package app_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
)

// TestBulkyEvents has events whose encoding is much longer than their messages. They are
// recorded whole, beside others, also if their first streams fail.
func TestBulkyEvents(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var failures atomic.Int32
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		if failures.Add(1) <= 2 {
			return gatewayserver.Fault{Err: status.Error(codes.Unavailable, "passing")}
		}
		return gatewayserver.Fault{}
	})
	const numbers = 5000
	var messages []*pubsubpb.PubsubMessage
	for i := range 20 {
		private := "{}"
		if i%2 == 0 {
			private = `{"list":[` + strings.Repeat("7,", numbers-1) + `7]}`
		}
		messages = append(messages, message(fmt.Sprintf(`{"feature":"cody.chat","action":"sent","id":%q,"privateMetadata":%s}`, eventID(i), private)))
	}
	h.publish(messages...)
	// The bound allows the encodings of two of four such events.
	s, err := h.run(t.Context(), "WORKER_MAX_OUTSTANDING_BYTES=200kB", "WORKER_BATCH_MAX_BYTES=150kB")
	h.drained(s, err, 20, none{})
	h.once(20)
	whole := 0
	for _, r := range h.gateway.Recorded() {
		for _, value := range r.Event.GetParameters().GetPrivateMetadata().GetFields()["list"].GetListValue().GetValues() {
			if value.GetNumberValue() != 7 {
				t.Fatalf("a number of %s is %v", r.Event.GetId(), value)
			}
			whole++
		}
	}
	if whole != 10*numbers {
		t.Errorf("%d numbers were recorded, want %d", whole, 10*numbers)
	}
}
