package app_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
)

// TestGatewayWithLittleCapacity has a gateway that refuses more than five streams at a
// time. That is no outage, and no batch is cut in half because of it.
func TestGatewayWithLittleCapacity(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	const (
		capacity = 5
		took     = 50 * time.Millisecond
		events   = 2000
		batch    = 10
	)
	var mu sync.Mutex
	var until []time.Time // when the streams end that are accepted
	refused := 0
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		for len(until) > 0 && until[0].Before(now) {
			until = until[1:]
		}
		if len(until) >= capacity {
			refused++
			return gatewayserver.Fault{Err: status.Error(codes.ResourceExhausted, "too many streams")}
		}
		until = append(until, now.Add(took))
		return gatewayserver.Fault{Delay: took}
	})
	h.publish(numbered(events)...)
	// Without verdicts, no events wait to be submitted in parts.
	s, err := h.run(t.Context(), "WORKER_BATCH_MAX_EVENTS=10", "WORKER_REJECT_AFTER=0")
	h.drained(s, err, events, none{})
	if log := h.log.String(); strings.Contains(log, "Not delivering") {
		t.Error("the breaker opened")
	}
	// Some batches may be smaller ones.
	if fewest := events / batch; refused == 0 || s.Batches > fewest+refused+fewest/10 {
		t.Errorf("%d batches, of which %d were refused; want %d others", s.Batches, refused, fewest)
	}
	if share := float64(refused) / float64(s.Batches); share > 0.2 {
		t.Errorf("%.0f %% of the streams were refused", 100*share)
	}
	t.Logf("%d batches, of which %d were refused", s.Batches, refused)
}

// TestManyPublishersAndASlowGateway submits more streams at once than a fixed 8, because
// each takes long and holds few events.
func TestManyPublishersAndASlowGateway(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var mu sync.Mutex
	inFlight, peak := 0, 0
	peers := map[string]bool{}
	h.gateway.SetOnPayload(func(info gatewayserver.StreamInfo, _ []*gatewayserver.Event) gatewayserver.Fault {
		mu.Lock()
		defer mu.Unlock()
		peers[info.Peer] = true
		inFlight++
		peak = max(peak, inFlight)
		time.AfterFunc(100*time.Millisecond, func() {
			mu.Lock()
			defer mu.Unlock()
			inFlight--
		})
		return gatewayserver.Fault{Delay: 100 * time.Millisecond}
	})
	const events = 3000
	h.publish(numbered(events)...)
	s, err := h.run(t.Context(), "WORKER_BATCH_MAX_EVENTS=1")
	h.drained(s, err, events, none{})
	mu.Lock()
	defer mu.Unlock()
	if peak < 32 || len(peers) < 3 {
		t.Errorf("%d streams at once over %d connections", peak, len(peers))
	}
	t.Logf("%d streams at once over %d connections", peak, len(peers))
}
