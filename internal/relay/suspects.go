package relay

import (
	"cmp"
	"fmt"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// suspects finds out which of the events that the gateway left out of an answer are at
// fault. internal/verdict decides about them; this schedules the submissions that it
// needs to know. The loop owns it.
//
// The gateway bundles events of several streams, so a try counts against an event
// only if no other suspect is in flight. Suspects therefore take turns: pieces of
// what was left out, many at a time, to find those that are healthy; then tries,
// one at a time; then a proof that the gateway records others.
type suspects struct {
	run          *run
	inflight     *inflightSet
	queue        *submissionQueue
	controls     *controls
	deadLetters  *deadLetterQueue
	availability *availability

	history  verdict.History
	schedule schedule
	active   int    // submissions of suspects in flight
	started  uint64 // submissions of suspects so far

	turn  turn
	since time.Time // when the turn began
	// tryDue: no further piece is submitted, since a try is due.
	tryDue bool
	// nextTry is the try whose turn it is; nil: none is due.
	nextTry *submission
	// latestTry is the latest try since the latest proof; nil: none.
	latestTry *submission
	// news: the gateway has recorded other events since the latest review.
	news bool

	// The latest proof.
	proofAt      uint64 // when it began, by the logical clock
	controlAsked bool   // a control was submitted for it
	proven       bool   // a submission without suspects that started since then was answered
}

// turn says which submissions of suspects may start.
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
	// maxUntried is how often a single event is submitted among other suspects before
	// it waits for its turn to be tried: in an outage of a part of the gateway that
	// finds the healthy ones soon.
	maxUntried = 3
	// fewLeftOut of a payload are rather at fault all of them than beside one that
	// is: then there are no healthy ones to be kept back.
	fewLeftOut = 50
	// maxBegun is how many events of a service have been tried and are not condemned,
	// at most, before others of it are tried.
	maxBegun = 64
	// manyOthers are there when other events wait.
	manyOthers = 100
	// maxPieceAttempts bounds the backoff of pieces.
	maxPieceAttempts = 3
	// undecidedSpans is how long a drain waits for undecided events after
	// everything else is settled: two minutes, when an event is judged over one.
	undecidedSpans = 2
)

// start notes that a submission starts.
func (s *suspects) start(sub *submission) {
	sub.exclusive = s.active == 0
	if sub.suspect() {
		s.active++
		s.started++
		if sub.role == try {
			s.latestTry = sub
		}
	}
	sub.suspectsBefore = s.started
}

// end notes that the stream of a submission has ended.
func (s *suspects) end(sub *submission) {
	if sub.suspect() {
		s.active--
	}
}

// answered judges an answer: so many events are recorded, and so many are left out. Of
// those, the submission has the events that are known by their ids.
func (s *suspects) answered(sub *submission, recorded, leftOut int, clock uint64, now time.Time) {
	a := verdict.Answer{
		Events: recorded + leftOut, Recorded: recorded,
		Suspects:    sub.suspect(),
		Again:       sub.again,
		Exclusive:   sub.exclusive && sub.suspectsBefore == s.started,
		Connection:  sub.connection,
		Sent:        sub.started,
		Came:        clock,
		SentAt:      sub.startedAt,
		At:          now,
		BreakerOpen: s.availability.breaker.Open(),
		LeftOut:     s.inflight.leftOut,
	}
	if !sub.suspect() {
		a.LeftOut += len(sub.events)
		s.proven = s.proven || sub.started > s.proofAt
		s.news = s.news || recorded > 0
	}
	var single *verdict.Suspect
	if sub.suspect() && a.Events == 1 && len(sub.events) == 1 {
		single = sub.events[0].suspect()
	}
	begun := single != nil && single.Begun()
	decision := s.history.Decide(a, single)
	if single != nil && single.Begun() != begun {
		sub.publisher.service.begun++
	}
	switch decision {
	case verdict.Settled, verdict.DeadLetter: // only a review condemns
	case verdict.Outage:
		s.openBreaker(sub, now)
	case verdict.Bisect:
		s.bisect(sub, !sub.piece && (recorded == 0 || len(sub.events) >= fewLeftOut), now)
	case verdict.Retry:
		s.retry(sub, single, now)
	case verdict.Undecided:
		s.inflight.suspectAlone(sub.events[0])
		sub.role, sub.attempts = try, 0
		others := s.controls.count()
		if s.queue.othersWait() {
			others += manyOthers
		}
		s.queue.retryAfter(sub, "left_out", s.schedule.pause(single, others, s.run.rng, now), now)
	}
}

