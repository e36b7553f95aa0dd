package relay

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// suspects are the events that the gateway left out of an answer. internal/verdict
// decides about them; this schedules what it needs to know. The loop owns it.
//
// The gateway bundles events of several streams, so a try counts against an event
// only if no other suspect is in flight. Suspects therefore take turns: pieces of
// what was left out, many at a time, to find those that are healthy; then tries,
// one at a time; then a proof that the gateway records others.
type suspects struct {
	history  verdict.History
	leftOut  int // events that were left out and are not settled, the controls among them
	alone    int // of those, left out alone in their payload: undecided
	flying   int // flights of suspects
	launches uint64

	turn   turn
	since  time.Time // when the turn began
	yield  bool      // no further pieces: a try is due
	next   *flight   // the try whose turn it is; nil: none is due
	tried  int       // in this turn
	again  time.Time // when the next turn of tries may begin
	mark   uint64    // the moment at which the proof began
	asked  bool      // a control was submitted for the proof
	proven bool      // a flight without suspects has landed that was launched since

	controls   []*flight // kept back of what was left out
	reserve    []*flight // kept back of what was not submitted yet, in a drain
	reservedAt time.Time // when the oldest of it was
	settled    time.Time // when an event was settled last, of whatever kind

	// released are the undecided events that were released at the end.
	released   int
	releasedID []string
	oldest     time.Time // publish time
}

type turn int

const (
	bisecting turn = iota
	trying
	proving
)

const (
	// bisectTurn is how long pieces may go on before a try that is due.
	bisectTurn = time.Second
	// turnMost bounds a turn of tries, each of which needs only one proof.
	turnMost = 20 * time.Second
	// proofTime is how long a proof is waited for.
	proofTime = 2 * time.Second
	// solitary is how often a single event is submitted among other suspects
	// before it waits for its turn to be tried: in an outage of a part of the
	// gateway that finds the healthy ones soon.
	solitary = 3
	// keptBack is how many events of one cut are controls, at most, and maxKeptBack
	// of all cuts together. Few, since some of them may be at fault themselves,
	// which shows only when they are submitted.
	keptBack    = 10
	maxKeptBack = 40
	// fewLeftOut of a payload are rather at fault all of them than beside one that
	// is: then there are no healthy ones to be kept back.
	fewLeftOut = 50
	// reserveSize is how many fresh events are kept back, at most.
	reserveSize = 15
	// reserveTime is how long fresh events are kept back while nobody is
	// suspected and the last answers are waited for; reserveMost while others flow.
	reserveTime = time.Second
	reserveMost = 30 * time.Second
	// turnsASpan spreads the tries over the time that they must cover.
	turnsASpan = 8
	// pieceLevel bounds the backoff of pieces.
	pieceLevel = 3
	// undecidedSpans is how long a drain waits for undecided events after
	// everything else is settled: two minutes, when an event is judged over one.
	undecidedSpans = 2
)

// interval is the time between two turns of tries. A suspect is tried once in each.
func (s *suspects) interval() time.Duration { return s.history.Rules.MinSpan / turnsASpan }

// nextTurn draws when the next turn of tries may begin: with jitter, since an outage
// may have a rhythm.
func (s *suspects) nextTurn(rng *rand.Rand, now time.Time) time.Time {
	return now.Add(s.interval()*3/4 + time.Duration(rng.Int64N(int64(s.interval()/2)+1)))
}

// answered judges an answer of which rest was left out.
func (r *Relay) answered(f *flight, listed int, now time.Time) {
	s := &r.suspects
	a := verdict.Answer{
		Events: listed + len(f.events), Recorded: listed,
		Suspects:    f.suspect,
		Again:       f.again,
		Exclusive:   f.clear && f.mark == s.launches,
		Connection:  f.connection,
		Sent:        f.launched,
		Came:        r.flights.moment,
		At:          now,
		BreakerOpen: r.gate.shut,
		LeftOut:     s.leftOut,
	}
	if !f.suspect {
		a.LeftOut += len(f.events)
		if f.launched > s.mark {
			s.proven = true
		}
	}
	var single *verdict.Suspect
	if f.suspect && a.Events == 1 && len(f.events) == 1 {
		single = f.events[0].rare.suspect
	}
	switch s.history.Decide(a, single) {
	case verdict.Settled, verdict.DeadLetter: // only a review condemns
	case verdict.Outage:
		probe := r.gate.shut
		if probe && f.suspect {
			r.shutGate(r.gate.cause, r.gate.detail, 0, now)
		} else {
			r.shutGate(silent, "the gateway leaves out what it is sent, and records nothing", 0, now)
		}
		if probe {
			// The next probe is made with other events: these may be at fault, and
			// would keep the breaker open for ever.
			r.suspectAll(f)
		}
		f.level = 0 // a recovery is to be seen soon
		r.retry(f, "left_out", retryFirst, 0, now)
	case verdict.Bisect:
		r.bisect(f, !f.piece && (listed == 0 || len(f.events) >= fewLeftOut), now)
	case verdict.Retry:
		if single != nil {
			r.markAlone(f.events[0])
			f.try = single.Alone >= solitary
		} else {
			r.suspectAll(f)
		}
		f.level = min(f.level, pieceLevel)
		r.retry(f, "left_out", retryFirst, 0, now)
	case verdict.Undecided:
		r.markAlone(f.events[0])
		f.try, f.level = true, 0
		r.retry(f, "left_out", retryFirst, s.interval()/2, now)
	}
}

