package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// TestLeftOutEventIsFoundAmongOthers has one event that the gateway's Pub/Sub refuses, with
// the whole request that has it: up to 100 events of several payloads and streams. It must
// be dead-lettered in the same drain, and none of its neighbours.
func TestLeftOutEventIsFoundAmongOthers(t *testing.T) {
	for _, c := range []struct{ events, bad int }{{1000, 613}, {20, 3}} {
		t.Run(fmt.Sprintf("%d events", c.events), func(t *testing.T) {
			h := newEnv(t)
			var beside atomic.Int64
			h.gateway.SetLose(func(ids []string) bool {
				refused := slices.Contains(ids, eventID(c.bad))
				if refused {
					beside.Add(int64(len(ids) - 1))
				}
				return refused
			})
			h.publish(events(0, c.events)...)
			got := h.run().exits(0)
			got.sums(summary{Received: c.events, Submitted: c.events - 1, Rejected: map[string]int{"gateway_rejected": 1}, Ended: "drained"})
			h.once(0, c.bad)
			h.once(c.bad+1, c.events)
			h.empty()
			for _, l := range h.deadLetters(1) {
				if l.DLQ["dlq_reason"] != "gateway_rejected" || l.DLQ["dlq_event_id"] != eventID(c.bad) {
					t.Errorf("the dead-lettered message says %v", l.DLQ)
				}
			}
			t.Logf("%v, %d neighbours were left out beside it", got.took, beside.Load())
			if beside.Load() == 0 {
				t.Error("no other event was left out beside the bad one")
			}
			if got.took > 3*time.Minute {
				t.Errorf("the run took %v, want three minutes at most", got.took)
			}
		})
	}
}

// TestLostRequestsDeadLetterNothing has the gateway's backend lose half of its publish
// requests for 5 s. No event may be dead-lettered because of that.
func TestLostRequestsDeadLetterNothing(t *testing.T) {
	const all = 4000
	h := newEnv(t)
	var (
		rng   = rand.New(rand.NewPCG(1, 2))
		began time.Time
		lost  atomic.Int64
	)
	// It is called by one goroutine at a time.
	h.gateway.SetLose(func(ids []string) bool {
		if began.IsZero() {
			began = time.Now()
		}
		if time.Since(began) > 5*time.Second || rng.IntN(2) == 0 {
			return false
		}
		lost.Add(int64(len(ids)))
		return true
	})
	h.publish(events(0, all)...)
	got := h.run().exits(0)
	got.sums(summary{Received: all, Submitted: all, Ended: "drained"})
	h.once(0, all)
	h.empty()
	h.deadLetters(0)
	t.Logf("%v, %d events were lost", got.took, lost.Load())
	if lost.Load() < all/10 {
		t.Errorf("the backend lost %d events only", lost.Load())
	}
}
