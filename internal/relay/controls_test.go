package relay

import (
	"slices"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dedup"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// kept has so many events that are kept back.
func kept(n int) *submission {
	s := &submission{}
	for range n {
		s.events = append(s.events, &inflight{})
	}
	return s
}

// TestControlsAreSubmittedInParts submits controls in parts that leave enough to prove
// that an event among them is at fault, for as long as that is possible.
func TestControlsAreSubmittedInParts(t *testing.T) {
	all := []*submission{kept(20), kept(28)}
	all[0].events[3].settled = true
	var parts []int
	for len(all) > 0 {
		n := 0
		for _, s := range takePart(&all) {
			n += len(s.events)
		}
		parts = append(parts, n)
	}
	if want := []int{15, 10, 7, 5, 1, 1, 1, 1, 1, 5}; !slices.Equal(parts, want) {
		t.Errorf("parts of %v events, want %v", parts, want)
	}
}

// TestProofDue has when a control is spent.
func TestProofDue(t *testing.T) {
	now := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	history := &verdict.History{Rules: verdict.Rules{RejectAfter: 5, MinSpan: time.Minute}}
	// tried is an event with so many tries that are pending, the first of them a while ago.
	tried := func(pending int, ago time.Duration) *verdict.Suspect {
		v := &verdict.Suspect{}
		for i := range pending {
			history.Decide(verdict.Answer{Events: 1, Suspects: true, Exclusive: true, Came: uint64(i + 1), At: now.Add(-ago)}, v)
		}
		return v
	}
	for _, test := range []struct {
		name       string
		kept       int
		pending    int           // tries of the event
		other      int           // tries of another event; below 0: there is none
		ago        time.Duration // since the first try
		since      time.Duration // since the latest proof
		othersWait bool
		want       bool
	}{
		{"nothing is kept back", 0, 6, -1, time.Hour, time.Hour, false, false},
		{"others wait", 0, 1, -1, time.Minute, 3 * time.Second, true, true},
		{"others wait, just proven", 48, 1, -1, time.Minute, time.Second, true, false},
		{"many, not tried", 48, 0, -1, 0, time.Hour, false, false},
		{"many", 48, 1, -1, 0, 1250 * time.Millisecond, false, true},
		{"many, just proven", 48, 1, -1, 0, time.Second, false, false},
		{"many, another event was not tried", 48, 1, 0, 0, time.Minute, false, true},
		{"ten, one try", 10, 1, -1, 10 * time.Second, time.Minute, false, false},
		{"ten, two tries", 10, 2, -1, 10 * time.Second, 5 * time.Second, false, true},
		{"ten, two tries, just proven", 10, 2, -1, 10 * time.Second, 4 * time.Second, false, false},
		{"ten, another event was not tried", 10, 2, 0, 10 * time.Second, time.Minute, false, false},
		{"five, five tries", 5, 5, -1, 10 * time.Second, time.Minute, false, false},
		{"five, six tries", 5, 6, -1, 10 * time.Second, time.Minute, false, true},
		{"too few to prove anything", 4, 1, -1, 0, 0, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &schedule{history: history, proved: now.Add(-test.since)}
			v := tried(test.pending, test.ago)
			all := []*verdict.Suspect{v}
			if test.other >= 0 {
				all = append(all, tried(test.other, test.ago))
			}
			if got := s.proofDue(v, all, test.kept, test.othersWait, now); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// keeping is a loop's part that keeps fresh events of one service back, in a drain.
type keeping struct {
	*loop
	of  *publisher
	now time.Time
}

func newKeeping() *keeping {
	k := &keeping{loop: parts(Options{Drain: true, RejectAfter: 5}), now: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)}
	k.of = k.inflight.publisherOf(event.Publisher{ServiceID: "svc"})
	return k
}

// arrive has events arrive and be in flight.
func (k *keeping) arrive(n int) {
	k.suspects.controls.arrived(n, k.now)
	for i := range n {
		k.inflight.add(&inflight{publisher: k.of, fingerprint: dedup.Fingerprint{byte(i)}})
	}
}

// keep has a batch of so many events be submitted, and returns how many were kept back.
func (k *keeping) keep(n int) int {
	batch := kept(n)
	batch.publisher = k.of
	k.suspects.controls.keepFresh(batch, true, k.now)
	return n - len(batch.events)
}

// free submits what may be submitted, and returns how many events that were.
func (k *keeping) free(streams int) (n int) {
	before := k.suspects.controls.count()
	k.suspects.controls.freeFresh(streams, k.now)
	return before - k.suspects.controls.count()
}

// TestFewFreshEventsAreKeptBackWhileOthersArrive has 1,000 events a second for a minute.
// After the first ones, one of 200 is kept back, for 2 s.
func TestFewFreshEventsAreKeptBackWhileOthersArrive(t *testing.T) {
	k := newKeeping()
	k.arrive(100)
	if got := k.keep(1000); got != maxControls {
		t.Fatalf("%d events of the first batch were kept back, want %d", got, maxControls)
	}
	k.queue.add(&inflight{publisher: k.of}, k.now) // another one always waits
	all, most, waited := 0, 0, time.Duration(0)
	began := k.now
	for k.now.Sub(began) < time.Minute {
		k.now = k.now.Add(100 * time.Millisecond)
		k.suspects.controls.arrived(100, k.now)
		all += k.keep(100)
		k.free(1)
		if k.now.Sub(began) > 3*maxControlsIdle {
			most = max(most, k.suspects.controls.count())
		}
		if fresh := k.suspects.controls.fresh; len(fresh) > 0 {
			waited = max(waited, k.now.Sub(fresh[0].due.Add(-maxControlsIdle)))
		}
	}
	if all > 60_000/arrivalsPerControl+1 || all < 250 {
		t.Errorf("%d of 60,000 events were kept back, want one of %d", all, arrivalsPerControl)
	}
	if most > 10 || waited > maxControlsIdle {
		t.Errorf("%d at once, and the longest for %v, want at most 10 for %v", most, waited, maxControlsIdle)
	}
	k.now = k.now.Add(arrivalPause)
	if got := k.keep(100); got < maxControls-10 {
		t.Errorf("%d events were kept back when nothing arrived any more, want %d with those before", got, maxControls)
	}
}

// TestLastFreshEventsAreFreedInParts when nothing else waits: a second after the last
// change, or at once when no stream is left, but never while an event is suspected.
func TestLastFreshEventsAreFreedInParts(t *testing.T) {
	k := newKeeping()
	k.arrive(100)
	k.keep(100)
	k.now = k.now.Add(controlsIdle - 1)
	if got := k.free(1); got != 0 {
		t.Errorf("%d events were submitted while the last answers were awaited, want none", got)
	}
	k.inflight.leftOut = 1
	k.now = k.now.Add(time.Hour)
	if got := k.free(0); got != 0 {
		t.Errorf("%d events were submitted while one was suspected, want none", got)
	}
	k.inflight.leftOut = 0
	if got := k.free(0); got != 16 {
		t.Errorf("%d events were submitted when no stream was left, want a third of 48", got)
	}
}