// suspect notes that an event was left out.
func (r *Relay) suspect(h *held) {
	if rare := h.apart(); rare.suspect == nil {
		rare.suspect = new(verdict.Suspect)
		r.suspects.leftOut++
	}
}

// suspectAll makes suspects of a flight that was left out as a whole.
func (r *Relay) suspectAll(f *flight) {
	for _, h := range f.events {
		r.suspect(h)
	}
	f.suspect, f.again = true, true
}

func (r *Relay) markAlone(h *held) {
	if !h.rare.alone {
		h.rare.alone = true
		r.suspects.alone++
	}
}

// unsuspect notes that an event is no suspect any more: it is settled, or condemned.
func (r *Relay) unsuspect(h *held) {
	if h.rare == nil || h.rare.suspect == nil {
		return
	}
	r.suspects.leftOut--
	if h.rare.alone {
		r.suspects.alone--
	}
	h.rare.suspect, h.rare.alone = nil, false
}

// bisect submits the halves of what was left out apart, several pieces at a time.
// Some events are kept back as controls, if most of them are healthy.
func (r *Relay) bisect(f *flight, keepBack bool, now time.Time) {
	s := &r.suspects
	events := f.events
	for _, h := range events {
		r.suspect(h)
	}
	if keepBack {
		keep := min(len(events)/2, keptBack, maxKeptBack-inReserve(s.controls))
		if keep > 0 && !r.stopping.on {
			rest := len(events) - keep
			s.controls = append(s.controls, &flight{publisher: f.publisher, events: slices.Clone(events[rest:])})
			events = events[:rest:rest]
		}
	}
	middle := len(events) / 2
	for _, piece := range [][]*held{events[:middle:middle], events[middle:]} {
		r.retry(&flight{
			publisher: f.publisher, events: piece, suspect: true, piece: true, failures: f.failures, trouble: f.trouble,
			level: min(f.level, pieceLevel),
		}, "left_out", retryFirst, 0, now)
	}
}

// takeTurn decides which suspects may be launched now.
func (r *Relay) takeTurn(now time.Time) {
	s := &r.suspects
	if s.leftOut == 0 {
		s.turn, s.since, s.yield, s.next, s.controls = bisecting, now, false, nil, nil
		return
	}
	pieces := r.review(now)
	r.freeControls()
	switch s.turn {
	case bisecting:
		s.yield = s.next != nil && !now.Before(s.again) && (!pieces || now.Sub(s.since) >= bisectTurn)
		if s.yield && s.flying == 0 {
			s.turn, s.since, s.tried, s.again = trying, now, 0, s.nextTurn(r.rng, now)
		}
	case trying:
		switch {
		case s.flying > 0:
		case s.tried == 0 && s.next == nil:
			s.turn, s.since = bisecting, now
		case s.next == nil, now.Sub(s.since) >= turnMost, pieces && now.Sub(s.since) >= s.interval():
			s.turn, s.since, s.mark, s.asked, s.proven = proving, now, r.flights.moment, false, false
		}
	case proving:
		if !s.asked {
			if c := s.control(); c != nil {
				r.flights.due = append(r.flights.due, c)
			}
			s.asked = true
		}
		if s.proven || now.Sub(s.since) >= proofTime {
			s.turn, s.since = bisecting, now
		}
	}
}

// mayFly reports whether a flight may be launched now, as far as suspects are
// concerned.
func (r *Relay) mayFly(f *flight) bool {
	s := &r.suspects
	switch {
	case !f.suspect:
		return true
	case f.try:
		return s.turn == trying && f == s.next && s.flying == 0
	}
	return s.turn == bisecting && !s.yield
}

