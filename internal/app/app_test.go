package app_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

func TestMain(m *testing.M) {
	flag.Parse()
	testenv.RunAtOnce("12") // they mostly wait
	goleak.VerifyTestMain(m)
}

func TestDrainRelaysAll(t *testing.T) {
	h := newEnv(t)
	h.publish(numbered(2500)...)
	h.publish(message(`{"feature":"Bad","action":"sent"}`), message(`[]`))
	summary, err := h.run(t.Context())
	if err != nil {
		t.Error(err)
	}
	if summary.Ended != relay.Drained || summary.Received != 2502 || summary.Submitted != 2500 ||
		summary.Rejected[event.InvalidEvent] != 1 || summary.Rejected[event.MalformedPayload] != 1 {
		t.Errorf("got %s", toJSON(summary))
	}
	h.once(2500)
	h.empty()
	if got := len(h.deadLetters()); got != 2 {
		t.Errorf("%d dead letters, want 2", got)
	}
}
