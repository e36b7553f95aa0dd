package relay

import (
	"fmt"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// results decides what the results of streams mean for the events of their submissions and
// for the gateway. The loop owns it.
type results struct {
	run          *run
	inflight     *inflightSet
	settlement   *settlement
	deadLetters  *deadLetterQueue
	queue        *submissionQueue
	submitter    *submitter
	suspects     *suspects
	availability *availability

	streams      streamHistory
	everRecorded bool // the gateway has recorded an event
}

// take takes the result of a stream: listed events are settled, and for the others it is
// decided what the result means. nearCapacity is the receiver's.
func (t *results) take(r submissionResult, nearCapacity bool, now time.Time) {
	s, result := r.submission, r.result
	clock := t.streams.tick()
	t.submitter.count(s, result)
	t.suspects.end(s)

	a := t.settleListed(s, result, now)
	t.submitter.adapt(s, result, a.recorded, t.queue.readyEvents(nearCapacity, now), now)
	if a.recorded > 0 {
		s.publisher.service.submitted.Add(float64(a.settled))
		t.streams.recorded()
		t.everRecorded = true
		t.run.metrics.LastSuccess.Set(float64(now.Unix()))
		t.availability.recorded(now)
	}
	switch {
	case result.Failure == nil:
		if a.recorded+a.leftOut > 0 {
			t.suspects.answered(s, a.recorded, a.leftOut, clock, now)
		}
		t.suspects.separate(s, a.collisions, now)
	case len(s.events) == 0 && a.settled > 0:
	default:
		t.failed(s, result.Failure, now)
	}
	t.settlement.flush()
	t.inflight.forget(s.publisher)
}

// answer is what an answer says about the events of a submission.
type answer struct {
	settled    int // events that are certainly recorded
	recorded   int // all events that are recorded
	leftOut    int // all events that are not recorded, if the answer is complete
	collisions []collision
}

// settleListed settles the events that an answer lists. The submission keeps those that it
// does not list, apart from the events of collisions. If the answer was cut off, it keeps
// those, too: nothing is known of the rest.
func (t *results) settleListed(s *submission, result submit.Result, now time.Time) (a answer) {
	if result.Failure == nil {
		a.collisions = s.takeCollisions(result.Collisions)
		for _, c := range a.collisions {
			a.recorded += c.recorded
			a.leftOut += len(c.events) - c.recorded
		}
	}
	var rest []*inflight
	for i, e := range s.events {
		switch {
		case e == nil || e.settled:
		case result.Listed != nil && result.Listed[i]:
			a.settled++
			if e.failures != nil {
				t.streams.refusedButRecorded(&e.failures.refusals)
			}
			t.settlement.eventRecorded(e, now)
		default:
			rest = append(rest, e)
		}
	}
	if a.settled > 0 {
		t.streams.refusedButRecorded(&s.publisher.refusals)
	}
	s.events = rest
	a.recorded += a.settled
	a.leftOut += len(rest)
	return a
}

// failed takes the events of a stream that failed before they were listed.
func (t *results) failed(s *submission, failure *submit.Failure, now time.Time) {
	if t.run.stopping {
		t.settlement.releaseRest(s.events, !s.isolated && !s.suspect())
		return
	}
	switch failure.Class {
	case submit.SAMS:
		t.unavailable(s, breaker.SAMS, "sams", failure, now)
	case submit.Credentials:
		t.unavailable(s, breaker.Credentials, "credentials", failure, now)
	case submit.Fatal:
		// The gateway refuses the worker's own identity, too. It accepted that before, or
		// nothing would have been submitted: so this passes. An identity that is at
		// fault is found when the worker's own one is accepted again.
		t.unavailable(s, breaker.Gateway, "unusable", failure, now)
	case submit.IdentityRefused:
		t.identityRefused(s, failure, now)
	case submit.BatchRefused:
		t.batchRefused(s, failure, now)
	default:
		t.failedTransiently(s, failure, now)
	}
}

// identityRefused takes a refusal of the publisher, while the gateway takes the worker's own
// identity.
func (t *results) identityRefused(s *submission, failure *submit.Failure, now time.Time) {
	if !t.streams.refused(&s.publisher.refusals, s.started) {
		t.queue.retry(s, "refused", failure.RetryAfter, now)
		return
	}
	for _, e := range s.events {
		t.deadLetters.reject(e, event.GatewayRefused, fmt.Sprintf(
			"the gateway refuses the identity service_id=%q service_environment=%q (%s) while it takes others", s.publisher.id.ServiceID, s.publisher.id.Environment, failure.Code))
	}
}

// batchRefused takes a refusal of the events, while the gateway takes their publisher.
func (t *results) batchRefused(s *submission, failure *submit.Failure, now time.Time) {
	if len(s.events) > 1 {
		t.queue.retryHalves(s, "refused", now)
		return
	}
	e := s.events[0]
	if !t.streams.refused(&e.history().refusals, s.started) {
		t.queue.retry(s, "refused", failure.RetryAfter, now)
		return
	}
	t.deadLetters.reject(e, event.GatewayRefused, fmt.Sprintf("the gateway refuses a stream with this event (%s) and takes the same stream without it", failure.Code))
}

// unavailable opens the breaker, and submits the events again when it has closed.
func (t *results) unavailable(s *submission, why breaker.Cause, cause string, failure *submit.Failure, now time.Time) {
	t.availability.fail(why, failure.Detail(), failure.RetryAfter, now)
	t.queue.retry(s, cause, failure.RetryAfter, now)
}

// failedTransiently takes a failure that says nothing about the events, unless it is seen
// with the same events again and again while everything else goes well.
func (t *results) failedTransiently(s *submission, failure *submit.Failure, now time.Time) {
	if t.availability.breaker.Closed() && t.submitter.outOfCapacity(s, failure) {
		s.refused++
		t.streams.othersFailed() // an event that is at fault is not why others are refused
		t.queue.retry(s, "exhausted", failure.RetryAfter, now)
		return
	}
	s.failures++
	if s.firstFailure == 0 {
		s.firstFailure = t.streams.clock
	}
	canaryPassed := failure.Canary == submit.CanaryPassed
	t.judgeGateway(s, failure, canaryPassed, now)

	if failure.TimedOut() || (s.failures >= 2 && canaryPassed) {
		if len(s.events) > 1 {
			t.queue.retryHalves(s, "failed", now)
			return
		}
		s.isolated = true
	}
	// A suspect was left out of the answer of a stream that ended well: so it is not
	// the reason for which streams fail.
	if len(s.events) == 1 && s.isolated && !s.suspect() && canaryPassed {
		e := s.events[0]
		refusals := &e.history().refusals
		if t.streams.atFault(refusals, refusal{
			since: s.firstFailure, timedOut: failure.TimedOut(), capacity: failure.NoCapacity(), transport: failure.TransportError(),
		}) {
			t.deadLetters.reject(e, event.GatewayRefused, fmt.Sprintf(
				"%d streams with this event alone failed (%s) while the gateway recorded others", refusals.counted, failure.Code))
			return
		}
	}
	t.queue.retry(s, "failed", failure.RetryAfter, now)
}

// judgeGateway decides what a transient failure says about the gateway.
func (t *results) judgeGateway(s *submission, failure *submit.Failure, canaryPassed bool, now time.Time) {
	outage := failure.Canary == submit.CanaryFailed
	cutOut := s.isolated || s.suspect()
	if cutOut {
		for _, e := range s.events {
			t.streams.cutOutFailed(&e.history().refusals)
		}
	} else {
		t.streams.othersFailed()
		outage = t.availability.breaker.StreamFailed() || outage
	}
	if outage {
		t.availability.fail(breaker.Gateway, failure.Detail(), failure.RetryAfter, now)
	}
	if cutOut && canaryPassed {
		// The gateway is there, and these events may be at fault for their streams: a
		// half-open breaker must not wait for them.
		t.availability.pass()
	}
}
