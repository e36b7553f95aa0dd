package relay

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/limit"
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
	tried  *flight   // the latest try since the latest proof; nil: none
	news   bool      // the gateway has recorded others since the latest review
	proved time.Time // when the latest proof began
	mark   uint64    // the moment of that
	asked  bool      // a control was submitted for the proof
	proven bool      // a flight without suspects has landed that was launched since

	controls []*flight // kept back of what was left out
	reserve  []*flight // kept back of what was not submitted yet, in a drain
	freedAt  time.Time // when a part of it was submitted last, or could not be
	settled  time.Time // when an event was settled last, of whatever kind

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
	// bisectTurn is how long pieces may go on before a try that is due, and tryTurn
	// how long tries may go on while pieces wait.
	bisectTurn = time.Second
	tryTurn    = 2 * time.Second
	// proofTime is how long a proof is waited for.
	proofTime = 2 * time.Second
	// solitary is how often a single event is submitted among other suspects
	// before it waits for its turn to be tried: in an outage of a part of the
	// gateway that finds the healthy ones soon.
	solitary = 3
	// keptBack is how many events of one cut are kept back as controls, at most, and
	// maxKept how many events of all cuts and of what is fresh. Few, since some of them
	// may be at fault themselves, which shows only when they are submitted.
	keptBack = 10
	maxKept  = 48
	// fewLeftOut of a payload are rather at fault all of them than beside one that
	// is: then there are no healthy ones to be kept back.
	fewLeftOut = 50
	// fewControls are rationed, so that they last until the end of a judgment.
	fewControls = 12
	// leastControls are needed to condemn an event. With fewer, nobody can be.
	leastControls = 5
	// reserveTime is how long fresh events are kept back while nobody is
	// suspected and the last answers are waited for; reserveMost while others flow.
	// Then others take their place, or prove as much.
	reserveTime = time.Second
	reserveMost = 2 * time.Second
	// begunAtOnce is how many events of a service have been tried and are not condemned,
	// at most, before others of it are tried.
	begunAtOnce = 64
	// triesASpan bounds how often an event is tried in the time that its tries must
	// cover, and proofsASpan how often other traffic gets a turn without suspects.
	triesASpan  = 30
	proofsASpan = 20
	// waitsASpan is how often an event is tried for which there is no proof.
	waitsASpan = 8
	// manyOthers are there when other events wait.
	manyOthers = 100
	// pieceLevel bounds the backoff of pieces.
	pieceLevel = 3
	// undecidedSpans is how long a drain waits for undecided events after
	// everything else is settled: two minutes, when an event is judged over one.
	undecidedSpans = 2
)

// pause is how long an event that was tried waits for its next try: so that the tries
// that it needs cover the time that they must, with jitter, since an outage may have a
// rhythm. others is how many others can be submitted as a proof.
func (s *suspects) pause(v *verdict.Suspect, others int, rng *rand.Rand, now time.Time) time.Duration {
	span := s.history.Rules.MinSpan
	pause := span / waitsASpan
	if others > 0 {
		tries, left := s.history.Missing(v, others, now)
		pause = max(left/time.Duration(max(1, tries)), span/triesASpan)
	}
	pause = min(pause, span/minPauses)
	return pause*3/4 + time.Duration(rng.Int64N(int64(pause/2)+1))
}

// minPauses is how often an event is tried in the time that its tries must cover, at
// least.
const minPauses = 5

// proofDue reports whether it is time to find out if the gateway records others, after a
// try of v. tried are all events that are tried.
//
// A proof is free when others wait. A control can be spent only once. Of many, the same
// share is spent in a given time, so that those that are at fault themselves are found
// while there are others left. Few of them are rationed: they are spread over the tries
// that the event needs and over the time that these must cover, each proves a try of
// every event, and the last one is kept until it can be the one that is missing.
func (s *suspects) proofDue(v *verdict.Suspect, tried []*verdict.Suspect, othersWait bool, now time.Time) bool {
	span, since, kept := s.history.Rules.MinSpan, now.Sub(s.proved), s.kept()
	switch {
	case othersWait:
		return since >= span/proofsASpan
	case kept == 0 || v.Pending() == 0:
		return false
	case kept > fewControls:
		return since >= span/time.Duration(kept)
	}
	tries, left := s.history.Missing(v, kept, now)
	hopeless := func(v *verdict.Suspect) bool {
		tries, _ := s.history.Missing(v, kept, now)
		return tries+v.Pending() > kept*verdict.MaxPending
	}
	untried := func(v *verdict.Suspect) bool { return v.Pending() == 0 }
	switch {
	case !slices.ContainsFunc(tried, func(v *verdict.Suspect) bool { return !hopeless(v) }):
		return true // they would be kept in vain
	case slices.ContainsFunc(tried, untried):
		return false
	case kept == 1:
		return tries == 0 && left == 0
	}
	run := min(verdict.MaxPending, (tries+v.Pending()+kept-1)/kept)
	return v.Pending() >= run && since >= left/time.Duration(kept)
}

