package limit

import (
	"fmt"
	"testing"
	"time"
)

// long leaves a simulation of many seconds of CPU out of quick runs. It has one goroutine, so
// the race detector would find nothing in it.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a long simulation")
	}
}

// TestLimitGrowsUnderBacklog compares the limit with a fixed one of 8 streams, under a full backlog and
// with nothing in the way. The figures are those of docs/decisions/adaptive-limit.md.
func TestLimitGrowsUnderBacklog(t *testing.T) {
	for _, test := range []struct {
		latency    time.Duration
		publishers int
		bound      float64 // events/s, after five seconds
	}{
		{0, 3, 300_000}, {0, 100, 300_000}, {0, 500, 250_000},
		{50 * time.Millisecond, 3, 200_000}, {50 * time.Millisecond, 100, 200_000}, {50 * time.Millisecond, 500, 150_000},
		{250 * time.Millisecond, 3, 50_000}, {250 * time.Millisecond, 100, 50_000}, {250 * time.Millisecond, 500, 50_000},
		{500 * time.Millisecond, 3, 30_000}, {500 * time.Millisecond, 100, 20_000}, {500 * time.Millisecond, 500, 8_000},
	} {
		var fixed, adaptive span
		for _, l := range []*Limit{Fixed(Start), Adaptive(DefaultMax)} {
			w := newWorker(&gateway{clock: newClock(1), latency: perPayload(test.latency), wire: time.Millisecond}, l, test.publishers)
			w.run(5 * time.Second)
			fixed, adaptive = adaptive, w.measure(2*time.Second)
			if l.adapts {
				t.Logf("%v, %d publishers: %.0f events/s with 8 streams, %.0f with %d", test.latency, test.publishers, fixed.perSecond, adaptive.perSecond, l.Limit())
				if test.latency == 0 && l.Limit() > 2*Start {
					t.Errorf("%d streams to a gateway that answers at once", l.Limit())
				}
			}
		}
		if adaptive.perSecond < test.bound || adaptive.perSecond < 0.99*fixed.perSecond {
			t.Errorf("%v, %d publishers: %.0f events/s, %.0f with 8 streams; want %.0f", test.latency, test.publishers, adaptive.perSecond, fixed.perSecond, test.bound)
		}
	}
}

// TestCapacityHalved halves the capacity of a gateway that refuses further streams, or
// has them wait, and restores it.
func TestCapacityHalved(t *testing.T) {
	long(t)
	for _, latency := range []time.Duration{50 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond} {
		for _, waits := range []bool{false, true} {
			for _, wire := range []time.Duration{time.Millisecond, 20 * time.Millisecond} {
				if latency < 100*time.Millisecond && wire < latency/10 {
					continue // so many streams that the test would take long
				}
				t.Run(fmt.Sprintf("%v,waits=%t,wire=%v", latency, waits, wire), func(t *testing.T) {
					g := &gateway{clock: newClock(2), latency: perPayload(latency), jitter: 0.1, capacity: 100, waits: waits, wire: wire}
					w := newWorker(g, Adaptive(DefaultMax), 100)
					// The dip at the full minute comes after all that is measured.
					w.run(10 * time.Second)
					before := w.measure(8 * time.Second)
					g.capacity = 50
					w.run(10 * time.Second)
					halved := w.measure(12 * time.Second)
					limit, queued := w.limit.Limit(), len(g.waiting)
					g.capacity = 100
					g.admit()
					w.run(10 * time.Second)
					restored := w.measure(8 * time.Second)
					t.Logf("%.0f events/s; halved: %.0f, limit %d, %.2f %% refused; restored: %.0f, limit %d", before.perSecond,
						halved.perSecond, limit, 100*halved.refused, restored.perSecond, w.limit.Limit())
					if before.refused > 0.01 || halved.refused > 0.01 {
						t.Errorf("%.2f %% and %.2f %% of the streams were refused", 100*before.refused, 100*halved.refused)
					}
					if queued > 40 {
						t.Errorf("%d streams wait at a gateway that takes 50", queued)
					}
					if float64(halved.streams) < 0.9*50/latency.Seconds()*12/(1+wire.Seconds()/latency.Seconds()) {
						t.Errorf("%d streams with half the capacity", halved.streams)
					}
					if float64(restored.streams) < 0.9*float64(before.streams) {
						t.Errorf("%d streams after the capacity was restored, %d before", restored.streams, before.streams)
					}
				})
			}
		}
	}
}

