package e2e_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// TestKilledWorkerLosesNothing kills a worker with all events in flight: no event may be
// lost. A snapshot gives the messages that it had not acknowledged to a second worker,
// because the emulator goes on delivering to the dead worker's streams for several leases.
func TestKilledWorkerLosesNothing(t *testing.T) {
	h := newEnv(t)
	const all = 200
	var streams atomic.Int64
	var killed atomic.Bool
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		// One batch is recorded before.
		return gatewayserver.Fault{Hang: streams.Add(1) > 1 && !killed.Load()}
	})
	p := h.startReady(continuous, "WORKER_BATCH_MAX_EVENTS=20")
	h.publish(events(0, all)...)
	h.publish(invalid(all))
	testenv.Eventually(t, "a batch is recorded and others hang", func() bool {
		return len(h.recorded()) > 0 && streams.Load() > 2 && p.metric("telemetry_relay_events_received_total") == all+1
	})
	p.stop(syscall.SIGKILL)
	killed.Store(true)

	before := len(h.recorded())
	h.copyUnacked()
	got := h.run("PUBSUB_SUBSCRIPTION=" + unackedID).exits(0).summary()
	// All recorded events except the last batch have been acknowledged.
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
	if messages := h.takeAll(dlqSubID, 1); len(messages) == 0 {
		t.Error("the invalid event is lost")
	}
}

// TestLeasesOfAKilledWorkerEndSoon kills a worker with events in flight, on a Pub/Sub that
// leases each delivered message for ten minutes. The worker has set shorter leases by then,
// so all messages are available to a second one 30 s after the kill, or 60 s with
// exactly-once delivery.
func TestLeasesOfAKilledWorkerEndSoon(t *testing.T) {
	const (
		all = 500
		// A receipt is due within 200 ms, and the server ends leases within 50 ms. The rest
		// is for a busy machine.
		receipts = 15 * time.Second
		slack    = 10 * time.Second
	)
	for _, c := range []struct {
		name    string
		lease   time.Duration
		options []pubsubserver.SubscriptionOption
	}{
		{"at least once", 30 * time.Second, nil},
		{"exactly once", time.Minute, []pubsubserver.SubscriptionOption{pubsubserver.WithExactlyOnce()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newStrictEnv(t, c.options...)
			sub := h.subscription(subID)
			var killed atomic.Bool
			h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
				return gatewayserver.Fault{Hang: !killed.Load()}
			})
			first := h.startReady(continuous)
			h.publish(events(0, all)...)
			testenv.Eventually(t, "everything is in flight", func() bool { return h.pubsub.Stats(sub).Leased == all })
			delivered := time.Now()
			testenv.Eventually(t, "all leases are set", func() bool { return len(h.pubsub.ReceiptDelays(sub)) == all })
			if took := time.Since(delivered); took > receipts {
				t.Errorf("the leases were set %v after the delivery, want %v at most", took, receipts)
			}
			first.stop(syscall.SIGKILL)
			at := time.Now()
			killed.Store(true)

			testenv.Eventually(t, "all leases have ended", func() bool { return h.pubsub.Stats(sub).Backlog == all })
			if took := time.Since(at); took > c.lease+slack {
				t.Errorf("the messages were available %v after the kill, want %v at most", took, c.lease)
			}
			second := h.startReady(continuous)
			testenv.Eventually(t, "everything is recorded", func() bool { return h.gateway.Stats().Recorded >= all })
			h.once(0, all)
			second.stop(syscall.SIGTERM).exits(0)
			if !h.settled() {
				t.Errorf("left in the subscription: %+v", h.pubsub.Stats(sub))
			}
		})
	}
}
