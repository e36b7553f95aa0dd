package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// availability is what is known of SAMS and the gateway: the breaker, and the probe
// without events that is in flight. It logs and counts what the breaker decides, and
// has receiving follow it. The loop owns it.
type availability struct {
	run       *run
	gateway   Gateway
	breaker   *breaker.Breaker
	receiving *receiving
	inflight  *inflightSet
	queue     *submissionQueue
	submitter *submitter
	probes    chan error // to the loop

	started      time.Time // when the run began
	probing      bool      // a probe without events is in flight
	everAccepted bool      // the gateway has accepted a token
	lastLogged   time.Time // when the log last said that nothing is delivered
}

const (
	// A probe is repeated after probeFirst, and then ever later up to probeMax, which
	// bounds how late the loop sees a recovery.
	probeFirst = 500 * time.Millisecond
	probeMax   = 5 * time.Second
	// quietStart is how long the first answer may take before the log says so.
	quietStart = 3 * time.Second
)

// newBreaker returns the run's breaker, which is open until the gateway has answered.
func newBreaker(r *run, now time.Time) *breaker.Breaker {
	return breaker.New(now, func(level int, atLeast time.Duration) time.Duration {
		return r.backoff(level, probeFirst, probeMax, atLeast)
	})
}

// fail opens the breaker, or notes that another probe failed.
func (a *availability) fail(why breaker.Cause, detail string, retryAfter time.Duration, now time.Time) {
	changed := a.breaker.Fail(why, detail, retryAfter, now)
	a.submitter.reset()
	a.run.metrics.GatewayAvailable.Set(0)
	a.receiving.stop()
	if changed || now.Sub(a.lastLogged) >= remindEvery {
		a.lastLogged = now
		level := slog.LevelWarn
		if why == breaker.Credentials {
			level = slog.LevelError
		}
		a.run.log.Log(a.run.work, level, "Not delivering", "why", why.Text(), "cause", string(why), "detail", detail,
			"since", a.breaker.Since().UTC().Format(time.RFC3339), "in_flight", a.inflight.count)
	}
}

// remindUnanswered logs now and then that the first request to SAMS and the gateway,
// or to Pub/Sub, has no answer yet: the request may hang for as long as its own limit,
// and a run may be shorter.
func (a *availability) remindUnanswered(now time.Time) {
	if now.Sub(a.started) < quietStart || now.Sub(a.lastLogged) < remindEvery {
		return
	}
	since := a.breaker.Since().UTC().Format(time.RFC3339)
	switch {
	case a.breaker.Starting() && a.gateway.Tokenless():
		a.run.log.Warn("Not delivering", "why", "SAMS has not answered yet", "cause", string(breaker.SAMS), "since", since, "in_flight", a.inflight.count)
	case a.breaker.Starting():
		a.run.log.Warn("Not delivering", "why", breaker.Starting.Text(), "cause", string(breaker.Gateway), "since", since, "in_flight", a.inflight.count)
	case a.receiving.preflight == preflightRunning:
		a.run.log.Warn("Not receiving", "why", "Pub/Sub has not been reached yet", "since", a.started.UTC().Format(time.RFC3339))
	default:
		return
	}
	a.lastLogged = now
}

// recorded notes that the gateway has recorded an event.
func (a *availability) recorded(now time.Time) {
	a.note(a.breaker.Recorded(), now)
	a.receiving.start()
}

// accepted notes that the gateway accepted a stream without events.
func (a *availability) accepted(now time.Time) {
	a.everAccepted = true
	a.breaker.Fits()
	t := a.breaker.Accepted(a.queue.othersWait(), now)
	if t == breaker.None {
		return
	}
	a.note(t, now)
	if t == breaker.Tried {
		a.queue.retryNow(now)
		return
	}
	a.receiving.start()
}

// pass closes a half-open breaker without a recorded event: nothing is left to try, or
// the streams that failed did so because of their events.
func (a *availability) pass() {
	if a.breaker.Passed() {
		a.receiving.start()
	}
}

// note logs and counts that the breaker lets events through again.
func (a *availability) note(t breaker.Transition, now time.Time) {
	switch t {
	case breaker.None:
		return
	case breaker.FirstClosed:
		a.run.log.Info("The gateway accepts the worker's token; receiving")
	case breaker.Reclosed, breaker.Tried:
		a.run.log.Info("Delivering again", "cause", string(a.breaker.Cause()), "after", now.Sub(a.breaker.Since()).Round(time.Millisecond).String(), "in_flight", a.inflight.count)
	}
	a.run.metrics.GatewayAvailable.Set(1)
	a.run.lastBusy = now
}

// probe opens a stream without events, one at a time.
func (a *availability) probe() {
	if a.probing {
		return
	}
	a.probing = true
	a.run.spawn(func() { a.probes <- a.gateway.Probe(a.run.work, requestID()) })
}

// probed takes the answer of a probe. Its error says why the run cannot succeed.
func (a *availability) probed(err error, now time.Time) error {
	a.probing = false
	a.run.metrics.Submissions.WithLabelValues(probeCode(err)).Inc()
	var f *submit.Failure
	failed := errors.As(err, &f)
	if canceled := a.run.work.Err() != nil; canceled {
		if failed {
			a.breaker.Unanswered(unansweredBy(f))
		}
		return nil
	}
	if !failed {
		a.accepted(now)
		return nil
	}
	if !misfit(f) {
		a.breaker.Fits()
	}
	cause := breaker.Gateway
	switch f.Class {
	case submit.SAMS:
		cause = breaker.SAMS
	case submit.Credentials:
		// A client that SAMS does not know at the very start is a mistake in the
		// settings; later, it is an outage.
		var refused *submit.CredentialsError
		if !a.everAccepted && errors.As(err, &refused) && a.certain(f) {
			return refused
		}
		cause = breaker.Credentials
	case submit.Fatal:
		if !a.everAccepted && a.certain(f) {
			return gatewayError(f)
		}
	default:
	}
	a.fail(cause, f.Detail(), f.RetryAfter, now)
	return nil
}

// certain reports whether a refusal at the start is a verdict on the settings.
func (a *availability) certain(f *submit.Failure) bool {
	return !misfit(f) || a.breaker.Misfit()
}

// atEnd says why a run that ends now is no success; nil if SAMS and the gateway are not
// the reason. failed says that the run has failed for another reason.
func (a *availability) atEnd(failed bool) error {
	switch {
	case !a.breaker.Open() || failed && !a.breaker.Failed():
		// It is closed, or the run failed before there was time for an answer.
		return nil
	case a.breaker.Failed():
		return fmt.Errorf("the run ended while %s: %s", a.breaker.Cause().Text(), a.breaker.Detail())
	case a.breaker.Cause() == breaker.SAMS:
		return errors.New("the run ended before SAMS answered for the first time")
	default:
		return errors.New("the run ended before the gateway answered for the first time")
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

// gatewayError says what is wrong with the address of the gateway.
func gatewayError(f *submit.Failure) error {
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
