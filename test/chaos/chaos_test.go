package chaos_test

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/emulator"
)

// TestRandomFaultsLoseNothing has everything fail at random around several workers, which
// are killed, stopped and frozen meanwhile. The same seed gives the same faults, as far as
// that is possible between processes.
func TestRandomFaultsLoseNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("It takes most of a minute.")
	}
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-chaos.length=%v -chaos.seed=%d", *chaosLength, seed)
	w := newEnv(t, emulator.Shared(t), seed)
	rng := rand.New(rand.NewPCG(seed, 3))

	slots := []*slot{
		w.newSlot("continuous worker A", 300*time.Millisecond, "WORKER_MODE=continuous"),
		w.newSlot("continuous worker B", time.Second, "WORKER_MODE=continuous", "WORKER_MAX_OUTSTANDING_EVENTS=500"),
		w.newSlot("draining worker", 2*time.Second, "WORKER_MODE=drain", "WORKER_DRAIN_IDLE=1s"),
	}
	began := time.Now()
	var group sync.WaitGroup
	inject := func(faults []fault, s *slot) {
		t.Log(faults)
		group.Go(func() { w.inject(t.Context(), began, faults, s) })
	}
	inject(draft(rng, gatewayFaults, 1500*time.Millisecond, 3*time.Second, *chaosLength), nil)
	inject(draft(rng, samsFaults, 8*time.Second, 4*time.Second, *chaosLength), nil)
	inject(draft(rng, pubsubFaults, 10*time.Second, 4*time.Second, *chaosLength), nil)
	for _, s := range slots {
		inject(draft(rng, workerFaults, 8*time.Second, 5*time.Second, *chaosLength), s)
	}
	for time.Since(began) < *chaosLength {
		w.publish(1+w.rng.IntN(20), wild, false)
		time.Sleep(time.Duration(w.rng.IntN(50)) * time.Millisecond)
	}
	group.Wait()

	w.recover()
	for _, s := range slots {
		s.end()
	}
	w.log(w.settle(2))
}

// TestFrozenPubSubLosesNothing freezes Pub/Sub itself for some time, with its connections.
func TestFrozenPubSubLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("It starts an emulator of its own.")
	}
	t.Parallel()
	e := emulator.New(t)
	w := newEnv(t, e, 1)
	s := w.newSlot("worker", time.Second, "WORKER_MODE=continuous")
	for range 20 {
		w.publish(50, calm, false)
		time.Sleep(50 * time.Millisecond)
	}
	for w.records() == 0 && time.Since(w.began) < patience {
		time.Sleep(20 * time.Millisecond)
	}
	w.publish(500, calm, false)
	w.must(e.Process().Signal(syscall.SIGSTOP))
	w.note("the emulator is frozen")
	time.Sleep(*chaosFreeze)
	w.must(e.Process().Signal(syscall.SIGCONT))
	w.note("the emulator goes on")
	thawed := time.Now()
	before := w.records()
	w.publish(500, calm, false)
	for w.records() == before && time.Since(thawed) < patience {
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("frozen for %v; recording again after %v", *chaosFreeze, time.Since(thawed).Round(time.Millisecond))
	w.recover()
	if runs := w.ledger.counted("runs"); runs != 1 {
		t.Errorf("the worker was started %d times", runs)
	}
	s.end()
	w.log(w.settle(1))
}

func (w *env) records() int { return w.gateway.Stats().Recorded }

// log logs the figures of a run.
func (w *env) log(totals totals) {
	figures, err := json.Marshal(totals)
	w.must(err)
	w.t.Logf("%s", figures)
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	var lines strings.Builder
	for _, what := range slices.Sorted(maps.Keys(w.ledger.count)) {
		lines.WriteString("\n\t" + what + ": ")
		b, _ := json.Marshal(w.ledger.count[what])
		lines.Write(b)
	}
	w.t.Logf("counted:%s", lines.String())
}
