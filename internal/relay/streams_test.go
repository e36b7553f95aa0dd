package relay

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
)

func TestStreamsAtEnd(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	denied := status.Error(codes.PermissionDenied, "no")
	since := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name   string
		health consume.Health
		want   string
	}{
		{"streams are open", consume.Health{Open: 4, EverOpen: true}, ""},
		{"nothing is to be received, as in an outage of the gateway", consume.Health{}, ""},
		{"stopped soon after the start", consume.Health{NoneSince: since(3 * time.Second)}, ""},
		{"no stream was ever open", consume.Health{NoneSince: since(10 * time.Second), LastError: denied},
			"no stream from Pub/Sub has been open for 10s: PermissionDenied: no"},
		{"a stream is being opened again", consume.Health{NoneSince: since(30 * time.Second), EverOpen: true}, ""},
		{"none has been open for a minute", consume.Health{NoneSince: since(time.Minute), EverOpen: true},
			"no stream from Pub/Sub has been open for 1m0s"},
	} {
		if got := streamsAtEnd(c.health, now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
