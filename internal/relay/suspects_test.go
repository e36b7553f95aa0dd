package relay

import (
	"slices"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// keptFlight has so many events that are kept back.
func keptFlight(n int) *flight {
	f := &flight{}
	for range n {
		f.events = append(f.events, &held{})
	}
	return f
}

// TestTakePart submits what is kept back in parts that leave enough to condemn an event
// that is found among them, for as long as that is possible.
func TestTakePart(t *testing.T) {
	kept := []*flight{keptFlight(20), keptFlight(28)}
	kept[0].events[3].gone = true
	var parts []int
	for len(kept) > 0 {
		n := 0
		for _, f := range takePart(&kept) {
			n += len(f.events)
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
	// tried is an event with so many tries that are pending, the first of them a while ago.
	tried := func(s *suspects, pending int, ago time.Duration) *verdict.Suspect {
		v := &verdict.Suspect{}
		for i := range pending {
			s.history.Decide(verdict.Answer{Events: 1, Suspects: true, Exclusive: true, Came: uint64(i + 1), At: now.Add(-ago)}, v)
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
		{"too few to condemn anybody", 4, 1, -1, 0, 0, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &suspects{history: verdict.History{Rules: verdict.Rules{RejectAfter: 5, MinSpan: time.Minute}}, proved: now.Add(-test.since)}
			if test.kept > 0 {
				s.reserve = []*flight{keptFlight(test.kept)}
			}
			v := tried(s, test.pending, test.ago)
			all := []*verdict.Suspect{v}
			if test.other >= 0 {
				all = append(all, tried(s, test.other, test.ago))
			}
			if got := s.proofDue(v, all, test.othersWait, now); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// TestChooseTry has which of the tries that are due is next.
func TestChooseTry(t *testing.T) {
	for _, test := range []struct {
		name string
		// The services and their streams, and how many events of them were tried.
		flying, begun [2]int
		// The tries, in the order in which they were launched last.
		tries []triedOf
		want  int // the index of the try
	}{
		{name: "the longest ago", tries: []triedOf{{0, true}, {1, true}, {0, true}}, want: 0},
		{name: "one that was not tried", tries: []triedOf{{0, true}, {1, false}, {0, false}}, want: 1},
		{name: "fewer of the service were", begun: [2]int{2, 1}, tries: []triedOf{{0, false}, {1, false}}, want: 1},
		{name: "very many were", begun: [2]int{begunAtOnce, 0}, tries: []triedOf{{0, false}, {0, true}}, want: 1},
		{name: "very many of another service were", begun: [2]int{begunAtOnce, 0}, tries: []triedOf{{0, false}, {0, true}, {1, false}}, want: 2},
		{name: "the service has all its streams", flying: [2]int{7, 0}, tries: []triedOf{{0, false}, {0, true}, {1, true}}, want: 2},
		{name: "all services have", flying: [2]int{7, 7}, tries: []triedOf{{0, true}, {1, false}}, want: 1},
		{name: "nothing is due", want: -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &Relay{}
			r.capacity = newCapacity(Options{Streams: 8})
			services := [2]*service{}
			for i := range services {
				services[i] = &service{flying: test.flying[i], begun: test.begun[i]}
			}
			for i, of := range test.tries {
				v := &verdict.Suspect{}
				if of.tried {
					var history verdict.History
					history.Decide(verdict.Answer{Events: 1, Suspects: true, Exclusive: true}, v)
				}
				r.flights.tries = append(r.flights.tries, &flight{
					publisher: &publisher{service: services[of.service]},
					events:    []*held{{rare: &rare{suspect: v}}}, suspect: true, try: true, launched: uint64(i),
				})
			}
			// What is settled or empty is no try any more.
			r.flights.tries = append(r.flights.tries, &flight{try: true}, &flight{try: true, events: []*held{{gone: true}}})
			got := slices.Index(r.flights.tries, r.chooseTry())
			if got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

// triedOf is a try of an event of a service, which was tried before or not.
type triedOf struct {
	service int
	tried   bool
}

// TestRejectedIsNoSuspect has a suspect rejected for another reason than being left out.
// From then on it waits for the dead-letter topic, and not for a verdict.
func TestRejectedIsNoSuspect(t *testing.T) {
	r := &Relay{loop: newLoop(Options{})}
	of := &service{}
	h := &held{message: &consume.Message{}, publisher: &publisher{service: of}}
	r.suspect(h)
	r.markAlone(h)
	r.suspects.history.Decide(verdict.Answer{Events: 1, Suspects: true, Exclusive: true}, h.rare.suspect)
	of.begun++
	r.bury(h, event.GatewayRefused, "")
	if s := &r.suspects; s.leftOut != 0 || s.alone != 0 || of.begun != 0 {
		t.Errorf("%d left out, %d alone, %d tried, want none", s.leftOut, s.alone, of.begun)
	}
	if r.graves.Len() != 1 {
		t.Errorf("%d wait for the dead-letter topic, want 1", r.graves.Len())
	}
}
