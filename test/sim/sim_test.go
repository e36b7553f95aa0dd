// Package sim_test runs the worker's own stages in a simulated environment: Pub/Sub, SAMS
// and the gateway have all known faults, time is fake, and a seed determines everything
// that happens. An independent account checks that no event is lost, that no outage
// dead-letters an event, and that the accounting is balanced.
package sim_test

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/metrics"
)

var (
	seeds = flag.Int("sim.seeds", 0, "how many seeds to run; 0: 1000, or 150 with -short")
	seed  = flag.Uint64("sim.seed", 1, "the first seed; 0: drawn by chance")
	trace = flag.Bool("sim.trace", false, "print the workers' logs")
	stop  = flag.Int("sim.violations", 3, "how many failing seeds end the run")
)

// rows are the faults that must occur in every run of the test.
var rows = []string{
	"gateway down at the start",
	"gateway down: Unavailable", "gateway down: ResourceExhausted", "gateway down: Aborted",
	"gateway down: Internal", "gateway down: Unknown", "gateway down: DeadlineExceeded",
	"stream cut midway", "server's delay", "event that cannot be decoded",
	"event left out", "event left out beside another one", "one of three instances cannot publish",
	"30 % of publish requests lost", "50 % of publish requests lost", "80 % of publish requests lost", "95 % of publish requests lost",
	"nothing recorded", "nothing recorded of a single event", "one bad event in quiet traffic",
	"gateway hangs", "gateway slow", "released",
	"no capacity for a stream",
	"credentials refused", "token refused", "tokens revoked",
	"SAMS down", "SAMS slow", "short-lived token", "client refused by SAMS",
	"event refused", "identity refused",
	"dead-letter topic down",
	"lease lost", "redelivery", "stale ack id", "settlement's answer lost", "the same event twice", "different events with one id",
	"an id of several events listed once", "an answer that lists some events of one id",
	"connection down", "pull stream cut", "streams go silent", "stream refused", "request refused as a whole", "slow answer to a settlement",
	"results per ack id", "transient result of an ack id", "empty answer to a pull", "Pub/Sub frozen",
	"stopped by a signal", "stopped while things go wrong", "deadline", "deadline during an outage", "killed",
	"panic", "many publishers",
}

func TestSeeds(t *testing.T) {
	if *seeds == 0 {
		// With the race detector a seed takes four times as long.
		if *seeds = 1000; testing.Short() {
			*seeds = 150
		}
	}
	first := *seed
	if first == 0 {
		first = rand.Uint64N(1 << 40)
	}
	t.Logf("seeds %d to %d; again: go test ./test/sim -run TestSeeds -sim.seed=%d -sim.seeds=%d", first, first+uint64(*seeds)-1, first, *seeds)

	var (
		mu     sync.Mutex
		met    = map[string]int{}
		failed int
		next   int
		took   = time.Now()

		slowest     time.Duration
		slowestSeed uint64
	)
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next >= *seeds || failed >= *stop {
			return 0, false
		}
		next++
		return first + uint64(next-1), true
	}
	t.Run("all", func(t *testing.T) {
		for shard := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(shard), func(t *testing.T) {
				t.Parallel()
				m := metrics.New()
				for {
					seed, ok := take()
					if !ok {
						return
					}
					began := time.Now()
					w := simulate(t, seed, m)
					mu.Lock()
					if took := time.Since(began); took > slowest {
						slowest, slowestSeed = took, seed
					}
					for row, n := range w.rows {
						met[row] += n
					}
					if len(w.violations) > 0 {
						failed++
						t.Errorf("seed %d: %s\nagain: go test ./test/sim -run TestSeeds -sim.seed=%d -sim.seeds=1", seed, strings.Join(w.violations[:min(10, len(w.violations))], "\n   "), seed)
					}
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d seeds in %v; the slowest was %d with %v", next, time.Since(took).Round(time.Millisecond), slowestSeed, slowest.Round(time.Millisecond))
	for _, row := range slices.Sorted(maps.Keys(met)) {
		t.Logf("%8d × %s", met[row], row)
	}
	if *seeds >= 500 && failed == 0 {
		for _, row := range rows {
			if met[row] == 0 {
				t.Errorf("never met: %s", row)
			}
		}
	}
}

func simulate(t *testing.T, seed uint64, m *metrics.Metrics) (w *env) {
	log := slog.New(slog.DiscardHandler)
	if *trace {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	synctest.Test(t, func(t *testing.T) {
		w = newEnv(t, seed, m, log)
		w.play()
	})
	return w
}