// TestTenWorkers has ten workers, of which some start later, share a gateway.
func TestTenWorkers(t *testing.T) {
	long(t)
	const latency = 250 * time.Millisecond
	for _, capacity := range []int{100, 300} {
		for _, waits := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d,waits=%t", capacity, waits), func(t *testing.T) {
				g := &gateway{clock: newClock(3), latency: perPayload(latency), jitter: 0.1, capacity: capacity, waits: waits, wire: 20 * time.Millisecond}
				var workers []*worker
				for i := range 10 {
					workers = append(workers, newWorker(g, Adaptive(DefaultMax), 50))
					if i >= 5 {
						g.run(2 * time.Second)
					}
				}
				g.run(20 * time.Second)
				before := make([]worker, len(workers))
				for i, w := range workers {
					before[i] = *w
				}
				const during = 45 * time.Second
				g.run(during)
				accepted, refused, recorded, lowest := 0, 0, 0, 1<<62
				for i, w := range workers {
					accepted += (w.streams - w.refused) - (before[i].streams - before[i].refused)
					refused += w.refused - before[i].refused
					recorded += w.recorded - before[i].recorded
					lowest = min(lowest, w.recorded-before[i].recorded)
				}
				used := float64(accepted) / during.Seconds() * latency.Seconds() / float64(capacity)
				share := float64(lowest) / (float64(recorded) / 10)
				t.Logf("%.0f %% of the capacity is used; the slowest worker records %.0f %% of the average; %.2f %% of the streams are refused",
					100*used, 100*share, 100*float64(refused)/float64(accepted+refused))
				if used < 0.8 {
					t.Errorf("only %.0f %% of the capacity is used", 100*used)
				}
				if share < 0.3 {
					t.Errorf("a worker records only %.0f %% of the average", 100*share)
				}
				if float64(refused) > 0.03*float64(accepted) {
					t.Errorf("%d streams are refused, %d accepted", refused, accepted)
				}
			})
		}
	}
}

// TestSlowerForGood: a gateway that has become slower for good counts as healthy after
// a while.
func TestSlowerForGood(t *testing.T) {
	g := &gateway{clock: newClock(4), latency: perPayload(250 * time.Millisecond), jitter: 0.1, wire: time.Millisecond}
	w := newWorker(g, Adaptive(DefaultMax), 100)
	w.run(30 * time.Second)
	g.latency = perPayload(600 * time.Millisecond)
	fell := time.Duration(0)
	for w.limit.Limit() > Start && fell < time.Minute {
		w.run(100 * time.Millisecond)
		fell += 100 * time.Millisecond
	}
	back := fell
	for w.limit.Limit() < 100 && back < 10*time.Minute {
		w.run(time.Second)
		back += time.Second
	}
	t.Logf("the limit fell to %d within %v, and was at 100 again after %v", Start, fell, back)
	if fell > 10*time.Second || back < 20*time.Second || back > 2*time.Minute {
		t.Errorf("the limit fell within %v and was back after %v", fell, back)
	}
}

