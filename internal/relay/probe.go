package relay

import (
	"errors"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// trickle is how many fresh events are pulled at a time to find out whether the
// gateway records again.
const trickle = 10

// probe asks whether what is away is back, one question at a time.
func (r *Relay) probe(now time.Time) {
	g := &r.gate
	if r.stopping.on || now.Before(g.next) {
		return
	}
	if g.cause == silent {
		r.probeRecording(now)
		return
	}
	if g.probing {
		return
	}
	g.probing = true
	r.spawn(func() { r.probes <- r.gateway.Probe(r.work, requestID()) })
}

// probeRecording submits events, since only they can tell whether the gateway
// records. Fresh ones can clear suspects: they come first, from what is held or
// else from Pub/Sub.
func (r *Relay) probeRecording(now time.Time) {
	if r.flying > 0 {
		return
	}
	r.groups.Flush()
	f := r.nextRetry(otherFlight)
	if f == nil {
		f = r.nextFresh(now)
	}
	if f == nil {
		r.pullTrickle()
		f = r.nextRetry(suspectFlight)
	}
	if f != nil {
		r.launch(f)
	}
}

// pullTrickle asks Pub/Sub for a few fresh events, if it is not being asked.
func (r *Relay) pullTrickle() {
	if r.gate.pulling || !r.cleared || r.receiving {
		return
	}
	r.gate.pulling = true
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
	r.gate.probing = false
	r.m.Submissions.WithLabelValues(probeCode(err)).Inc()
	if r.work.Err() != nil {
		return
	}
	var f *submit.Failure
	if !errors.As(err, &f) {
		r.everReached = true
		r.reached(now)
		return
	}
	switch f.Class {
	case submit.SAMS:
		r.shutGate(noToken, f.Detail(), f.RetryAfter, now)
	case submit.Credentials:
		// A client that SAMS does not know at the very start is a mistake in the
		// settings; later, it is an outage.
		var refused *submit.CredentialsError
		if !r.everReached && errors.As(err, &refused) {
			r.stop(Failed, refused, now)
			return
		}
		r.shutGate(badToken, f.Detail(), f.RetryAfter, now)
	case submit.Unusable:
		r.stop(Failed, unusable(f), now)
	default:
		r.shutGate(unreachable, f.Detail(), f.RetryAfter, now)
	}
}
