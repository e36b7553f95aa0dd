package limit

import (
	"testing"
	"time"
)

var epoch = time.Unix(1_800_000_000, 0)

// busy returns a limit that has grown so far, with all its streams in flight and
// events of the same size.
func busy(t *testing.T, ceiling, streams int) (*Limit, time.Time) {
	t.Helper()
	l := Adaptive(ceiling)
	now := epoch.Add(time.Second) // no dip is due
	const latency = 100 * time.Millisecond
	for l.Limit() < streams {
		for l.InFlight() < l.Limit() {
			l.Started(100)
		}
		now = now.Add(latency)
		for range l.InFlight() {
			l.Ended(End{Latency: latency, Events: 100, Waiting: 10_000}, now)
		}
		if now.Sub(epoch) > 50*time.Second {
			t.Fatalf("the limit has grown to %d only", l.Limit())
		}
	}
	for l.InFlight() < l.Limit() {
		l.Started(100)
	}
	return l, now
}

func TestLimitFollowsOutcomes(t *testing.T) {
	for _, test := range []struct {
		name   string
		ends   []Outcome
		limit  int
		reason Reason
	}{
		{"answers", []Outcome{Answered, Answered}, 64, NotFallen},
		{"nothing is known", []Outcome{Ignored, Ignored, Ignored}, 64, NotFallen},
		{"one refusal", []Outcome{Refused}, 63, Refusal},
		{"three refusals", []Outcome{Refused, Refused, Refused}, 61, Refusal},
		{"a refusal while few are in flight takes a tenth", append(repeated(Ignored, 40), Refused), 57, Refusal},
		{"one failure", []Outcome{Failed}, 63, Failure},
		{"all fail", repeated(Failed, 64), 1, Failure},
		{"all are refused", repeated(Refused, 64), 1, Refusal},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, now := busy(t, DefaultMax, 64)
			for _, o := range test.ends {
				l.Ended(End{Outcome: o, Latency: 50 * time.Millisecond, Events: 100, Waiting: 10_000}, now.Add(100*time.Millisecond))
			}
			if l.Limit() != test.limit || l.Reason() != test.reason {
				t.Errorf("the limit is %d (%s), want %d (%s)", l.Limit(), l.Reason(), test.limit, test.reason)
			}
			if want := 64 - len(test.ends); l.InFlight() != want {
				t.Errorf("%d streams are in flight, want %d", l.InFlight(), want)
			}
		})
	}
}

func repeated(o Outcome, n int) []Outcome {
	all := make([]Outcome, n)
	for i := range all {
		all[i] = o
	}
	return all
}

func TestNeverAboveTheCeiling(t *testing.T) {
	for _, ceiling := range []int{1, 5, 8, 9, 100} {
		l, _ := busy(t, ceiling, ceiling)
		if l.Limit() != ceiling {
			t.Errorf("the limit is %d, want %d", l.Limit(), ceiling)
		}
	}
}

// round ends all streams in flight, each followed by the next.
func round(l *Limit, now *time.Time, latency time.Duration, e End) {
	for l.InFlight() < l.Limit() {
		l.Started(e.Events)
	}
	*now = now.Add(latency)
	e.Latency = latency
	for range l.InFlight() {
		l.Ended(e, *now)
		if l.InFlight() < l.Limit() {
			l.Started(e.Events)
		}
	}
}

func TestGrowsOnlyWithDemand(t *testing.T) {
	for _, test := range []struct {
		waiting, limit int
	}{
		{0, 8},
		{200, 8}, // 800 are in flight
		{300, 16},
		{10_000, 16},
	} {
		l, now := Adaptive(DefaultMax), epoch
		for range 3 {
			round(l, &now, 100*time.Millisecond, End{Events: 100, Waiting: test.waiting})
			if l.Limit() > Start {
				break
			}
		}
		if l.Limit() != test.limit {
			t.Errorf("%d events waiting: the limit is %d, want %d", test.waiting, l.Limit(), test.limit)
		}
	}
}

func TestUnusedFalls(t *testing.T) {
	l, now := busy(t, DefaultMax, 64)
	for l.InFlight() > 0 {
		l.Ended(End{Outcome: Ignored, Events: 100}, now)
	}
	for range 200 {
		for range 10 {
			l.Started(100)
		}
		now = now.Add(50 * time.Millisecond)
		for range 10 {
			l.Ended(End{Events: 100, Latency: 50 * time.Millisecond}, now)
		}
	}
	if l.Limit() != 20 || l.Reason() != Unused {
		t.Errorf("the limit is %d (%s), want twice as many as were in flight", l.Limit(), l.Reason())
	}
}

