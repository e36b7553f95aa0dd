package relay

import (
	"slices"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dedup"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/limit"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// parts are the parts of a loop that need no goroutine.
func parts(opts Options) *loop {
	opts.Metrics = metrics.New()
	r := newRun(opts)
	l := &loop{run: r}
	l.inflight = newInflightSet(func(id string) bool { return id != "" }, opts.Metrics)
	l.settlement = newSettlement(r, l.inflight, nil, dedup.NewHasher())
	l.deadLetters = newDeadLetterQueue(r, l.inflight, l.settlement, nil)
	l.queue = newSubmissionQueue(r, l.settlement, limit.Fixed(8))
	l.suspects = &suspects{run: r, inflight: l.inflight, queue: l.queue, deadLetters: l.deadLetters}
	l.suspects.controls = newControls(r, l.inflight, l.queue)
	l.suspects.schedule.history = &l.suspects.history
	return l
}

// TestNextTryIsThatOfTheServiceWithTheFewest has which of the tries that are due is next.
func TestNextTryIsThatOfTheServiceWithTheFewest(t *testing.T) {
	for _, test := range []struct {
		name string
		// The services and their streams, and how many events of them were tried.
		active, begun [2]int
		// The tries, in the order in which they were submitted last.
		tries []triedOf
		want  int // the index of the try
	}{
		{name: "the longest ago", tries: []triedOf{{0, true}, {1, true}, {0, true}}, want: 0},
		{name: "one that was not tried", tries: []triedOf{{0, true}, {1, false}, {0, false}}, want: 1},
		{name: "fewer of the service were", begun: [2]int{2, 1}, tries: []triedOf{{0, false}, {1, false}}, want: 1},
		{name: "very many were", begun: [2]int{maxBegun, 0}, tries: []triedOf{{0, false}, {0, true}}, want: 1},
		{name: "very many of another service were", begun: [2]int{maxBegun, 0}, tries: []triedOf{{0, false}, {0, true}, {1, false}}, want: 2},
		{name: "the service has all its streams", active: [2]int{7, 0}, tries: []triedOf{{0, false}, {0, true}, {1, true}}, want: 2},
		{name: "all services have", active: [2]int{7, 7}, tries: []triedOf{{0, true}, {1, false}}, want: 1},
		{name: "nothing is due", want: -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := parts(Options{})
			services := [2]*service{}
			for i := range services {
				services[i] = &service{active: test.active[i], begun: test.begun[i]}
			}
			for i, of := range test.tries {
				l.queue.tries = append(l.queue.tries, &submission{
					publisher: &publisher{service: services[of.service]},
					events:    []*inflight{{failures: &failureHistory{suspect: suspectOf(of.tried)}}}, role: try, started: uint64(i),
				})
			}
			// Tries without an event that is in flight do not count.
			l.queue.tries = append(l.queue.tries, &submission{role: try}, &submission{role: try, events: []*inflight{{settled: true}}})
			if got := slices.Index(l.queue.tries, l.suspects.chooseTry()); got != test.want {
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

// suspectOf returns a suspect that was tried or not.
func suspectOf(tried bool) *verdict.Suspect {
	v := &verdict.Suspect{}
	if tried {
		var history verdict.History
		history.Decide(verdict.Answer{Events: 1, Suspects: true, Exclusive: true}, v)
	}
	return v
}

// TestRejectedEventIsNoSuspect has a suspect rejected for another reason than being left
// out. From then on it waits for the dead-letter topic, and not for a verdict.
func TestRejectedEventIsNoSuspect(t *testing.T) {
	l := parts(Options{})
	e := &inflight{message: &consume.Message{}}
	e.publisher = l.inflight.publisherOf(event.Publisher{ServiceID: "sams"})
	l.inflight.add(e)
	l.inflight.suspect(e)
	l.inflight.suspectAlone(e)
	l.suspects.history.Decide(verdict.Answer{Events: 1, Suspects: true, Exclusive: true}, e.suspect())
	e.publisher.service.begun++
	l.deadLetters.reject(e, event.GatewayRefused, "")
	if set := l.inflight; set.leftOut != 0 || set.undecided != 0 || e.publisher.service.begun != 0 {
		t.Errorf("%d left out, %d undecided, %d tried, want none", set.leftOut, set.undecided, e.publisher.service.begun)
	}
	if l.deadLetters.pending.Len() != 1 {
		t.Errorf("%d wait for the dead-letter topic, want 1", l.deadLetters.pending.Len())
	}
}
