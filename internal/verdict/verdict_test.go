package verdict

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

// answers makes the answers of a gateway, with their logical and real times.
type answers struct {
	History
	clock uint64
	now   time.Time
}

func newAnswers(rejectAfter int) *answers {
	return &answers{History: History{Rules: Rules{RejectAfter: rejectAfter, MinSpan: DefaultSpan}}, now: time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)}
}

// after advances the time.
func (g *answers) after(d time.Duration) { g.now = g.now.Add(d) }

// others submits events that were not left out before, while no suspect is in flight.
func (g *answers) others(events, recorded int) Decision {
	g.clock += 2
	g.after(bundleTime)
	return g.Decide(Answer{Events: events, Recorded: recorded, Exclusive: true, SentAt: g.now, Sent: g.clock - 1, Came: g.clock, At: g.now, LeftOut: events - recorded}, nil)
}

// alone submits a suspect alone, with no other suspect in flight; the gateway leaves it out.
func (g *answers) alone(s *Suspect) Decision {
	g.clock += 2
	return g.Decide(Answer{Events: 1, Suspects: true, Exclusive: true, Connection: int(g.clock/2) % 3, Sent: g.clock - 1, Came: g.clock, At: g.now, LeftOut: 1}, s)
}

// triesUntilDeadLetter tries the event every 13 s, each time with a proof, and returns how
// many tries it takes until the event is dead-lettered; 0 if limit tries are not enough.
func (g *answers) triesUntilDeadLetter(s *Suspect, limit int, proof func(try int)) int {
	for try := 1; try <= limit; try++ {
		g.alone(s)
		proof(try)
		g.after(13 * time.Second)
		if g.Review(s) == DeadLetter {
			return try
		}
	}
	return 0
}

// inputs are the rows of the table in docs/verdict.md: an answer, and what it means.
var inputs = []struct {
	row  string // as the page has it
	a    Answer
	with *Suspect
	// silent is how many answers before recorded nothing. A negative number means that all
	// of them were answers to suspects.
	silent int
	want   Decision
}{
	{"all recorded", Answer{Events: 100, Recorded: 100}, nil, 0, Settled},
	{"a part left out", Answer{Events: 1000, Recorded: 900}, nil, 0, Bisect},
	{"all left out for the first time", Answer{Events: 100, LeftOut: 100}, nil, 3, Retry},
	{"all left out again", Answer{Events: 100, Suspects: true, Again: true, LeftOut: 100}, nil, 3, Bisect},
	{"one event left out for the first time", Answer{Events: 1, LeftOut: 1}, nil, 0, Bisect},
	{"one event, again, with other suspects in flight", Answer{Events: 1, Suspects: true, LeftOut: 1}, &Suspect{}, 0, Retry},
	{"one event, again, with no other suspect in flight", Answer{Events: 1, Suspects: true, Exclusive: true, LeftOut: 1}, &Suspect{}, 0, Undecided},
	{"nothing recorded in 16 answers, more than 10 events left out", Answer{Events: 5, LeftOut: 11}, nil, 15, Outage},
	{"nothing recorded in 16 answers, 10 events left out", Answer{Events: 5, Again: true, LeftOut: 10}, nil, 15, Bisect},
	{"nothing recorded in 16 answers, all of them to suspects", Answer{Events: 5, Again: true, Suspects: true, LeftOut: 20}, &Suspect{}, -20, Bisect},
	{"left out while the breaker is open", Answer{Events: 5, BreakerOpen: true, LeftOut: 5}, nil, 0, Outage},
}

func TestDecisionsMatchDocument(t *testing.T) {
	page, err := os.ReadFile("../../docs/verdict.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range inputs {
		t.Run(test.row, func(t *testing.T) {
			g := newAnswers(5)
			for range max(test.silent, -test.silent) {
				g.Decide(Answer{Events: 2, LeftOut: 2, Suspects: test.silent < 0}, nil)
			}
			if got := g.Decide(test.a, test.with); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
			if row := fmt.Sprintf("| %s | %s |", test.row, test.want); !strings.Contains(string(page), row) {
				t.Errorf("docs/verdict.md has no row %q", row)
			}
		})
	}
}