// TestLimitRecoversFromStall: after a moment in which everything takes long the limit is soon what it was.
func TestLimitRecoversFromStall(t *testing.T) {
	g := &gateway{clock: newClock(9), latency: perPayload(250 * time.Millisecond), jitter: 0.1, wire: time.Millisecond}
	w := newWorker(g, Adaptive(DefaultMax), 100)
	w.run(10 * time.Second)
	before := w.measure(5 * time.Second)
	g.latency = perPayload(time.Second)
	w.run(6 * time.Second)
	g.latency = perPayload(250 * time.Millisecond)
	fallen := w.limit.Limit()
	w.run(5 * time.Second)
	after := w.measure(5 * time.Second)
	t.Logf("%.0f events/s before, a limit of %d, and %.0f events/s with %d after 5 s", before.perSecond, fallen, after.perSecond, w.limit.Limit())
	if fallen > 2*Start || after.perSecond < 0.9*before.perSecond {
		t.Errorf("%.0f events/s, %.0f before; the limit fell to %d", after.perSecond, before.perSecond, fallen)
	}
}

// TestQueueDoesNotBecomeNormal: a gateway that has streams wait is not taken for a slow
// one with time.
func TestQueueDoesNotBecomeNormal(t *testing.T) {
	long(t)
	g := &gateway{clock: newClock(5), latency: perPayload(250 * time.Millisecond), jitter: 0.1, capacity: 50, waits: true, wire: time.Millisecond}
	w := newWorker(g, Adaptive(DefaultMax), 100)
	for minute := range 5 {
		w.run(time.Minute)
		if waiting := len(g.waiting); waiting > 30 {
			t.Fatalf("after %d minutes %d streams wait at a gateway that takes 50", minute+1, waiting)
		}
	}
}

// TestNoiseDoesNotLowerLimit: neither latencies that vary much nor single failures keep the limit low.
func TestNoiseDoesNotLowerLimit(t *testing.T) {
	long(t)
	for _, test := range []struct {
		name            string
		jitter, failing float64
		bound           float64 // of what a limit of 128 records
	}{
		{"latencies that vary by 30 %", 0.3, 0, 0.9},
		{"latencies that vary by 60 %", 0.6, 0, 0.6},
		{"one stream in 200 fails", 0.1, 0.005, 0.8},
		{"one stream in 50 fails", 0.1, 0.02, 0.3},
	} {
		var rates []float64
		for _, l := range []*Limit{Fixed(128), Adaptive(DefaultMax)} {
			g := &gateway{clock: newClock(6), latency: perPayload(250 * time.Millisecond), jitter: test.jitter, failing: test.failing, wire: time.Millisecond}
			w := newWorker(g, l, 100)
			w.run(10 * time.Second)
			rates = append(rates, w.measure(40*time.Second).perSecond)
		}
		t.Logf("%s: %.0f events/s, %.0f with 128 streams", test.name, rates[1], rates[0])
		if rates[1] < test.bound*rates[0] {
			t.Errorf("%s: %.0f events/s, %.0f with 128 streams", test.name, rates[1], rates[0])
		}
	}
}

// TestPayloadSizes: with a gateway that publishes 250 events of a payload at once, the
// limit does not fall because payloads become larger.
func TestPayloadSizes(t *testing.T) {
	long(t)
	for _, publishers := range []int{3, 30, 300} {
		g := &gateway{clock: newClock(7), latency: per250(100 * time.Millisecond), jitter: 0.1, wire: time.Millisecond}
		w := newWorker(g, Adaptive(DefaultMax), publishers)
		w.run(5 * time.Second)
		s := w.measure(10 * time.Second)
		eight := newWorker(&gateway{clock: newClock(7), latency: per250(100 * time.Millisecond), jitter: 0.1, wire: time.Millisecond}, Fixed(Start), publishers)
		eight.run(5 * time.Second)
		fixed := eight.measure(10 * time.Second)
		t.Logf("%d publishers: %.0f events/s with %d streams, %.0f with 8", publishers, s.perSecond, w.limit.Limit(), fixed.perSecond)
		if s.perSecond < 1.4*fixed.perSecond {
			t.Errorf("%d publishers: %.0f events/s, %.0f with 8 streams", publishers, s.perSecond, fixed.perSecond)
		}
	}
}
