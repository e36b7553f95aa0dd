package e2e_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/local/gatewayserver"
)

// TestKill kills a worker that holds everything: nothing is lost, and everything
// comes back when its leases have run out. It takes as long as a lease, so it
// comes early among the tests.
func TestKill(t *testing.T) {
	h := newHouse(t)
	const before = 200
	var streams atomic.Int64
	var killed atomic.Bool
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		// One batch gets through before.
		return gatewayserver.Fault{Hang: streams.Add(1) > 1 && !killed.Load()}
	})
	p := h.startReady(continuous, "WORKER_BATCH_MAX_EVENTS=20")
	h.publish(events(0, before)...)
	h.publish(invalid(999))
	eventually(t, "a batch is recorded and others hang", func() bool {
		return len(h.recorded()) > 0 && streams.Load() > 2 && p.metric("telemetry_relay_events_received_total") == before+1
	})
	p.stop(syscall.SIGKILL)
	killed.Store(true)

	all := h.buryStreams(before)
	second := h.start(continuous)
	began := time.Now()
	for until := began.Add(4 * patience); len(h.recorded()) < all && time.Now().Before(until); {
		pause()
	}
	if n := len(h.recorded()); n != all {
		t.Errorf("%d events are recorded after %v, want %d", n, time.Since(began), all)
	}
	if got := second.stop(syscall.SIGTERM).exits(0).summary(); got.Submitted < all-20 {
		t.Errorf("summary of the second worker: %+v", got)
	}
	// Both may have dead-lettered the invalid one.
	if letters := h.takeAll(dlqSubID, 1); len(letters) == 0 {
		t.Error("the invalid event is lost")
	}
}

// buryStreams publishes events, from first on, until one is there for a pull, and
// returns the number of the next one. The emulator finds out that a stream is dead
// only when it has delivered something there, which is then away for a lease: it
// should not be what comes back from the dead worker.
func (h *house) buryStreams(first int) int {
	h.t.Helper()
	for next := first; next < first+100; {
		h.publish(event(next))
		next++
		for range 5 {
			pause()
			response, err := h.subs.Pull(h.context(), &pubsubpb.PullRequest{
				Subscription: h.subscription(subID), MaxMessages: 1, ReturnImmediately: true,
			})
			h.must(err)
			for _, r := range response.GetReceivedMessages() {
				_, err := h.subs.ModifyAckDeadline(h.context(), &pubsubpb.ModifyAckDeadlineRequest{
					Subscription: h.subscription(subID), AckIds: []string{r.GetAckId()}, AckDeadlineSeconds: 0,
				})
				h.must(err)
				return next
			}
		}
	}
	h.t.Fatal("the dead streams take everything")
	return 0
}