// review judges the events whose next try is due, and chooses which one is tried
// first: the one that is nearest to its verdict. It reports whether pieces are due.
func (r *Relay) review(now time.Time) (pieces bool) {
	s := &r.suspects
	s.next = nil
	condemned := false
	for _, f := range r.flights.due {
		switch {
		case !f.suspect:
		case !f.try:
			pieces = true
		case f.events[0].gone || f.events[0].rare.suspect == nil:
		case s.history.Review(f.events[0].rare.suspect) == verdict.DeadLetter:
			h := f.events[0]
			counted := h.rare.suspect.Counted
			r.unsuspect(h)
			r.bury(h, event.GatewayRejected, leftOutDetail(counted, int(h.sent)))
			f.events = nil
			condemned = true
		case s.next == nil || f.events[0].rare.suspect.Counted > s.next.events[0].rare.suspect.Counted:
			s.next = f
		}
	}
	if condemned {
		r.flights.due = slices.DeleteFunc(r.flights.due, func(f *flight) bool { return len(f.events) == 0 })
		r.sendLetters(now)
	}
	return pieces
}

// control takes one event that was kept back, nil if there is none.
func (s *suspects) control() *flight {
	if c := takeOne(&s.reserve); c != nil {
		return c
	}
	return takeOne(&s.controls)
}

// takeOne takes the last event out of flights that are kept back.
func takeOne(kept *[]*flight) *flight {
	for len(*kept) > 0 {
		last := (*kept)[len(*kept)-1]
		last.events = slices.DeleteFunc(last.events, func(h *held) bool { return h.gone })
		n := len(last.events) - 1
		if n < 0 {
			*kept = (*kept)[:len(*kept)-1]
			continue
		}
		c := &flight{publisher: last.publisher, events: []*held{last.events[n]}}
		last.events = last.events[:n]
		return c
	}
	return nil
}

// takeThird takes a third of what is kept back, or all of it if that is little: if an
// event at fault is among them, the others are still there to prove it.
func takeThird(kept *[]*flight) []*flight {
	n := inReserve(*kept)
	if n <= reserveSize*2/3 {
		all := *kept
		*kept = nil
		return all
	}
	var taken []*flight
	for n = max(reserveSize/3, n/3); n > 0 && len(*kept) > 0; {
		last := (*kept)[len(*kept)-1]
		last.events = slices.DeleteFunc(last.events, func(h *held) bool { return h.gone })
		rest := max(0, len(last.events)-n)
		n -= len(last.events) - rest
		if rest == 0 {
			*kept = (*kept)[:len(*kept)-1]
			taken = append(taken, last)
			continue
		}
		taken = append(taken, &flight{publisher: last.publisher, events: slices.Clone(last.events[rest:])})
		last.events = last.events[:rest]
	}
	return taken
}

// inReserve is how many events the flights have.
func inReserve(kept []*flight) (n int) {
	for _, f := range kept {
		for _, h := range f.events {
			if !h.gone {
				n++
			}
		}
	}
	return n
}

// keepReserve takes some events out of a fresh batch: when a backlog ends, they
// prove that the gateway records, if others are left out. Where traffic goes on,
// it is proof enough.
func (r *Relay) keepReserve(f *flight, now time.Time) {
	s := &r.suspects
	if !r.opts.Drain || r.gate.shut || r.gate.trial {
		return
	}
	kept := inReserve(s.reserve)
	keep := min((len(f.events)+1)/2, reserveSize-kept)
	if keep <= 0 {
		return
	}
	if kept == 0 {
		s.reservedAt = now
	}
	rest := len(f.events) - keep
	s.reserve = append(s.reserve, &flight{publisher: f.publisher, events: slices.Clone(f.events[rest:])})
	f.events = f.events[:rest]
}

// freeReserve submits what is kept back of fresh events when nobody is suspected and
// nothing else is in flight or waits, or when it has been kept back for long. It
// reports whether there was anything.
func (r *Relay) freeReserve(now time.Time) bool {
	s := &r.suspects
	if len(s.reserve) == 0 || s.leftOut > 0 {
		return false
	}
	age := now.Sub(s.reservedAt)
	if age < reserveMost && (r.waiting() || (r.flying > 0 && age < reserveTime)) {
		return false
	}
	r.flights.due = append(r.flights.due, takeThird(&s.reserve)...)
	return true
}

// freeControls submits the events that were kept back, when nobody is suspected any
// more.
func (r *Relay) freeControls() {
	s := &r.suspects
	if kept := inReserve(s.controls); kept == 0 || kept < s.leftOut {
		return
	}
	r.flights.due = append(r.flights.due, takeThird(&s.controls)...)
}

// connection chooses a flight's connection: another one for each try.
func (r *Relay) connection(f *flight) int {
	if f.suspect && len(f.events) == 1 {
		return int(f.events[0].sent) % submit.Connections
	}
	return int(r.flights.moment % submit.Connections)
}