// TestTriesUntilVerdict counts the tries until an event is dead-lettered.
func TestTriesUntilVerdict(t *testing.T) {
	page, err := os.ReadFile("../../docs/verdict.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		row                      string
		events, recorded, each   int // payloads of others between two tries
		rejectAfter, want, limit int
	}{
		{"1,000 others, all recorded", 100, 100, 10, 5, 6, 50}, // 5 in time: they must span a minute
		{"1,000 others, all recorded, `WORKER_REJECT_AFTER=20`", 100, 100, 10, 20, 20, 50},
		{"one control, recorded", 1, 1, 1, 5, 11, 50},
		{"1,000 others, 30 % left out", 100, 70, 10, 5, 18, 50},
		{"1,000 others, 60 % left out", 100, 40, 10, 5, 41, 100},
		{"1,000 others, 80 % left out", 100, 20, 10, 5, 93, 200},
		{"nothing", 0, 0, 0, 5, 0, 200},
		{"1,000 others, all left out", 100, 0, 10, 5, 0, 200},
		{"1,000 others, all recorded, `WORKER_REJECT_AFTER=0`", 100, 100, 10, 0, 0, 200},
	} {
		t.Run(test.row, func(t *testing.T) {
			g := newAnswers(test.rejectAfter)
			got := g.triesUntilDeadLetter(&Suspect{}, test.limit, func(int) {
				for range test.each {
					g.others(test.events, test.recorded)
				}
			})
			if got != test.want {
				t.Errorf("condemned after %d tries, want %d", got, test.want)
			}
			text := fmt.Sprint(test.want)
			if test.want == 0 {
				text = "never"
			}
			if row := fmt.Sprintf("| %s | %s |", test.row, text); !strings.Contains(string(page), row) {
				t.Errorf("docs/verdict.md has no row %q", row)
			}
		})
	}
}

// TestTryCountsOnlyWithEvidence leaves out each condition for a try to count, one at a time.
func TestTryCountsOnlyWithEvidence(t *testing.T) {
	condemned := func(g *answers, s *Suspect, alone func()) bool {
		for range 30 {
			alone()
			for range 10 {
				g.others(100, 100)
			}
			g.after(13 * time.Second)
			if g.Review(s) == DeadLetter {
				return true
			}
		}
		return false
	}
	t.Run("complete", func(t *testing.T) {
		g, s := newAnswers(5), &Suspect{}
		if !condemned(g, s, func() { g.alone(s) }) {
			t.Error("not condemned")
		}
	})
	t.Run("other suspects in flight", func(t *testing.T) {
		g, s := newAnswers(5), &Suspect{}
		if condemned(g, s, func() {
			g.clock += 2
			g.Decide(Answer{Events: 1, Suspects: true, Sent: g.clock - 1, Came: g.clock, At: g.now, LeftOut: 1}, s)
		}) {
			t.Error("condemned")
		}
	})
	t.Run("one connection", func(t *testing.T) {
		g, s := newAnswers(5), &Suspect{}
		if condemned(g, s, func() {
			g.clock += 2
			g.Decide(Answer{Events: 1, Suspects: true, Exclusive: true, Sent: g.clock - 1, Came: g.clock, At: g.now, LeftOut: 1}, s)
		}) {
			t.Error("condemned")
		}
	})
	t.Run("within a minute", func(t *testing.T) {
		g, s := newAnswers(5), &Suspect{}
		for range 50 {
			g.alone(s)
			g.others(1000, 1000)
			g.after(time.Second)
			if g.Review(s) == DeadLetter {
				t.Fatal("condemned")
			}
		}
	})
	t.Run("nothing recorded after the try", func(t *testing.T) {
		g, s := newAnswers(5), &Suspect{}
		g.others(100, 100)
		for range 50 {
			g.alone(s)
			g.after(13 * time.Second)
		}
		if got := g.Review(s); got != Undecided || s.Counted != 0 || s.Pending() != MaxPending {
			t.Errorf("%v, %d tries count, %d are pending", got, s.Counted, s.Pending())
		}
	})
	t.Run("one proof for many tries", func(t *testing.T) {
		g, s := newAnswers(5), &Suspect{}
		for proof := range minProofs {
			for range 2 * MaxPending {
				g.alone(s)
				g.after(13 * time.Second)
			}
			for range 100 {
				g.others(100, 100)
			}
			want := Undecided
			if proof == minProofs-1 {
				want = DeadLetter
			}
			if got := g.Review(s); got != want || s.Counted != (proof+1)*MaxPending {
				t.Errorf("after %d proofs: %v, %d tries count", proof+1, got, s.Counted)
			}
		}
	})
	t.Run("an outage after the try", func(t *testing.T) {
		g, s := newAnswers(5), &Suspect{}
		g.alone(s)
		g.Decide(Answer{Events: 5, BreakerOpen: true, LeftOut: 5, Came: g.clock + 1}, nil)
		g.clock += 2
		g.others(100, 100)
		if g.Review(s); s.Counted != 0 {
			t.Errorf("%d tries count", s.Counted)
		}
	})
}

