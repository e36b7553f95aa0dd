package relay

import (
	"errors"
	"fmt"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// landed takes the outcome of a flight: what was listed is settled, and for the
// rest it is decided what it means.
func (r *Relay) landed(o outcome, now time.Time) {
	f := o.flight
	r.flying--
	f.publisher.flying--
	f.publisher.service.flying--
	r.flights.moment++
	if f.suspect {
		r.suspects.flying--
	}
	r.m.Submissions.WithLabelValues(o.result.Code().String()).Inc()
	if o.result.Took > 0 {
		r.m.SubmissionSeconds.Observe(o.result.Took.Seconds())
	}

	t := r.told(f, o.result, now)
	r.streamEnded(f, o.result, t.recorded, now)
	if t.recorded > 0 {
		f.publisher.service.submitted.Add(float64(t.settled))
		r.flights.recordedAt = r.flights.moment
		r.flights.failing = 0
		r.everRecorded = true
		r.m.LastSuccess.Set(float64(now.Unix()))
		r.delivered(now)
	}
	switch {
	case o.result.Failure == nil:
		if t.recorded+t.leftOut > 0 {
			r.answered(f, t.recorded, t.leftOut, now)
		}
		r.separate(f, t.collisions, now)
	case len(f.events) == 0 && t.settled > 0:
	default:
		r.failed(f, o.result.Failure, now)
	}
	r.flushSettled()
	r.forget(f.publisher)
}

// told is what a stream has told about a flight's events.
type told struct {
	settled    int // events that are recorded for certain
	recorded   int // all that are
	leftOut    int // all that are not, by an answer that is complete
	collisions []collision
}

// told settles what an answer lists. The flight keeps what is not listed, apart from
// the events of collisions. Was the answer cut off, then it keeps those, too: nothing
// is known of the rest.
func (r *Relay) told(f *flight, result submit.Result, now time.Time) (t told) {
	if result.Failure == nil {
		t.collisions = f.takeCollisions(result.Collisions)
		for _, c := range t.collisions {
			t.recorded += c.recorded
			t.leftOut += len(c.events) - c.recorded
		}
	}
	var rest []*held
	for i, h := range f.events {
		switch {
		case h == nil || h.gone:
		case result.Listed != nil && result.Listed[i]:
			t.settled++
			r.recorded(h, now)
		default:
			rest = append(rest, h)
		}
	}
	f.events = rest
	t.recorded += t.settled
	t.leftOut += len(rest)
	return t
}

// leftOutDetail is what a dead-lettered message says that was left out.
func leftOutDetail(counted, submissions int) string {
	return fmt.Sprintf("the gateway left the event out of %d answers in %d submissions while it recorded others, without saying why", counted, submissions)
}

// failed takes the events of a stream that failed before they were listed.
func (r *Relay) failed(f *flight, failure *submit.Failure, now time.Time) {
	if r.stopping.on {
		if !f.isolated && !f.suspect {
			r.unsettled += len(f.events)
		}
		r.retry(f, "", 0, 0, now)
		return
	}
	switch failure.Class {
	case submit.SAMS:
		r.openBreaker(breaker.SAMS, failure.Detail(), failure.RetryAfter, now)
		r.retry(f, "sams", retryFirst, failure.RetryAfter, now)
	case submit.Credentials:
		r.openBreaker(breaker.Credentials, failure.Detail(), failure.RetryAfter, now)
		r.retry(f, "credentials", retryFirst, failure.RetryAfter, now)
	case submit.Fatal:
		// The gateway refuses the worker's own identity, too. It accepted that before, or
		// nothing would have been submitted: so this passes. An identity that is at
		// fault is found when the worker's own one is accepted again.
		r.openBreaker(breaker.Gateway, failure.Detail(), failure.RetryAfter, now)
		r.retry(f, "unusable", retryFirst, failure.RetryAfter, now)
	case submit.IdentityRefused:
		for _, h := range f.events {
			r.bury(h, event.GatewayRefused, fmt.Sprintf(
				"the gateway refuses the identity service_id=%q service_environment=%q (%s) while it takes others", f.publisher.id.ServiceID, f.publisher.id.Environment, failure.Code))
		}
	case submit.BatchRefused:
		if len(f.events) == 1 {
			r.bury(f.events[0], event.GatewayRefused, fmt.Sprintf("the gateway refuses a stream with this event (%s) and takes the same stream without it", failure.Code))
			return
		}
		r.halve(f, "refused", now)
	default:
		r.passing(f, failure, now)
	}
}

// passing takes a fault that says nothing about the events, unless it is seen
// with the same events again and again while everything else goes well.
func (r *Relay) passing(f *flight, failure *submit.Failure, now time.Time) {
	if r.crowded(f, failure) {
		f.refusals++
		r.flights.failedAt = r.flights.moment // a poisonous event is not why others are refused
		r.retry(f, "exhausted", retryFirst, failure.RetryAfter, now)
		return
	}
	f.failures++
	if f.trouble == 0 {
		f.trouble = r.flights.moment
	}
	alone := f.isolated || f.suspect
	outage := failure.Canary == submit.CanaryFailed
	if alone {
		r.noteFailing(f)
	} else {
		r.flights.failedAt = r.flights.moment
		outage = r.breaker.StreamFailed() || outage
	}
	if outage {
		r.openBreaker(breaker.Gateway, failure.Detail(), failure.RetryAfter, now)
	}

	othersSucceed := failure.Canary == submit.CanaryPassed
	if alone && othersSucceed {
		// The gateway is there, and these events may be at fault for their streams: a
		// half-open breaker must not wait for them.
		r.passTrial()
	}
	if failure.TimedOut() || (f.failures >= 2 && othersSucceed) {
		if len(f.events) > 1 {
			r.halve(f, "failed", now)
			return
		}
		f.isolated = true
	}
	// A suspect was left out of the answer of a stream that ended well: so it is not
	// what makes streams fail.
	if len(f.events) == 1 && f.isolated && !f.suspect && othersSucceed && r.countRefusal(f.events[0], f, failure) {
		h := f.events[0]
		r.bury(h, event.GatewayRefused, fmt.Sprintf(
			"%d streams with this event alone failed (%s) while the gateway recorded others", h.apart().refused, failure.Code))
		return
	}
	r.retry(f, "failed", retryFirst, failure.RetryAfter, now)
}

// noteFailing counts the events whose streams fail although they were cut out.
func (r *Relay) noteFailing(f *flight) {
	for _, h := range f.events {
		if rare := h.apart(); rare.failingSince != r.flights.recordedAt+1 {
			rare.failingSince = r.flights.recordedAt + 1
			r.flights.failing++
		}
	}
}

// countRefusal decides whether the failure of a stream with a single event counts
// against the event, and whether it was the last one that is allowed.
func (r *Relay) countRefusal(h *held, f *flight, failure *submit.Failure) bool {
	rare := h.apart()
	if r.flights.failedAt > rare.refusedAt {
		rare.refused, rare.singled = 0, 0 // others fail too
	}
	between := rare.refusedAt > 0 && r.flights.recordedAt > rare.refusedAt
	rare.refusedAt = r.flights.moment
	if r.flights.recordedAt < f.trouble || r.flights.recordedAt < r.flights.failedAt {
		return false
	}
	if between {
		rare.singled++
	} else if r.flights.failing > poisonsAtOnce {
		return false // too many for it to be their fault
	}
	rare.refused++
	if failure.TimedOut() {
		return false // that is what slowness looks like
	}
	// Was nothing recorded between two of its failures, then an outage may just
	// have begun: such failures prove less.
	proven, unproven := max(r.opts.RejectAfter, leastFailures), max(r.opts.RejectAfter, unprovenFailures)
	if failure.TransportError() {
		proven, unproven = proven+lineFaults, unproven+lineFaults
	}
	return rare.singled+1 >= proven || rare.refused >= unproven
}

// poisonsAtOnce is how many events may fail alone, with nothing recorded in
// between, before that is rather an outage.
const poisonsAtOnce = 5

// An event whose streams fail alone gets at least so many chances; more when
// nothing was recorded in between, and still more when they fail in a way in
// which lines do, by chance.
const (
	leastFailures    = 3
	unprovenFailures = 6
	lineFaults       = 4
)

// halve submits the two halves of a batch apart, to find the event that is the
// matter.
func (r *Relay) halve(f *flight, why string, now time.Time) {
	middle := len(f.events) / 2
	for _, events := range [][]*held{f.events[:middle:middle], f.events[middle:]} {
		r.retry(&flight{
			publisher: f.publisher, events: events, suspect: f.suspect, piece: f.piece, try: f.try && len(events) == 1, isolated: true,
			failures: max(1, f.failures), trouble: f.trouble,
		}, why, retryFirst, 0, now)
	}
}

func unusable(f *submit.Failure) error {
	if f.NoGateway() {
		return fmt.Errorf("TELEMETRY_GATEWAY_URL: what answers there is no Telemetry Gateway: %s", f.Detail())
	}
	return fmt.Errorf("the gateway refuses streams of every identity (%s): check TELEMETRY_GATEWAY_URL and the worker's version", f.Code)
}

func probeCode(err error) string {
	if f, ok := errors.AsType[*submit.Failure](err); ok {
		return f.Code.String()
	}
	return "OK"
}