// openBreaker takes an answer that shows that the gateway records nothing.
func (s *suspects) openBreaker(sub *submission, now time.Time) {
	b := s.availability.breaker
	probe := b.Open()
	if probe && sub.suspect() {
		s.availability.fail(b.Cause(), b.Detail(), 0, now)
	} else {
		s.availability.fail(breaker.Recording, "the gateway leaves out what it is sent, and records nothing", 0, now)
	}
	if probe {
		// The next probe is made with other events: these may be at fault, and
		// would keep the breaker open for ever.
		s.suspectAll(sub)
	}
	sub.attempts = 0 // a recovery is to be seen soon
	s.queue.retry(sub, "left_out", 0, now)
}

// retry submits events again as they are. single is the suspect if the payload had
// nothing but one.
func (s *suspects) retry(sub *submission, single *verdict.Suspect, now time.Time) {
	if single == nil {
		s.suspectAll(sub)
	} else {
		s.inflight.suspectAlone(sub.events[0])
		sub.role = suspected
		if single.Alone >= maxUntried {
			sub.role = try
		}
	}
	sub.attempts = min(sub.attempts, maxPieceAttempts)
	s.queue.retry(sub, "left_out", 0, now)
}

// suspectAll makes suspects of all events of a submission that was left out as a whole.
func (s *suspects) suspectAll(sub *submission) {
	for _, e := range sub.events {
		s.inflight.suspect(e)
	}
	sub.again = true
	if sub.role == ordinary {
		sub.role = suspected
	}
}

// bisect submits the halves of what was left out apart, several pieces at a time. keepBack
// says that most of the events may be healthy: then some are kept back as controls.
func (s *suspects) bisect(sub *submission, keepBack bool, now time.Time) {
	events := sub.events
	for _, e := range events {
		s.inflight.suspect(e)
	}
	if keepBack {
		events = s.controls.keepLeftOut(sub.publisher, events)
	}
	middle := len(events) / 2
	s.retryPiece(sub, events[:middle:middle], now)
	s.retryPiece(sub, events[middle:], now)
}

// separate submits the events of collisions again, each collision spread over payloads
// of its own number. They are no controls from now on: some of them were left out.
func (s *suspects) separate(sub *submission, collisions []collision, now time.Time) {
	for _, events := range spread(collisions) {
		for _, e := range events {
			s.inflight.suspect(e)
		}
		s.retryPiece(sub, events, now)
	}
}

// retryPiece submits some suspects of a submission again, apart from the others.
func (s *suspects) retryPiece(of *submission, piece []*inflight, now time.Time) {
	s.queue.retry(&submission{
		publisher: of.publisher, events: piece, role: suspected, piece: true,
		failures: of.failures, firstFailure: of.firstFailure, attempts: min(of.attempts, maxPieceAttempts),
	}, "left_out", 0, now)
}

// takeTurn decides which suspects may be submitted now. streams are those of all events
// in flight, clock is the logical clock.
func (s *suspects) takeTurn(clock uint64, now time.Time) {
	if s.inflight.leftOut == 0 {
		s.turn, s.since, s.tryDue, s.nextTry, s.latestTry, s.controls.leftOut = bisecting, now, false, nil, nil, nil
		return
	}
	if s.news {
		s.news = false
		s.review(now)
	}
	s.nextTry = s.chooseTry()
	pieces := s.queue.pieces.Len() > 0
	s.controls.freeLeftOut()
	switch s.turn {
	case bisecting:
		s.tryDue = s.nextTry != nil && (!pieces || now.Sub(s.since) >= bisectTurn)
		if s.tryDue && s.active == 0 {
			s.turn, s.since = trying, now
		}
	case trying:
		switch {
		case s.active > 0:
		case s.proofDue(now):
			s.turn, s.since, s.latestTry = proving, now, nil
			s.schedule.proved, s.proofAt, s.controlAsked, s.proven = now, clock, false, false
		case s.nextTry == nil, pieces && now.Sub(s.since) >= tryTurn:
			s.turn, s.since = bisecting, now
		}
	case proving:
		if !s.controlAsked && !s.queue.othersWait() {
			if c := s.controls.takeOne(); c != nil {
				s.queue.push(c)
			}
			s.controlAsked = true
		}
		if s.proven || now.Sub(s.since) >= proofTime {
			s.turn, s.since = bisecting, now
		}
	}
}

