// Package verdict decides who is at fault when the gateway leaves events out of an answer:
// the event, its neighbours, or the gateway. It is pure: its caller passes in the time and
// the answers, and it does no I/O.
//
// The gateway does not say why it leaves an event out. It publishes bundles of up to 100
// events of several payloads and streams, and a bundle that Pub/Sub refuses is left out as
// a whole. So an omission alone does not prove that the event is at fault. docs/verdict.md
// has the picture, and why the rule is sound.
package verdict

import (
	"math"
	"slices"
	"time"
)

// Decision says how to continue with the events that an answer left out.
type Decision int

const (
	// Settled: no event was left out.
	Settled Decision = iota
	// Retry: submit the omitted events again, as one payload. No try counts.
	Retry
	// Bisect: submit the omitted events again, in two halves.
	Bisect
	// Undecided: submit the event again, alone, after a pause.
	Undecided
	// DeadLetter: the event is at fault.
	DeadLetter
	// Outage: the gateway records (nearly) nothing. Open the breaker, and submit the
	// omitted events again, as one payload. No try counts.
	Outage
)

func (d Decision) String() string {
	return [...]string{"settled", "retry", "bisect", "undecided", "dead-letter", "outage"}[d]
}

// Rules are the limits of a judgment.
type Rules struct {
	// RejectAfter is the smallest number of tries that must count against an event before
	// it is dead-lettered. 0 means that omissions never dead-letter an event.
	RejectAfter int
	// MinSpan is the shortest time from the first to the last try that counts, because an
	// outage may last only a few seconds.
	MinSpan time.Duration
}

const (
	// DefaultSpan is MinSpan in production.
	DefaultSpan = time.Minute
	// bundleSize is how many events the gateway publishes in one request at most.
	// bundleTime is the time after which two payloads share no request: a few times the
	// 10 ms for which the gateway collects events. The events of one request are recorded
	// or left out together, so that they are one observation.
	bundleSize = 100
	bundleTime = 50 * time.Millisecond
	// maxChance bounds the probability that an event is left out in all its tries by
	// chance, if the gateway loses the share that was observed.
	maxChance = 1e-9
	// maxDoubt bounds the same probability if the share is not known: averaged over all
	// possible shares, weighted by the observations of other events.
	maxDoubt = 1e-6
	// minLoss and maxLoss bound the estimate of the share that the gateway loses.
	minLoss, maxLoss = 0.01, 0.99
	// minProofs is the smallest number of occasions on which the gateway must have recorded
	// other events after tries. One occasion proves little, because an outage may have
	// ended just before it.
	minProofs = 5
	// MaxPending is how many tries one proof makes count, at most.
	MaxPending = 6
	// hopeless is a number of tries that no event reaches.
	hopeless = 5000
	// An outage begins after silentAnswers answers in a row that record nothing, if
	// silentOthers of them were to events that are no suspects, and more than outageEvents
	// events are left out by then. Fewer events may all be at fault, and must not open the
	// breaker.
	silentAnswers = 16
	silentOthers  = 3
	outageEvents  = 10
)

// Answer is the gateway's answer to one payload.
type Answer struct {
	// Events is how many there were, Recorded how many of them are listed.
	Events, Recorded int
	// Suspects is set if all of the events had been left out before, and none is a control.
	Suspects bool
	// Again is set if the same payload was left out as a whole before.
	Again bool
	// Exclusive is set if no other payload with suspects was in flight together with this
	// one. A bundle mixes payloads, so only then no other known suspect can be the cause.
	Exclusive bool
	// Connection is the number of the connection of its stream.
	Connection int
	// Sent and Came are times of a logical clock that orders all payloads and answers.
	Sent, Came uint64
	// SentAt is when the payload was sent, At when the answer came.
	SentAt, At time.Time
	// BreakerOpen is set if the breaker was open when the answer came.
	BreakerOpen bool
	// LeftOut is how many events are left out and not settled, including those of this
	// answer.
	LeftOut int
}

// History is the evidence about the gateway. The zero value has none.
type History struct {
	// Rules of every judgment.
	Rules Rules

	// observed and lost count bundles of events that were not left out before, submitted
	// while no suspect was in flight. Their ratio is the share that the gateway loses
	// although no known suspect can be the cause. observedAt is the time at which the
	// latest of these payloads was sent.
	observed, lost float64
	observedAt     time.Time
	// evidence is the logical time at which the latest payload was sent of which the
	// gateway recorded a control, or an event that was not left out before.
	evidence uint64
	outage   uint64 // logical time of the latest answer that was judged an outage
	silent   int    // answers in a row that recorded nothing
	others   int    // of those, answers to events that are no suspects
}

