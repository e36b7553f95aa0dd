package chaos_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

const (
	soakRate     = 300 // events a second
	soakInterval = 100 * time.Millisecond
)

var soakMix = mix{malformed: 2, invalid: 2, leftOut: 1, refused: 1}

// TestLongRunDoesNotGrow keeps one worker busy for long, with a fault from time to time,
// and checks that its memory does not grow.
func TestLongRunDoesNotGrow(t *testing.T) {
	if *soakLength <= 0 {
		t.Skip("Only a long run can tell whether the worker grows; ask for one by -soak.length=10m.")
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-soak.length=%v -chaos.seed=%d", *soakLength, seed)
	w := newEnv(t, emulator.Shared(t), seed)
	port := freePort(t)
	s := w.newSlot("worker", time.Second, "WORKER_MODE=continuous", "PORT="+port, "LOG_LEVEL=info")

	// Faults of a few seconds, with half a minute between them.
	faults := draft(rand.New(rand.NewPCG(seed, 3)), slices.Concat(gatewayFaults, samsFaults, pubsubFaults), 40*time.Second, 10*time.Second, *soakLength-10*time.Second)
	t.Log(faults)
	began := time.Now()
	var (
		group   sync.WaitGroup
		samples []sample
	)
	group.Go(func() { w.inject(t.Context(), began, faults, nil) })
	group.Go(func() {
		for time.Since(began) < *soakLength {
			time.Sleep(500 * time.Millisecond)
			if x, err := scrape(port); err == nil {
				samples = append(samples, x)
			}
		}
	})
	published := 0
	for next := began; time.Since(began) < *soakLength; next = next.Add(soakInterval) {
		time.Sleep(time.Until(next))
		n := int(time.Since(began).Seconds()*soakRate) - published
		if n > 0 {
			w.publish(min(n, 1000), soakMix, false)
			published += min(n, 1000)
		}
	}
	group.Wait()
	w.recover()
	if runs := w.ledger.counted("runs"); runs != 1 {
		t.Errorf("the worker was started %d times", runs)
	}
	s.end()
	w.log(w.settle(1))
	w.lookAt(samples, faults, began)
}

// sample is a set of the worker's own metrics.
type sample struct {
	at     time.Time
	values map[string]float64
}

const (
	goroutines = "go_goroutines"
	resident   = "process_resident_memory_bytes"
	heap       = "go_memstats_heap_inuse_bytes"
	oldest     = "telemetry_relay_oldest_received_age_seconds"
)

func scrape(port string) (sample, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://127.0.0.1:" + port + "/metrics")
	if err != nil {
		return sample{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return sample{}, err
	}
	x := sample{at: time.Now(), values: map[string]float64{}}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch name {
		case goroutines, resident, heap, oldest:
			if x.values[name], err = strconv.ParseFloat(value, 64); err != nil {
				return sample{}, err
			}
		}
	}
	if len(x.values) != 4 {
		return sample{}, errors.New("metrics are missing")
	}
	return x, nil
}

// lookAt compares the last quarter with the second. The first does not count, because
// caches still fill.
func (w *env) lookAt(samples []sample, faults []fault, began time.Time) {
	w.t.Helper()
	if want := int(soakLength.Seconds()); len(samples) < want {
		w.t.Fatalf("only %d samples were taken", len(samples))
	}
	quarter := len(samples) / 4
	for _, c := range []struct {
		name         string
		share, slack float64 // how much more does not count as growth
	}{
		{goroutines, 0.1, 10},
		{heap, 0.2, 8 << 20},
		{resident, 0.2, 16 << 20},
	} {
		second, last := median(samples[quarter:2*quarter], c.name), median(samples[3*quarter:], c.name)
		w.t.Logf("%s: median of the second quarter %.0f, of the last %.0f", c.name, second, last)
		if last > second*(1+c.share)+c.slack {
			w.t.Errorf("%s grows: from %.0f to %.0f", c.name, second, last)
		}
	}

	// Events that arrived during a fault must be gone soon after it. Those that the gateway
	// leaves out may take longer, but not for ever.
	var slowest time.Duration
	for i, f := range faults {
		end := began.Add(f.at + f.length)
		until := began.Add(*soakLength)
		if i+1 < len(faults) {
			until = began.Add(faults[i+1].at)
		}
		at := slices.IndexFunc(samples, func(x sample) bool { return x.at.After(end) && x.values[oldest] < 2 })
		if at < 0 || samples[at].at.After(until) {
			if until.Sub(end) > 30*time.Second {
				w.t.Errorf("after %v the oldest event in flight stays old", f)
			}
			continue
		}
		slowest = max(slowest, samples[at].at.Sub(end))
	}
	w.t.Logf("%d faults; at most %v after one, the oldest event in flight was young again", len(faults), slowest.Round(time.Millisecond))
}

func median(samples []sample, name string) float64 {
	values := make([]float64, len(samples))
	for i, x := range samples {
		values[i] = x.values[name]
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func freePort(t *testing.T) string {
	t.Helper()
	addr, err := testenv.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
