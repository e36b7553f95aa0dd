package dlq

import (
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// TestReaderFindsTheFaultThatTheWorkerNames compares the fault at the rejection with the
// fault of the message in the queue, for each encoding of the message.
func TestReaderFindsTheFaultThatTheWorkerNames(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	for name, original := range map[string]map[string]string{
		"plain":      {"service_id": "sams"},
		"replayed":   {"service_id": "sams", "replay_count": "2", "origin_message_id": "1", "origin_publish_time": "2026-11-20T09:00:00Z"},
		"envelope":   {"service_id": "sams", "dlq_own": "x"},
		"no service": {},
		"odd":        {"service_id": "al ice"},
	} {
		l := &DeadLetter{
			MessageID: "1", PublishTime: at, Data: []byte("{}"), Attributes: original, RejectedAt: at,
			Rejection: event.Rejection{Reason: event.InvalidEvent, Detail: "a: " + strings.Repeat(`"é x" 17 `, 200)},
		}
		m, err := build(l, Origin{})
		if err != nil {
			t.Fatal(err)
		}
		want := fault.Of(string(l.Rejection.Reason), original["service_id"], l.Rejection.Detail)
		if got := FaultOf(Read(m, "dev")); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