// proofDue reports whether the latest try needs a proof now.
func (s *suspects) proofDue(now time.Time) bool {
	if s.latestTry == nil || s.latestTry.undecided() == nil {
		return false
	}
	var tried []*verdict.Suspect
	for sub := range s.queue.allTries {
		if suspect := sub.undecided(); suspect != nil {
			tried = append(tried, suspect)
		}
	}
	return s.schedule.proofDue(s.latestTry.undecided(), tried, s.controls.count(), s.queue.othersWait(), now)
}

// next takes the submission of suspects that may start now, nil if there is none.
func (s *suspects) next() *submission {
	switch {
	case s.turn == bisecting && !s.tryDue:
		return s.queue.nextPiece()
	case s.turn == trying && s.active == 0 && s.nextTry != nil:
		return s.queue.nextTry(func(sub *submission) bool { return sub == s.nextTry })
	}
	return nil
}

// review judges the events that are tried.
func (s *suspects) review(now time.Time) {
	for sub := range s.queue.allTries {
		s.judge(sub)
	}
	s.deadLetters.write(now)
}

// judge dead-letters the event of a try if it is condemned. The submission is then empty.
func (s *suspects) judge(sub *submission) {
	suspect := sub.undecided()
	if suspect == nil || s.history.Review(suspect) != verdict.DeadLetter {
		return
	}
	e := sub.events[0]
	s.deadLetters.reject(e, event.GatewayRejected, leftOutDetail(suspect.Counted, int(e.submissions)))
	sub.events = nil
}

// leftOutDetail is what a dead-lettered message says that was left out.
func leftOutDetail(counted, submissions int) string {
	return fmt.Sprintf("the gateway left the event out of %d answers in %d submissions while it recorded others, without saying why", counted, submissions)
}

// chooseTry returns the try that is next among those that are due, nil if there is none.
// One whose service or environment has all the streams that it may have is chosen only if
// there is no other: streams that hang must hold up nobody else.
func (s *suspects) chooseTry() *submission {
	var next, nextBusy *submission
	busy := s.queue.busy()
	for _, sub := range s.queue.tries {
		switch {
		case sub.undecided() == nil:
		case busy.Service(sub.publisher.service) || busy.Environment(sub.publisher):
			if nextBusy == nil || sub.before(nextBusy) {
				nextBusy = sub
			}
		case next == nil || sub.before(next):
			next = sub
		}
	}
	return cmp.Or(next, nextBusy)
}

// before reports whether the event of one try is tried before that of another one: by
// their classes; of those that were not tried yet, that of the service with fewer
// that were; and then that whose last try is longest ago.
func (s *submission) before(other *submission) bool {
	class := s.tryClass()
	if of := other.tryClass(); class != of {
		return class < of
	}
	if begun, of := s.publisher.service.begun, other.publisher.service.begun; class == 0 && begun != of {
		return begun < of
	}
	return s.started < other.started
}

// tryClass is 0 for events that were not tried yet, since what the gateway records of
// others counts from the first try; 1 for those that were; and 2 for those that were not
// if very many of their service were: if all of them took turns, none would be condemned
// in the time for which events are in flight. Each service has its own number, so that a
// service with very many does not keep the others' from being tried.
func (s *submission) tryClass() int {
	switch {
	case s.events[0].suspect().Begun():
		return 1
	case s.publisher.service.begun >= maxBegun:
		return 2
	default:
		return 0
	}
}

// undecided returns what is known of the event of a try, nil once the event is settled
// or condemned.
func (s *submission) undecided() *verdict.Suspect {
	if len(s.events) == 0 || s.events[0].settled {
		return nil
	}
	return s.events[0].suspect()
}
