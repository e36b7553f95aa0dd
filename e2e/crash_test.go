package e2e_test

import (
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/local/gatewayserver"
)

// TestKill kills a worker that holds everything: nothing is lost. What it had not
// acknowledged is given to a second worker by a snapshot, since the emulator goes
// on delivering to the dead one's streams for several leases.
func TestKill(t *testing.T) {
	h := newHouse(t)
	const all = 200
	var streams atomic.Int64
	var killed atomic.Bool
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		// One batch gets through before.
		return gatewayserver.Fault{Hang: streams.Add(1) > 1 && !killed.Load()}
	})
	p := h.startReady(continuous, "WORKER_BATCH_MAX_EVENTS=20")
	h.publish(events(0, all)...)
	h.publish(invalid(all))
	eventually(t, "a batch is recorded and others hang", func() bool {
		return len(h.recorded()) > 0 && streams.Load() > 2 && p.metric("telemetry_relay_events_received_total") == all+1
	})
	p.stop(syscall.SIGKILL)
	killed.Store(true)

	before := len(h.recorded())
	h.inherit()
	got := h.run("PUBSUB_SUBSCRIPTION=" + heirID).exits(0).summary()
	// Of what was recorded, all but the last batch has been acknowledged.
	if got.Submitted < all-before || got.Released != 0 || got.Ended != "drained" {
		t.Errorf("summary of the second worker: %+v", got)
	}
	ids := h.recorded()
	for i := range all {
		if ids[eventID(i)] == 0 {
			t.Errorf("event %d is lost", i)
		}
	}
	// Both may have dead-lettered the invalid one.
	if letters := h.takeAll(dlqSubID, 1); len(letters) == 0 {
		t.Error("the invalid event is lost")
	}
}
