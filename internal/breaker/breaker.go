// Package breaker is the circuit breaker before the gateway. It is pure: its caller passes
// in the time and the observations, and it returns what to do.
//
// While the breaker is open, the worker receives nothing from Pub/Sub and sends only probes
// to the gateway, so an outage never costs an event a delivery attempt. The cause of an
// open breaker decides how to probe. An outage of SAMS or of the gateway's API has ended
// when a token and a stream are accepted. A gateway that answers and records nothing has
// recovered only when it records events.
package breaker

import "time"

// State of a breaker.
type State int

const (
	// Open: only probes are sent.
	Open State = iota
	// HalfOpen: a probe was accepted, and the next streams decide whether the breaker
	// closes or opens again. The worker does not receive yet.
	HalfOpen
	// Closed: events are received and submitted.
	Closed
)

// String returns the state in lower case.
func (s State) String() string { return [...]string{"open", "half-open", "closed"}[s] }

// Cause is why a breaker is open. Logs have its value.
type Cause string

const (
	// Starting: the gateway has not been asked yet. Every run begins so.
	Starting Cause = "starting"
	// Gateway: streams fail.
	Gateway Cause = "gateway"
	// Recording: streams end well, but no event is recorded.
	Recording Cause = "recording"
	// SAMS gives no token.
	SAMS Cause = "sams"
	// Credentials: SAMS refuses the client, or the gateway its token.
	Credentials Cause = "credentials"
)

// Text returns the cause in words.
func (c Cause) Text() string {
	switch c {
	case Starting:
		return "the gateway has not answered yet"
	case Gateway:
		return "the gateway is not available"
	case Recording:
		return "the gateway answers, but records nothing"
	case SAMS:
		return "SAMS gives no access token"
	case Credentials:
		return "the worker's credentials are refused"
	}
	return string(c)
}

// Probe is a way to find out whether the service is back.
type Probe int

const (
	// NoProbe: it is not the time for a probe, or the breaker is not open.
	NoProbe Probe = iota
	// AskGateway: open a stream without events.
	AskGateway
	// RecordEvents: submit events.
	RecordEvents
)

// Transition is the change of state that an observation caused.
type Transition int

const (
	// None: the breaker stays as it is.
	None Transition = iota
	// FirstClosed: the breaker closed for the first time, and nothing had failed before.
	FirstClosed
	// Reclosed: the breaker closed after an outage.
	Reclosed
	// Tried: the breaker is half-open after an outage.
	Tried
)

const (
	// MaxFailures is how many streams must fail in a row to open the breaker.
	MaxFailures = 3
	// maxMisfits is how many answers in a row must come from a server that is neither SAMS
	// nor a Telemetry Gateway before the address counts as wrong. A single one may come
	// from a proxy or a load balancer while a service is being replaced.
	maxMisfits = 3
)

// Breaker is open at the start. It is not safe for concurrent use.
type Breaker struct {
	// backoff draws the time until the next probe. level counts the probes that failed in a
	// row. atLeast is the delay that the server asked for.
	backoff func(level int, atLeast time.Duration) time.Duration

	state  State
	cause  Cause
	detail string    // of the last failure, safe to show
	since  time.Time // when it left the state Closed
	failed bool      // anything has failed since the start
	silent bool      // streams ended without a recorded event, and none was recorded since

	failures int       // streams that failed in a row
	misfits  int       // answers in a row from another server, before the first good one
	level    int       // probes that failed in a row
	next     time.Time // when to probe again
}

// New returns a breaker that is open with the cause Starting.
func New(now time.Time, backoff func(level int, atLeast time.Duration) time.Duration) *Breaker {
	return &Breaker{backoff: backoff, cause: Starting, since: now}
}

// State returns the present state.
func (b *Breaker) State() State { return b.state }

// Open reports whether the breaker is open.
func (b *Breaker) Open() bool { return b.state == Open }

// Closed reports whether the breaker is closed.
func (b *Breaker) Closed() bool { return b.state == Closed }

// Cause returns why the breaker is open, or was last open.
func (b *Breaker) Cause() Cause { return b.cause }

