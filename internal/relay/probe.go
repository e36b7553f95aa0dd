package relay

import (
	"errors"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// trickle is how many fresh events are pulled at a time to find out whether the
// gateway records again.
const trickle = 10

// probing is what the loop has asked to find out whether a service is back. The loop
// owns it.
type probing struct {
	asking     bool      // a probe of the gateway is in flight
	pulling    bool      // a pull of a few fresh events is in flight
	lastLogged time.Time // when the log last said that the breaker is open
}

// probe asks whether the service is back, with one request at a time.
func (r *Relay) probe(now time.Time) {
	if r.stopping.on {
		return
	}
	switch r.breaker.Probe(now) {
	case breaker.NoProbe:
	case breaker.RecordEvents:
		r.probeRecording(now)
	case breaker.AskGateway:
		if r.probing.asking {
			return
		}
		r.probing.asking = true
		r.spawn(func() { r.probes <- r.gateway.Probe(r.work, requestID()) })
	}
}

// probeRecording submits events, since only they can tell whether the gateway
// records. Fresh ones can clear suspects: they come first, from what is held or
// else from Pub/Sub.
func (r *Relay) probeRecording(now time.Time) {
	if r.flying > 0 {
		return
	}
	r.groups.Flush()
	f := r.nextRetry()
	if f == nil {
		f = r.nextFresh(now)
	}
	if f == nil {
		f = r.suspects.control()
	}
	if f == nil {
		r.pullTrickle()
		f = r.nextPiece()
	}
	if f == nil {
		f = r.nextTry(func(*flight) bool { return true })
	}
	if f != nil {
		r.launch(f)
	}
}

// pullTrickle asks Pub/Sub for a few fresh events, if it is not being asked.
func (r *Relay) pullTrickle() {
	if r.probing.pulling || !r.cleared || r.receiving {
		return
	}
	r.probing.pulling = true
	r.spawn(func() { r.checks <- r.pullOnce(trickle, false) })
}

// emptiness is the answer to a question for messages.
type emptiness struct {
	found int
	err   error
	final bool // asked to end a drain
}

func (r *Relay) pullOnce(n int, final bool) emptiness {
	found, err := r.receiver.PullOnce(r.fetch, n)
	return emptiness{found: found, err: err, final: final}
}

// probed takes the answer of a probe.
func (r *Relay) probed(err error, now time.Time) {
	r.probing.asking = false
	r.m.Submissions.WithLabelValues(probeCode(err)).Inc()
	var f *submit.Failure
	if r.work.Err() != nil {
		if errors.As(err, &f) {
			r.breaker.Unanswered(unansweredBy(f))
		}
		return
	}
	if !errors.As(err, &f) {
		r.everReached = true
		r.breaker.Fits()
		r.accepted(now)
		return
	}
	if !misfit(f) {
		r.breaker.Fits()
	}
	switch f.Class {
	case submit.SAMS:
		r.openBreaker(breaker.SAMS, f.Detail(), f.RetryAfter, now)
	case submit.Credentials:
		// A client that SAMS does not know at the very start is a mistake in the
		// settings; later, it is an outage.
		var refused *submit.CredentialsError
		if !r.everReached && errors.As(err, &refused) && r.certain(f) {
			r.stop(Failed, refused, now)
			return
		}
		r.openBreaker(breaker.Credentials, f.Detail(), f.RetryAfter, now)
	case submit.Fatal:
		if !r.everReached && r.certain(f) {
			r.stop(Failed, unusable(f), now)
			return
		}
		r.openBreaker(breaker.Gateway, f.Detail(), f.RetryAfter, now)
	default:
		r.openBreaker(breaker.Gateway, f.Detail(), f.RetryAfter, now)
	}
}

// unansweredBy says who has never answered, when the first question was given up at
// the end of the run.
func unansweredBy(f *submit.Failure) breaker.Cause {
	if f.Class == submit.SAMS {
		return breaker.SAMS
	}
	return breaker.Gateway
}

// misfit reports whether the answer is not one that the service itself would give:
// any HTTP 404 in between becomes Unimplemented, and SAMS refuses with OAuth's codes.
func misfit(f *submit.Failure) bool {
	if refused, ok := errors.AsType[*submit.CredentialsError](error(f)); ok {
		return refused.Code == ""
	}
	return f.Class == submit.Fatal && f.NoGateway()
}

// certain reports whether a refusal at the start is a verdict on the settings.
func (r *Relay) certain(f *submit.Failure) bool {
	return !misfit(f) || r.breaker.Misfit()
}
