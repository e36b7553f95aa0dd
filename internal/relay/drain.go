package relay

import "time"

// drainCheck proves that the subscription is empty, which ends a drain. It is pure.
//
// Silence alone is no proof, because a stream may be silent on a healthy connection. So
// several pulls must bring nothing, and each stream must answer a ping while a pull waits.
// A pull during which a stream does not answer counts for nothing: where an answer takes as
// long as a pull waits, the answer to the pull may have come too late. The loop owns it.
type drainCheck struct {
	pulling bool // a pull is in flight
	// emptying: receiving is ended to see whether a stream still brings something.
	emptying bool
	// sawEmpty: the pulls have shown once that the subscription is empty.
	sawEmpty bool
	// pullError is why Pub/Sub did not answer the latest pull; nil: it did.
	pullError error

	since  time.Time // the end of the latest activity, to which pulls belongs
	pulls  int       // pulls in a row that brought nothing
	pinged time.Time // when the streams were pinged, with the latest pull
}

const (
	// drainPull is how many messages a pull asks for.
	drainPull = 100
	// emptyPulls in a row that wait and bring nothing show that the subscription is
	// empty. One that waits may bring nothing although there are messages
	// (google-cloud-go#8235), and one that does not wait may do so even more often.
	emptyPulls = 3
)

// drainView is what a drain looks at.
type drainView struct {
	now time.Time
	// ready: every dependency is available, and a stream from Pub/Sub is open.
	ready bool
	// finished: no event is in flight that is still worth waiting for.
	finished bool
	// lastBusy is when the latest activity ended.
	lastBusy time.Time
	// idle is for how long nothing may have come, pullWait how long a pull waits.
	idle, pullWait time.Duration
}

// drainStep is what a drain does next.
type drainStep int

const (
	// drainWait does nothing: time has to pass, or an answer to come.
	drainWait drainStep = iota
	// drainRestart begins the idle time anew: it does not run while something is unavailable.
	drainRestart
	// drainPullOnce pings the streams and pulls.
	drainPullOnce
	// drainStopReceiving ends receiving: messages that a stream has been given are not seen
	// by a pull.
	drainStopReceiving
)

// next decides what to do.
func (d *drainCheck) next(v drainView) drainStep {
	switch {
	case d.emptying:
		return drainWait
	case !v.ready:
		return drainRestart
	case d.pulling || !v.finished:
		return drainWait
	}
	if !d.since.Equal(v.lastBusy) {
		d.since, d.pulls = v.lastBusy, 0
	}
	quiet := v.now.Sub(v.lastBusy)
	switch {
	case d.pulls < emptyPulls:
		// The pulls are made within the idle time, so that they do not make it longer.
		if quiet < v.idle-emptyPulls*v.pullWait {
			return drainWait
		}
		d.pulling, d.pinged = true, v.now
		return drainPullOnce
	case quiet < v.idle:
		return drainWait
	}
	d.emptying = true
	return drainStopReceiving
}

// pulled takes the answer to a pull. answered says that each stream has answered since
// pinged.
func (d *drainCheck) pulled(found int, err error, answered bool, lastBusy time.Time) {
	d.pulling, d.pullError = false, err
	if err == nil && found == 0 && answered && d.since.Equal(lastBusy) {
		if d.pulls++; d.pulls == emptyPulls {
			d.sawEmpty = true
		}
	}
}