// TestTriesWithFewOtherEvents counts the tries when few other events are recorded, one by
// one, and how many tries share a proof.
func TestTriesWithFewOtherEvents(t *testing.T) {
	for _, test := range []struct{ others, want int }{
		{3, 0}, {4, 0}, {5, 27}, {6, 21}, {8, 15}, {10, 12}, {20, 7}, {30, 6}, {40, 6},
	} {
		t.Run(fmt.Sprint(test.others), func(t *testing.T) {
			g, s := newAnswers(5), &Suspect{}
			for left := test.others; left > 0; left-- {
				tries, span := g.Missing(s, left, g.now)
				run := min(MaxPending, max(1, (tries+left-1)/left))
				for range run {
					g.after(max(span/time.Duration(max(1, tries-1)), 0) + time.Second)
					g.alone(s)
				}
				g.others(1, 1)
			}
			if decision := g.Review(s); (decision == DeadLetter) != (test.want > 0) || test.want > 0 && s.Counted < test.want {
				t.Errorf("%v after %d tries, want %d at least", decision, s.Counted, test.want)
			}
		})
	}
}

// TestMissingEvidenceIsNamed: Missing shrinks as evidence comes.
func TestMissingEvidenceIsNamed(t *testing.T) {
	g, s := newAnswers(5), &Suspect{}
	check := func(others, wantTries int, wantSpan time.Duration) {
		t.Helper()
		if tries, span := g.Missing(s, others, g.now); tries != wantTries || span != wantSpan {
			t.Errorf("with %d others: %d tries in %v, want %d in %v", others, tries, span, wantTries, wantSpan)
		}
	}
	check(0, hopeless, time.Minute)
	check(10, 12, time.Minute)
	check(1000, 5, time.Minute)
	g.alone(s)
	g.after(20 * time.Second)
	check(10, 11, 40*time.Second)
	g.others(1, 1)
	check(9, 11, 40*time.Second-bundleTime)
	g.after(time.Hour)
	check(9, 11, 0)
}

func TestPayloadsThatShareARequestCountOnce(t *testing.T) {
	g := newAnswers(5)
	for i := range 10 {
		g.Decide(Answer{Events: 1, Recorded: 1, Exclusive: true, SentAt: g.now.Add(time.Duration(i) * time.Millisecond)}, nil)
	}
	if g.observed >= 1.5 {
		t.Errorf("%v observations, want about one", g.observed)
	}
	g.after(bundleTime)
	g.others(1, 1)
	if g.observed < 2 {
		t.Errorf("%v observations, want two and a bit", g.observed)
	}
}

// TestHealthyEventIsRarelyCondemned submits a healthy event to a gateway that loses a share
// of all events. For each share, and each order of tries and proofs, the event must be
// dead-lettered with a probability of at most maxDoubt. The probability is exact, because
// the test follows all courses.
func TestHealthyEventIsRarelyCondemned(t *testing.T) {
	for _, run := range []int{1, 2, 4, MaxPending} {
		for _, percent := range []float64{30, 50, 70, 80, 90, 95} {
			if got := chance(percent/100, run, 12); got > maxDoubt {
				t.Errorf("%v %% lost, %d tries a proof: condemned with a probability of %.2g", percent, run, got)
			}
		}
	}
}

// chance returns the probability that a healthy event is dead-lettered. The test repeats
// run tries followed by one other event, proofs times. The gateway loses each event with
// the probability loss.
func chance(loss float64, run, proofs int) (condemned float64) {
	type course struct{ counted, pending, lost, recorded int }
	courses := map[course]float64{{}: 1}
	for range proofs {
		next := map[course]float64{}
		for c, p := range courses {
			p *= math.Pow(loss, float64(run)) // or the event is recorded
			c.pending = min(MaxPending, c.pending+run)
			next[course{c.counted, c.pending, c.lost + 1, c.recorded}] += p * loss
			h := History{Rules: Rules{RejectAfter: 5}, observed: float64(c.lost + c.recorded + 1), lost: float64(c.lost)}
			c.counted, c.pending, c.recorded = c.counted+c.pending, 0, c.recorded+1
			if c.recorded >= minProofs && c.counted >= h.needed(&Suspect{begun: true}, 0) {
				condemned += p * (1 - loss)
			} else {
				next[c] += p * (1 - loss)
			}
		}
		courses = next
	}
	return condemned
}

// TestLossBeforeTheFirstTryDoesNotCount has an outage before the first try of the event,
// which must not change how many tries are needed.
func TestLossBeforeTheFirstTryDoesNotCount(t *testing.T) {
	g, s := newAnswers(5), &Suspect{}
	for range 100 {
		g.others(100, 1)
	}
	if got := g.triesUntilDeadLetter(s, 50, func(int) {
		for range 10 {
			g.others(100, 100)
		}
	}); got != 6 {
		t.Errorf("condemned after %d tries, want 6", got)
	}
}
