// Package verdict decides who is at fault when the gateway leaves events out of
// an answer: the event, its neighbours, or the gateway. It is pure: it knows
// the time because it is told, does no I/O, and knows nothing of streams.
//
// The gateway does not say why it leaves an event out. It publishes in bundles of
// up to 100 events of several payloads and streams, and a bundle that Pub/Sub
// refuses is left out as a whole: so an event that was left out is not therefore
// at fault. docs/verdict.md has the picture, and why the rule is sound.
package verdict

import (
	"math"
	"time"
)

// Decision is what becomes of the events that an answer left out.
type Decision int

const (
	// Settled: nothing was left out.
	Settled Decision = iota
	// Retry: submit what was left out again as it is. Nothing counts.
	Retry
	// Bisect: submit what was left out again in two halves.
	Bisect
	// Undecided: submit the event again, alone, after a while.
	Undecided
	// DeadLetter: the event is at fault.
	DeadLetter
	// Outage: the gateway records (nearly) nothing. Open the breaker, and submit
	// what was left out again as it is. Nothing counts.
	Outage
)

func (d Decision) String() string {
	return [...]string{"settled", "retry", "bisect", "undecided", "dead-letter", "outage"}[d]
}

// Rules are the limits of a judgment.
type Rules struct {
	// RejectAfter is how many tries must count against an event, at least; 0: an
	// event is never condemned for being left out.
	RejectAfter int
	// MinSpan is the time from the first try that counts to the last one, at
	// least: an outage may be as short as a few seconds.
	MinSpan time.Duration
}

const (
	// DefaultSpan is MinSpan where it matters to people's events.
	DefaultSpan = time.Minute
	// bundleSize is how many events the gateway publishes in one request, at
	// most. They are recorded or left out together, so they are one observation.
	bundleSize = 100
	// maxDoubt is how probable it may be, at most, that an event which is
	// condemned was left out by chance.
	maxDoubt = 1e-9
	// The loss is never taken for smaller, or larger, than this.
	minLoss, maxLoss = 0.01, 0.99
	// silentAnswers in a row, with nothing recorded, are an outage, if silentOthers
	// of them had events that are no suspects, and more than outageEvents events
	// are left out by then. Fewer may all be at fault, and do not stop a worker.
	silentAnswers = 16
	silentOthers  = 3
	outageEvents  = 10
)

// Answer is the gateway's answer to one payload.
type Answer struct {
	// Events is how many there were, Recorded how many of them are listed.
	Events, Recorded int
	// Suspects: all of the events had been left out before, and are none of the
	// controls.
	Suspects bool
	// Again: the same payload was left out as a whole before.
	Again bool
	// Exclusive: no other payload with suspects was in flight at any time while
	// this one was. A bundle mixes payloads, so only then nobody else can be at
	// fault who is known.
	Exclusive bool
	// Connection is the number of the connection that carried it.
	Connection int
	// Sent and Came order all payloads and answers by a clock that counts them.
	Sent, Came uint64
	// At is when it came.
	At time.Time
	// BreakerOpen: the breaker was open when it came.
	BreakerOpen bool
	// LeftOut is how many events are left out and not settled, those of this
	// answer included.
	LeftOut int
}

// History is what is known of the gateway. The zero value knows nothing.
type History struct {
	// Rules of every judgment.
	Rules Rules

	// observed and lost count bundles of events that were not left out before,
	// submitted while no suspect was in flight: how much the gateway loses when
	// nobody known can be at fault.
	observed, lost float64
	// evidence is when the latest payload was sent of which the gateway recorded
	// an event that was not left out before, or a control.
	evidence uint64
	outage   uint64 // when the latest answer came that was an outage
	silent   int    // answers in a row that recorded nothing
	others   int    // of those, answers to events that are no suspects
}

// Suspect is what is known of one event that was left out.
type Suspect struct {
	// Alone is how often it was left out alone in its payload.
	Alone int
	// Counted is how many tries count against it.
	Counted int

	pending     bool // its latest try counts as soon as there is evidence
	pendingCame uint64
	pendingAt   time.Time
	pendingOn   int

	first, last    time.Time // tries that count
	firstOn        int
	otherOn        bool // tries that count were on more than one connection
	begun          bool
	observed, lost float64 // of the history, when its first try came
}

// Decide judges an answer, and notes it. The suspect is that of the only event of
// the payload; nil when there were more, or it was never left out before.
func (h *History) Decide(a Answer, s *Suspect) Decision {
	h.note(a)
	switch {
	case a.Recorded == a.Events:
		return Settled
	case a.BreakerOpen, h.silent >= silentAnswers && h.others >= silentOthers && a.LeftOut > outageEvents:
		h.outage = a.Came
		return Outage
	case a.Events > 1 && a.Recorded == 0 && !a.Again:
		// One request that was lost, or one instance that cannot publish, is more
		// likely than an event at fault, and halves would cost two streams.
		return Retry
	case a.Events > 1, s == nil:
		return Bisect
	}
	s.Alone++
	if !a.Exclusive {
		return Retry
	}
	h.confirm(s)
	if !s.begun {
		s.begun, s.observed, s.lost = true, h.observed, h.lost
	}
	s.pending, s.pendingCame, s.pendingAt, s.pendingOn = true, a.Came, a.At, a.Connection
	return Undecided
}

// Review judges an event that is about to be tried again.
func (h *History) Review(s *Suspect) Decision {
	h.confirm(s)
	if h.condemned(s) {
		return DeadLetter
	}
	return Undecided
}

// note takes what an answer says of the gateway.
func (h *History) note(a Answer) {
	if a.Recorded > 0 {
		h.silent, h.others = 0, 0
		if !a.Suspects {
			h.evidence = max(h.evidence, a.Sent)
		}
	} else if !a.Suspects || a.Events > 1 {
		h.silent++
		if !a.Suspects {
			h.others++
		}
	}
	if !a.Suspects && a.Exclusive && !a.BreakerOpen {
		bundles := max(1, float64(a.Events)/bundleSize)
		h.observed += bundles
		h.lost += bundles * float64(a.Events-a.Recorded) / float64(a.Events)
	}
}

// confirm counts the latest try of an event, if the gateway has recorded
// something since that was submitted after it. Otherwise an outage may have been
// the cause, and if there was one, the try never counts.
func (h *History) confirm(s *Suspect) {
	if s.pendingCame <= h.outage {
		s.pending = false
	}
	if !s.pending || h.evidence <= s.pendingCame {
		return
	}
	s.pending = false
	if s.Counted == 0 {
		s.first, s.firstOn = s.pendingAt, s.pendingOn
	}
	s.otherOn = s.otherOn || s.pendingOn != s.firstOn
	s.last = s.pendingAt
	s.Counted++
}

// condemned is the rule.
func (h *History) condemned(s *Suspect) bool {
	return h.Rules.RejectAfter > 0 &&
		s.Counted >= max(h.Rules.RejectAfter, tries(h.loss(s))) &&
		s.last.Sub(s.first) >= h.Rules.MinSpan &&
		s.otherOn
}

// loss is the share of others that were left out since the event's first try, so
// cautious that few observations do not make much of a proof: one more lost and
// one more recorded than there were (Laplace's rule of succession).
func (h *History) loss(s *Suspect) float64 {
	return min(max((h.lost-s.lost+1)/(h.observed-s.observed+2), minLoss), maxLoss)
}

// tries is how many must count when so large a share is lost by chance.
func tries(loss float64) int {
	return int(math.Ceil(math.Log(maxDoubt) / math.Log(loss)))
}