// Detail returns the text of the failure, which is safe to show and may be empty.
func (b *Breaker) Detail() string { return b.detail }

// Since returns when the breaker was opened, or when the run began.
func (b *Breaker) Since() time.Time { return b.since }

// Failed reports whether anything has failed since the start.
func (b *Breaker) Failed() bool { return b.failed }

// Starting reports whether the gateway has not answered yet.
func (b *Breaker) Starting() bool { return b.state == Open && b.cause == Starting }

// Reason returns the cause in words, with the detail.
func (b *Breaker) Reason() string {
	if b.detail == "" {
		return b.cause.Text()
	}
	return b.cause.Text() + ": " + b.detail
}

// StreamFailed notes that a stream failed whose events are not under suspicion
// themselves. It reports whether that is reason enough to Fail.
func (b *Breaker) StreamFailed() bool {
	b.failures++
	return b.state == HalfOpen || b.failures >= MaxFailures
}

// Fail opens the breaker, or notes that another probe failed. It reports whether the
// breaker was not open before, or for another cause. The next probe is not before
// retryAfter is over.
func (b *Breaker) Fail(why Cause, detail string, retryAfter time.Duration, now time.Time) (changed bool) {
	b.failed = true
	b.silent = b.silent || why == Recording
	switch {
	case b.state == Open && b.cause != Starting:
		b.level++
	case b.state != HalfOpen: // a trial that fails goes on where the probes were
		b.level = 0
	}
	if b.state != Open {
		b.since = now
	}
	changed = b.state != Open || b.cause != why
	b.state, b.cause, b.detail = Open, why, detail
	b.next = now.Add(b.backoff(b.level, retryAfter))
	return changed
}

// Recorded notes that the gateway recorded an event, which is the best of all signs.
func (b *Breaker) Recorded() Transition {
	b.failures, b.silent = 0, false
	was := b.state
	if was == Open {
		return b.close()
	}
	b.state, b.level = Closed, 0
	return None
}

// Accepted notes that a stream without events was accepted. Unless recorded events
// alone can tell, the breaker closes; where events wait that can be tried, it is
// half-open until they were.
func (b *Breaker) Accepted(eventsWait bool, now time.Time) Transition {
	switch {
	case b.state != Open || b.cause == Recording:
		return None
	case b.silent:
		// The gateway is back. Whether it records is another question.
		b.cause, b.detail, b.next = Recording, "", now
		return None
	case b.cause == Starting && !b.failed:
		return b.close()
	case eventsWait:
		b.failures = 0
		b.state = HalfOpen
		return Tried
	}
	return b.close()
}

// close closes the breaker.
func (b *Breaker) close() Transition {
	b.state, b.failures, b.level = Closed, 0, 0
	if b.cause == Starting && !b.failed {
		return FirstClosed
	}
	return Reclosed
}

// Passed ends the state HalfOpen: nothing is left to try, or the streams that failed
// did so because of their events. The next failure's backoff goes on where it was.
func (b *Breaker) Passed() bool {
	if b.state != HalfOpen {
		return false
	}
	b.state = Closed
	return true
}

// Probe says how to find out now whether the service is back.
func (b *Breaker) Probe(now time.Time) Probe {
	switch {
	case b.state != Open || now.Before(b.next):
		return NoProbe
	case b.cause == Recording:
		return RecordEvents
	}
	return AskGateway
}

// NextProbe is when Probe says something else than NoProbe, while the breaker is open.
func (b *Breaker) NextProbe() time.Time { return b.next }

// Postpone puts the next probe off: there was nothing to make it with.
func (b *Breaker) Postpone(now time.Time) { b.next = now.Add(b.backoff(b.level, 0)) }

// Unanswered notes who has never answered, when the first question is given up.
func (b *Breaker) Unanswered(who Cause) {
	if b.cause == Starting {
		b.cause = who
	}
}

// Fits notes that an answer came from the service itself, whatever it said.
func (b *Breaker) Fits() { b.misfits = 0 }

// Misfit notes an answer that the service would never give, such as a page of HTML.
// It reports whether there were so many in a row that the address must be wrong.
func (b *Breaker) Misfit() bool {
	b.misfits++
	return b.misfits >= maxMisfits
}
