package relay

import (
	"time"
)

// drainState is the proof that the subscription is empty, which ends a drain. The
// loop owns it.
type drainState struct {
	checking bool // a pull is under way
	emptying bool // receiving is ended to see whether a stream still brings something
	sawEmpty bool // the proof by pulls was complete once
	// pullError is why Pub/Sub did not answer the last pull; nil: it did.
	pullError error

	proven time.Time // the lastBusy that the fields below belong to
	pulls  int       // pulls in a row that brought nothing
	pinged time.Time // when the streams were pinged; zero: not yet
}

const (
	// finalPull is how many messages a pull asks for.
	finalPull = 100
	// emptyPulls in a row that wait and bring nothing show that the subscription is
	// empty. One that waits may bring nothing although there are messages
	// (google-cloud-go#8235), and one that does not wait may do so even more often.
	emptyPulls = 3
)

// drain ends the run when nothing has come for DrainIdle and Pub/Sub has nothing
// more. The clock stands still while anything is away. Silence alone is no proof,
// because a stream may go silent on a connection that is well. So each stream must
// answer a ping, and several pulls must bring nothing.
func (r *Relay) drain(now time.Time) {
	if r.emptying {
		return
	}
	if !r.breaker.Closed() || r.graveyard.away != "" || !r.cleared || !r.receives(now) {
		r.lastBusy = now
		return
	}
	if r.checking || !r.nothingElse(now) {
		return
	}
	if !r.proven.Equal(r.lastBusy) {
		r.proven, r.pulls, r.pinged = r.lastBusy, 0, time.Time{}
	}
	quiet := now.Sub(r.lastBusy)
	if r.pulls < emptyPulls {
		// The pulls run within the idle time, so that they do not make it longer.
		if quiet >= r.opts.DrainIdle-emptyPulls*r.receiver.PullWait() {
			r.pullForDrain(now)
		}
		return
	}
	if quiet < r.opts.DrainIdle {
		return
	}
	if !r.receiver.AnsweredSince(r.pinged) {
		r.receiver.Ping() // a stream may have been opened anew
		return
	}
	// What the open streams have been given already is not seen by asking.
	r.emptying = true
	r.stopPulling()
}

// receives reports whether a stream is open, or was a moment ago: reopening one takes
// a moment.
func (r *Relay) receives(now time.Time) bool {
	return r.receiving && noStream(r.receiver.Health(), now) < reopening
}

// reopening is how long no stream may be open without being a sign of trouble.
const reopening = 5 * time.Second

func (r *Relay) pullForDrain(now time.Time) {
	if r.pinged.IsZero() {
		r.pinged = now
		r.receiver.Ping()
	}
	r.checking = true
	r.spawn(func() { r.checks <- r.pullOnce(finalPull, true) })
}

// checked takes the answer to a pull. The messages that it brought have arrived
// already.
func (r *Relay) checked(e emptiness, now time.Time) {
	if e.final {
		r.checking, r.pullError = false, e.err
	} else {
		r.probing.pulling = false
		if e.found == 0 {
			r.breaker.Postpone(now)
		}
	}
	switch {
	case e.err != nil:
		r.log.Debug("Pub/Sub did not answer a pull", "error", e.err)
		r.lastBusy = now
	case e.final && e.found == 0 && r.proven.Equal(r.lastBusy):
		if r.pulls++; r.pulls == emptyPulls {
			r.sawEmpty = true
		}
	}
}

// unproven reports whether a drain that is to end has nothing left to do and yet could
// not prove that the subscription is empty. A pull without an answer sets the clock of
// DrainIdle back, so it counts by itself.
func (r *Relay) unproven(now time.Time) bool {
	return r.opts.Drain && r.nothingElse(now) && !r.breaker.Open() && r.cleared &&
		(now.Sub(r.lastBusy) >= r.opts.DrainIdle || !r.receives(now) || r.pullError != nil)
}