func TestFixedLimitDoesNotChange(t *testing.T) {
	l, now := Fixed(20), epoch
	for _, o := range []Outcome{Answered, Failed, Refused, Answered, Ignored} {
		for range 100 {
			l.Started(100)
			now = now.Add(time.Duration(l.Limit()) * 10 * time.Millisecond)
			l.Ended(End{Outcome: o, Latency: now.Sub(epoch), Events: 100, Waiting: 10_000}, now)
			if l.Limit() != 20 || l.Reason() != NotFallen {
				t.Fatalf("the limit is %d (%s)", l.Limit(), l.Reason())
			}
		}
	}
	l.Reset()
	if l.Limit() != 1 || l.Reason() != Outage {
		t.Errorf("after an outage the limit is %d (%s)", l.Limit(), l.Reason())
	}
	for range 100 {
		round(l, &now, time.Second, End{Events: 100})
	}
	if l.Limit() != 20 {
		t.Errorf("the limit came back to %d", l.Limit())
	}
}

func TestLimitAfterOutage(t *testing.T) {
	l, now := busy(t, DefaultMax, 64)
	l.Reset()
	for range l.InFlight() {
		l.Ended(End{Outcome: Failed, Events: 100, Latency: time.Second}, now)
	}
	if l.Limit() != 1 {
		t.Fatalf("the limit is %d", l.Limit())
	}
	round(l, &now, 100*time.Millisecond, End{Outcome: Ignored, Events: 100, Waiting: 1000})
	if l.Limit() != 1 {
		t.Errorf("an answer without a recorded event raised the limit to %d", l.Limit())
	}
	for _, want := range []int{2, 4, 8} {
		round(l, &now, 100*time.Millisecond, End{Events: 100, Waiting: 1000})
		if l.Limit() != want {
			t.Errorf("the limit is %d, want %d", l.Limit(), want)
		}
	}
}

func TestLatencyLowersAtOnce(t *testing.T) {
	for _, test := range []struct {
		latency time.Duration
		limit   int
	}{
		{100 * time.Millisecond, 64},
		{130 * time.Millisecond, 64},
		{160 * time.Millisecond, 44}, // × 1.1 ÷ 1.6
		{time.Second, 32},            // one half at most
	} {
		l, now := busy(t, DefaultMax, 64)
		now = now.Add(test.latency)
		for range fewest {
			l.Ended(End{Events: 100, Latency: test.latency, Waiting: 10_000}, now)
		}
		if l.Limit() != test.limit {
			t.Errorf("%v: the limit is %d, want %d", test.latency, l.Limit(), test.limit)
		}
	}
}

func TestLatencyNeverLowersBelowStart(t *testing.T) {
	l, now := busy(t, DefaultMax, 64)
	for latency := 100 * time.Millisecond; latency < 25*time.Second; latency = latency * 3 / 2 {
		round(l, &now, latency, End{Events: 100, Waiting: 10_000})
	}
	if l.Limit() != Start {
		t.Errorf("the limit is %d", l.Limit())
	}
}

func TestLargerPayloadsMayTakeLonger(t *testing.T) {
	l, now := busy(t, DefaultMax, 64)
	// Payloads ten times as large take seven times as long.
	for range l.InFlight() {
		l.Ended(End{Events: 100, Latency: 100 * time.Millisecond, Waiting: 10_000}, now)
	}
	for range 5 {
		round(l, &now, 700*time.Millisecond, End{Events: 1000, Waiting: 100_000})
	}
	if l.Reason() != NotFallen {
		t.Errorf("the limit fell to %d: %s", l.Limit(), l.Reason())
	}
}

func TestSizesHaveClasses(t *testing.T) {
	previous := 0
	for n := 1; n <= 100_000; n++ {
		c := class(n, 0)
		if c < previous || c >= classes {
			t.Fatalf("%d events have class %d after %d", n, c, previous)
		}
		if half := class(n+n/2+1, 0); n > 1 && n < 40_000 && half == c {
			t.Fatalf("%d and %d events have the same class", n, n+n/2+1)
		}
		previous = c
	}
	if class(1, 4<<20) != class(1024, 0) {
		t.Error("the bytes of large events do not count")
	}
	if class(1000, 370_000) != class(1000, 0) {
		t.Error("the bytes of small events count")
	}
}

func TestExpectedLatencyIsPlausible(t *testing.T) {
	at := func(events int) int { return class(events, 0) }
	known := map[int]float64{at(100): 0.2, at(800): 0.4}
	for _, test := range []struct {
		name           string
		events         int
		measured, want float64
	}{
		{"as measured", 300, 0.3, 0.3},
		{"not longer than a larger payload", 300, 0.9, 0.4},
		{"not shorter than a smaller one", 300, 0.1, 0.2},
		{"larger than all: in proportion at most", 2000, 9, 0.4 * larger(at(2000)-at(800))},
		{"smaller than all: not longer", 10, 0.5, 0.2},
	} {
		var b best
		var all [classes]float64
		for c, seconds := range known {
			all[c] = seconds
		}
		if got := b.plausible(at(test.events), test.measured, &all); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