// kept is how many events are kept back.
func (s *suspects) kept() int { return inReserve(s.controls) + inReserve(s.reserve) }

// answered judges an answer to a flight: so many events are recorded, and so many are
// left out. Of those, the flight has the events that are known by their ids.
func (r *Relay) answered(f *flight, recorded, leftOut int, now time.Time) {
	s := &r.suspects
	a := verdict.Answer{
		Events: recorded + leftOut, Recorded: recorded,
		Suspects:    f.suspect,
		Again:       f.again,
		Exclusive:   f.clear && f.mark == s.launches,
		Connection:  f.connection,
		Sent:        f.launched,
		Came:        r.flights.moment,
		SentAt:      f.launchedAt,
		At:          now,
		BreakerOpen: r.breaker.Open(),
		LeftOut:     s.leftOut,
	}
	if !f.suspect {
		a.LeftOut += len(f.events)
		if f.launched > s.mark {
			s.proven = true
		}
		s.news = s.news || recorded > 0
	}
	var single *verdict.Suspect
	if f.suspect && a.Events == 1 && len(f.events) == 1 {
		single = f.events[0].rare.suspect
	}
	begun := single != nil && single.Begun()
	decision := s.history.Decide(a, single)
	if single != nil && single.Begun() != begun {
		f.publisher.service.begun++
	}
	switch decision {
	case verdict.Settled, verdict.DeadLetter: // only a review condemns
	case verdict.Outage:
		probe := r.breaker.Open()
		if probe && f.suspect {
			r.openBreaker(r.breaker.Cause(), r.breaker.Detail(), 0, now)
		} else {
			r.openBreaker(breaker.Recording, "the gateway leaves out what it is sent, and records nothing", 0, now)
		}
		if probe {
			// The next probe is made with other events: these may be at fault, and
			// would keep the breaker open for ever.
			r.suspectAll(f)
		}
		f.level = 0 // a recovery is to be seen soon
		r.retry(f, "left_out", retryFirst, 0, now)
	case verdict.Bisect:
		r.bisect(f, !f.piece && (recorded == 0 || len(f.events) >= fewLeftOut), now)
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
		others := s.kept()
		if r.waiting() {
			others += manyOthers
		}
		r.retry(f, "left_out", time.Nanosecond, s.pause(single, others, r.rng, now), now)
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
	if h.rare.suspect.Begun() {
		h.publisher.service.begun--
	}
	h.rare.suspect, h.rare.alone = nil, false
}

// bisect submits the halves of what was left out apart, several pieces at a time.
// Some events are kept back as controls, if most of them are healthy. A service with less
// than its share keeps none back: they would wait until all of the others' are judged.
func (r *Relay) bisect(f *flight, keepBack bool, now time.Time) {
	s := &r.suspects
	events := f.events
	for _, h := range events {
		r.suspect(h)
	}
	if keepBack {
		keep := min(len(events)/2, keptBack, maxKept-s.kept())
		if keep > 0 && r.opts.RejectAfter > 0 && !r.stopping.on && !r.light(f.publisher.service) {
			rest := len(events) - keep
			s.controls = append(s.controls, &flight{publisher: f.publisher, events: slices.Clone(events[rest:])})
			events = events[:rest:rest]
		}
	}
	middle := len(events) / 2
	for _, piece := range [][]*held{events[:middle:middle], events[middle:]} {
		r.retryPiece(f, piece, now)
	}
}

// retryPiece submits some suspects of a flight again, apart from the others.
func (r *Relay) retryPiece(f *flight, piece []*held, now time.Time) {
	r.retry(&flight{
		publisher: f.publisher, events: piece, suspect: true, piece: true, failures: f.failures, trouble: f.trouble,
		level: min(f.level, pieceLevel),
	}, "left_out", retryFirst, 0, now)
}

// takeTurn decides which suspects may be launched now.
func (r *Relay) takeTurn(now time.Time) {
	s := &r.suspects
	if s.leftOut == 0 {
		s.turn, s.since, s.yield, s.next, s.tried, s.controls = bisecting, now, false, nil, nil, nil
		return
	}
	pieces := r.review(now)
	r.freeControls()
	switch s.turn {
	case bisecting:
		s.yield = s.next != nil && (!pieces || now.Sub(s.since) >= bisectTurn)
		if s.yield && s.flying == 0 {
			s.turn, s.since = trying, now
		}
	case trying:
		switch {
		case s.flying > 0:
		case r.proofDue(now):
			s.turn, s.since, s.proved, s.mark, s.asked, s.proven, s.tried = proving, now, now, r.flights.moment, false, false, nil
		case s.next == nil, pieces && now.Sub(s.since) >= tryTurn:
			s.turn, s.since = bisecting, now
		}
	case proving:
		if !s.asked && !r.waiting() {
			if c := s.control(); c != nil {
				r.flights.ready(c)
			}
			s.asked = true
		}
		if s.proven || now.Sub(s.since) >= proofTime {
			s.turn, s.since = bisecting, now
		}
	}
}

// proofDue reports whether the latest try needs a proof now.
func (r *Relay) proofDue(now time.Time) bool {
	latest := r.suspects.tried
	if latest == nil || latest.undecided() == nil {
		return false
	}
	var tried []*verdict.Suspect
	for _, flights := range [][]*flight{r.flights.tries, r.flights.waiting} {
		for _, f := range flights {
			if !f.try {
				continue
			}
			if suspect := f.undecided(); suspect != nil {
				tried = append(tried, suspect)
			}
		}
	}
	return r.suspects.proofDue(latest.undecided(), tried, r.waiting(), now)
}

// nextSuspect takes the flight with suspects that may be launched now, if there is one.
func (r *Relay) nextSuspect() *flight {
	s := &r.suspects
	switch {
	case s.turn == bisecting && !s.yield:
		return r.nextPiece()
	case s.turn == trying && s.flying == 0 && s.next != nil:
		return r.nextTry(func(f *flight) bool { return f == s.next })
	}
	return nil
}

// review judges the events that are tried, as soon as there is news of the gateway,
// and chooses which one of those that are due is tried first. It reports whether pieces
// are due.
func (r *Relay) review(now time.Time) (pieces bool) {
	s := &r.suspects
	if s.news {
		s.news = false
		for _, f := range slices.Concat(r.flights.tries, r.flights.waiting) {
			if f.try {
				r.judge(f)
			}
		}
		r.sendLetters(now)
	}
	s.next = r.chooseTry()
	return r.flights.pieces.Len() > 0
}

// chooseTry returns the try that is next among those that are due, nil if there is none.
// One whose service or environment has all the streams that it may have is chosen only if
// there is no other: streams that hang must hold up nobody else.
func (r *Relay) chooseTry() *flight {
	var next, nextBusy *flight
	busy := r.busy()
	for _, f := range r.flights.tries {
		switch {
		case f.undecided() == nil:
		case busy.Service(f.publisher.service) || busy.Environment(f.publisher):
			if nextBusy == nil || f.before(nextBusy) {
				nextBusy = f
			}
		case next == nil || f.before(next):
			next = f
		}
	}
	return cmp.Or(next, nextBusy)
}

// before reports whether the event of one try is tried before that of another one: by
// their classes; of those that were not tried yet, that of the service with fewer
// that were; and then that whose last try is longest ago.
func (f *flight) before(other *flight) bool {
	class := f.tryClass()
	if of := other.tryClass(); class != of {
		return class < of
	}
	if begun, of := f.publisher.service.begun, other.publisher.service.begun; class == 0 && begun != of {
		return begun < of
	}
	return f.launched < other.launched
}

// tryClass is 0 for events that were not tried yet, since what the gateway records of
// others counts from the first try; 1 for those that were; and 2 for those that were not
// if very many of their service were: if all of them took turns, none would be condemned
// in the time for which events are in flight. Each service has its own number, so that a
// service with very many does not keep the others' from being tried.
func (f *flight) tryClass() int {
	switch {
	case f.events[0].rare.suspect.Begun():
		return 1
	case f.publisher.service.begun >= begunAtOnce:
		return 2
	default:
		return 0
	}
}

// undecided returns what is known of the event of a try, nil once the event is settled
// or condemned.
func (f *flight) undecided() *verdict.Suspect {
	if len(f.events) == 0 || f.events[0].gone {
		return nil
	}
	return f.events[0].rare.suspect
}

// judge dead-letters the event of a try if it is condemned. The flight is then empty.
func (r *Relay) judge(f *flight) {
	suspect := f.undecided()
	if suspect == nil || r.suspects.history.Review(suspect) != verdict.DeadLetter {
		return
	}
	h := f.events[0]
	r.bury(h, event.GatewayRejected, leftOutDetail(suspect.Counted, int(h.sent)))
	f.events = nil
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

// takePart takes a part of what is kept back: a third while there are many; then one
// after the other, so that if one is at fault the others are still there to prove it;
// and all of them when they are too few for that.
func takePart(kept *[]*flight) []*flight {
	n := inReserve(*kept)
	switch {
	case n <= leastControls:
		all := *kept
		*kept = nil
		return all
	case n <= 2*leastControls:
		n = 1
	default:
		n /= 3
	}
	var taken []*flight
	for n > 0 && len(*kept) > 0 {
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
	if !r.opts.Drain || r.opts.RejectAfter == 0 || !r.breaker.Closed() {
		return
	}
	if r.light(f.publisher.service) || len(r.events) < 2*leastControls {
		return // it would wait for others' events, or half of all is too few to condemn anybody
	}
	kept := inReserve(s.reserve)
	keep := min((len(f.events)+1)/2, maxKept-s.kept())
	if keep <= 0 {
		return
	}
	if kept == 0 {
		s.freedAt = now
	}
	rest := len(f.events) - keep
	s.reserve = append(s.reserve, &flight{publisher: f.publisher, events: slices.Clone(f.events[rest:])})
	f.events = f.events[:rest]
}

// light reports whether a service has less than its share of what is in flight.
func (r *Relay) light(s *service) bool { return s.events*r.activeServices < len(r.events) }

// freeLight submits what was kept back of services that have less than their share by
// now: they do not wait for others' events. Those can be kept back instead, if there are
// enough of them.
func (r *Relay) freeLight() {
	s := &r.suspects
	if len(s.reserve) == 0 || r.groups.Len() < maxKept {
		return
	}
	s.reserve = slices.DeleteFunc(s.reserve, func(f *flight) bool {
		light := r.light(f.publisher.service)
		if light {
			r.flights.ready(f)
		}
		return light
	})
}

// freeReserve submits what is kept back of fresh events when nobody is suspected: part
// by part when nothing else is in flight or waits, and all of it when others have kept
// it waiting for long. It reports whether there was anything.
func (r *Relay) freeReserve(now time.Time) bool {
	s := &r.suspects
	if len(s.reserve) == 0 {
		return false
	}
	if s.leftOut > 0 {
		s.freedAt = now
		return false
	}
	var freed []*flight
	quiet := now.Sub(s.freedAt)
	switch {
	case r.waiting():
		if quiet < reserveMost {
			return false
		}
		freed, s.reserve = s.reserve, nil
	case r.flying > 0 && quiet < reserveTime:
		return false
	default:
		freed = takePart(&s.reserve)
	}
	for _, f := range freed {
		r.flights.ready(f)
	}
	s.freedAt = now
	return true
}

// freeControls submits the events that were kept back, when nobody is suspected any
// more.
func (r *Relay) freeControls() {
	s := &r.suspects
	if kept := inReserve(s.controls); kept == 0 || kept < s.leftOut {
		return
	}
	for _, f := range takePart(&s.controls) {
		r.flights.ready(f)
	}
}

// connection chooses a flight's connection: another one for each try of an event that
// was left out.
func (r *Relay) connection(f *flight) int {
	if f.suspect && len(f.events) == 1 {
		return r.connections.StartOn(int(f.events[0].sent) % limit.FewestConnections)
	}
	return r.connections.Start()
}
