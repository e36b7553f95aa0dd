package e2e_test

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// TestLeasesAreSetSoon measures how soon the worker sets the lease of delivered messages:
// within 200 ms in quiet traffic, and 99 of 100 within 500 ms of a backlog that fills its
// memory bound, on a machine of its own. Because tests share theirs, the best of three
// tries counts, and ten times as long is allowed, which is still a small part of any lease.
// The worker's own delay of 100 ms is tested in fake time in internal/consume. The gateway
// is slow, so that acks come later.
func TestLeasesAreSetSoon(t *testing.T) {
	h := newStrictEnv(t)
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		return gatewayserver.Fault{Delay: 2 * time.Second}
	})
	p := h.startReady(continuous, "LOG_LEVEL=info", "WORKER_BATCH_MAX_EVENTS=2500")
	published := 0
	publish := func(n int) {
		h.publish(events(published, published+n)...)
		published += n
	}
	for _, c := range []struct {
		name    string
		publish func()
		share   float64 // of the receipts that count
		promise time.Duration
	}{
		{"quiet traffic", func() {
			for range 20 {
				publish(1)
				time.Sleep(50 * time.Millisecond) // the traffic's own interval
			}
		}, 1, 200 * time.Millisecond},
		{"a full backlog", func() { publish(20_000) }, 0.99, 500 * time.Millisecond},
	} {
		var tries []time.Duration
		for len(tries) < 3 && !slices.ContainsFunc(tries, func(d time.Duration) bool { return d <= c.promise }) {
			before := published
			c.publish()
			testenv.Eventually(t, "everything is settled", h.settled)
			delays := h.pubsub.ReceiptDelays(h.subscription(subID))
			if len(delays) != published {
				t.Fatalf("%d receipts for %d events: leases were lost, or never set", len(delays), published)
			}
			delays = delays[before:]
			slices.Sort(delays)
			tries = append(tries, delays[int(c.share*float64(len(delays)))-1])
		}
		t.Logf("%s: %.0f %% of the receipts within %v", c.name, 100*c.share, tries)
		if slices.Min(tries) > 10*c.promise {
			t.Errorf("%s: %.0f %% of the receipts within %v, want %v", c.name, 100*c.share, tries, c.promise)
		}
	}
	p.stop(syscall.SIGTERM).exits(0)
}
