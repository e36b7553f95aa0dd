package relay

import (
	"slices"
	"testing"
	"time"

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