// Suspect is the evidence about an event that was left out.
type Suspect struct {
	// Alone is how often it was left out alone in its payload.
	Alone int
	// Counted is how many tries count against it.
	Counted int

	pending []attempt // tries that count as soon as there is evidence, oldest first
	proofs  int       // occasions on which other events were recorded after tries

	first, last    time.Time // tries that count
	firstOn        int
	otherOn        bool // tries that count were on more than one connection
	begun          bool
	observed, lost float64 // of the history, when its first try came
}

// attempt is a try that has been answered.
type attempt struct {
	came uint64
	at   time.Time
	on   int // connection
}

// Pending is how many tries will count as soon as the gateway records others.
func (s *Suspect) Pending() int { return len(s.pending) }

// Begun reports whether the event was tried.
func (s *Suspect) Begun() bool { return s.begun }

// Decide judges an answer, and adds it to the evidence. s is the evidence about the only
// event of the payload. s is nil if the payload had more events, or if its event was never
// left out before.
func (h *History) Decide(a Answer, s *Suspect) Decision {
	h.note(a)
	switch {
	case a.Recorded == a.Events:
		return Settled
	case a.BreakerOpen, h.silent >= silentAnswers && h.others >= silentOthers && a.LeftOut > outageEvents:
		h.outage = a.Came
		return Outage
	case a.Events > 1 && a.Recorded == 0 && !a.Again:
		// A lost request, or a gateway instance that cannot publish, is more likely than an
		// event at fault. Bisecting would cost two streams.
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
	if len(s.pending) == MaxPending {
		s.pending = slices.Delete(s.pending, 0, 1)
	}
	s.pending = append(s.pending, attempt{a.Came, a.At, a.Connection})
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

// note adds an answer to the evidence about the gateway.
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
		bundles := float64(a.Events) / bundleSize
		if apart := a.SentAt.Sub(h.observedAt).Abs(); apart >= bundleTime {
			bundles = max(1, bundles)
			h.observedAt = a.SentAt
		}
		h.observed += bundles
		h.lost += bundles * float64(a.Events-a.Recorded) / float64(a.Events)
	}
}

// confirm counts the tries of an event after which the gateway has recorded another event
// that was submitted later. Without such a proof, an outage may have been the cause. A try
// that was answered before the end of an outage never counts.
func (h *History) confirm(s *Suspect) {
	counted := s.Counted
	s.pending = slices.DeleteFunc(s.pending, func(a attempt) bool {
		switch {
		case a.came <= h.outage:
			return true
		case h.evidence <= a.came:
			return false
		}
		if s.Counted == 0 {
			s.first, s.firstOn = a.at, a.on
		}
		s.otherOn = s.otherOn || a.on != s.firstOn
		s.last = a.at
		s.Counted++
		return true
	})
	if s.Counted > counted {
		s.proofs++
	}
}

// condemned reports whether the evidence suffices to dead-letter the event.
func (h *History) condemned(s *Suspect) bool {
	return h.Rules.RejectAfter > 0 &&
		s.proofs >= minProofs &&
		s.last.Sub(s.first) >= h.Rules.MinSpan &&
		s.otherOn &&
		s.Counted >= h.needed(s, 0)
}

// Missing returns the evidence that is still missing before the event is dead-lettered: the
// number of tries, and the time that they must cover. It assumes that the gateway records
// this many other events one by one from now on.
func (h *History) Missing(s *Suspect, others int, now time.Time) (tries int, span time.Duration) {
	span = h.Rules.MinSpan
	switch {
	case s.Counted > 0:
		span -= now.Sub(s.first)
	case len(s.pending) > 0:
		span -= now.Sub(s.pending[0].at)
	}
	return max(0, h.needed(s, others)-s.Counted-len(s.pending)), max(0, span)
}

// needed returns how many tries must count, if more other events are recorded.
func (h *History) needed(s *Suspect, more int) int {
	lost, observed := 0.0, float64(more)
	if s.begun {
		lost, observed = h.lost-s.lost, observed+h.observed-s.observed
	}
	if observed == 0 {
		return hopeless
	}
	loss := min(max(lost/observed, minLoss), maxLoss)
	n := max(h.Rules.RejectAfter, int(math.Ceil(math.Log(maxChance)/math.Log(loss))))
	doubt := 1.0
	for i := range n {
		doubt *= term(lost, observed, i)
	}
	for ; doubt >= maxDoubt && n < hopeless; n++ {
		doubt *= term(lost, observed, n)
	}
	return n
}

// term returns the probability that an event is left out once more by chance, after it was
// left out n times by chance and lost of the observed other bundles were. Beforehand, every
// loss counts as equally probable (Laplace's rule of succession).
func term(lost, observed float64, n int) float64 {
	return (lost + float64(n) + 1) / (observed + float64(n) + 2)
}
