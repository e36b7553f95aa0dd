package relay

import (
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
)

const (
	// A probe is repeated after probeFirst, and then ever later up to probeMax, which
	// bounds how late the loop sees a recovery.
	probeFirst = 500 * time.Millisecond
	probeMax   = 5 * time.Second
	// remindEvery is how often the log repeats that something is unavailable.
	remindEvery = time.Minute
	// quietStart is how long the first answer may take before the log says so.
	quietStart = 3 * time.Second
)

// delay is exponential with full jitter, and at least atLeast.
func delay(rng *rand.Rand, level int, first, limit, atLeast time.Duration) time.Duration {
	d := limit
	if level < 30 && first<<level < limit {
		d = first << level
	}
	return max(atLeast, time.Duration(rng.Int64N(int64(d))+1))
}

// newBreaker returns the run's breaker, which is open until the gateway has answered.
func (r *Relay) newBreaker(now time.Time) *breaker.Breaker {
	return breaker.New(now, func(level int, atLeast time.Duration) time.Duration {
		return delay(r.rng, level, probeFirst, probeMax, atLeast)
	})
}

// remindUnanswered logs now and then that the first request to SAMS and the gateway,
// or to Pub/Sub, has no answer yet: the request may hang for as long as its own limit,
// and a run may be shorter.
func (r *Relay) remindUnanswered(now time.Time) {
	if now.Sub(r.started) < quietStart || now.Sub(r.probing.lastLogged) < remindEvery {
		return
	}
	since := r.breaker.Since().UTC().Format(time.RFC3339)
	switch {
	case r.breaker.Starting() && r.gateway.Tokenless():
		r.log.Warn("Not delivering", "why", "SAMS has not answered yet", "cause", string(breaker.SAMS), "since", since, "in_flight", r.count)
	case r.breaker.Starting():
		r.log.Warn("Not delivering", "why", breaker.Starting.Text(), "cause", string(breaker.Gateway), "since", since, "in_flight", r.count)
	case r.preparing:
		r.log.Warn("Not receiving", "why", "Pub/Sub has not been reached yet", "since", r.started.UTC().Format(time.RFC3339))
	default:
		return
	}
	r.probing.lastLogged = now
}

// openBreaker stops receiving and submitting, or notes that another probe failed.
func (r *Relay) openBreaker(why breaker.Cause, detail string, retryAfter time.Duration, now time.Time) {
	changed := r.breaker.Fail(why, detail, retryAfter, now)
	r.resetLimit()
	r.m.GatewayAvailable.Set(0)
	r.stopPulling()
	if changed || now.Sub(r.probing.lastLogged) >= remindEvery {
		r.probing.lastLogged = now
		level := slog.LevelWarn
		if why == breaker.Credentials {
			level = slog.LevelError
		}
		r.log.Log(r.work, level, "Not delivering", "why", why.Text(), "cause", string(why), "detail", detail,
			"since", r.breaker.Since().UTC().Format(time.RFC3339), "in_flight", r.count)
	}
}

// delivered notes that the gateway has recorded something.
func (r *Relay) delivered(now time.Time) {
	r.noteTransition(r.breaker.Recorded(), now)
	r.resumePulling()
}

// accepted notes that the gateway accepted a stream without events.
func (r *Relay) accepted(now time.Time) {
	t := r.breaker.Accepted(r.waiting(), now)
	if t == breaker.None {
		return
	}
	r.noteTransition(t, now)
	if t == breaker.Tried {
		r.retryNow(now)
		return
	}
	r.resumePulling()
}

// noteTransition logs and counts that the breaker lets events through again.
func (r *Relay) noteTransition(t breaker.Transition, now time.Time) {
	switch t {
	case breaker.None:
		return
	case breaker.FirstClosed:
		r.log.Info("The gateway accepts the worker's token; receiving")
	case breaker.Reclosed, breaker.Tried:
		r.log.Info("Delivering again", "cause", string(r.breaker.Cause()), "after", now.Sub(r.breaker.Since()).Round(time.Millisecond).String(), "in_flight", r.count)
	}
	r.m.GatewayAvailable.Set(1)
	r.lastBusy = now
}

// passTrial closes a half-open breaker.
func (r *Relay) passTrial() {
	if r.breaker.Passed() {
		r.resumePulling()
	}
}
