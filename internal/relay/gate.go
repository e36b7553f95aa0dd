package relay

import (
	"log/slog"
	"math/rand/v2"
	"time"
)

// cause says why the gate is closed.
type cause string

const (
	starting    cause = "starting"    // nothing has been asked yet
	unreachable cause = "gateway"     // streams fail
	silent      cause = "recording"   // streams end well, but nothing is recorded
	noToken     cause = "sams"        // SAMS gives no token
	badToken    cause = "credentials" // token or client are refused
)

//nolint:gosec // Words about credentials, not credentials.
var causeText = map[cause]string{
	starting:    "the gateway has not answered yet",
	unreachable: "the gateway is not available",
	silent:      "the gateway answers, but records nothing",
	noToken:     "SAMS gives no access token",
	badToken:    "the worker's credentials are refused",
}

// gate is the breaker before the gateway. While it is shut, nothing is pulled
// from Pub/Sub and nothing but probes is submitted. The loop owns it.
type gate struct {
	shut   bool
	cause  cause
	detail string // of the last fault, safe to show
	since  time.Time
	mute   bool // it recorded nothing, and has not recorded anything since
	asked  bool // whether anything has failed yet: at the start nothing has

	misfits  int       // answers in a row, before the first good one, from something else
	failures int       // streams of fresh events that failed in a row
	level    int       // probes that failed in a row
	next     time.Time // when to probe again
	probing  bool      // a probe is on its way
	pulling  bool      // a trickle of fresh events is being pulled
	slots    int       // streams in flight that are allowed: grows with success
	trial    bool      // the next streams decide whether it shuts again
	told     time.Time // when the log was told last
}

const (
	// failuresToShut streams in a row must fail.
	failuresToShut = 3
	// Probes are repeated after probeFirst, and ever later up to probeMost: that
	// is how late a recovery may be seen.
	probeFirst = 500 * time.Millisecond
	probeMost  = 5 * time.Second
	// remindEvery is how often the log says that the gate is still shut.
	remindEvery = time.Minute
)

// delay is exponential with full jitter, and at least least.
func delay(rng *rand.Rand, level int, first, most, least time.Duration) time.Duration {
	d := most
	if level < 30 && first<<level < most {
		d = first << level
	}
	return max(least, time.Duration(rng.Int64N(int64(d))+1))
}

// remindUnanswered logs now and then that the first question to SAMS and the
// gateway, or to Pub/Sub, has no answer yet: the question itself may hang for as
// long as its own limit, and a run may be shorter.
func (r *Relay) remindUnanswered(now time.Time) {
	g := &r.gate
	if now.Sub(r.started) < patienceAtStart || now.Sub(g.told) < remindEvery {
		return
	}
	waiting := g.shut && g.cause == starting
	switch {
	case waiting && r.gateway.Tokenless():
		r.log.Warn("Not delivering", "why", "SAMS has not answered yet", "cause", string(noToken), "since", g.since.UTC().Format(time.RFC3339), "held", r.count)
	case waiting:
		r.log.Warn("Not delivering", "why", causeText[starting], "cause", string(unreachable), "since", g.since.UTC().Format(time.RFC3339), "held", r.count)
	case r.preparing:
		r.log.Warn("Not receiving", "why", "Pub/Sub has not been reached yet", "since", r.started.UTC().Format(time.RFC3339))
	default:
		return
	}
	g.told = now
}

// patienceAtStart is how long the first answer may take before the log says so.
const patienceAtStart = 3 * time.Second

// shutGate stops pulling and submitting, or notes that another probe failed.
func (r *Relay) shutGate(why cause, detail string, retryAfter time.Duration, now time.Time) {
	g := &r.gate
	g.asked = true
	g.mute = g.mute || why == silent
	if g.shut && g.cause != starting {
		g.level++
	} else if !g.trial {
		g.level = 0
	}
	if !g.shut {
		g.since = now
	}
	changed := !g.shut || g.cause != why
	g.shut, g.trial, g.cause, g.detail, g.slots = true, false, why, detail, 1
	g.next = now.Add(delay(r.rng, g.level, probeFirst, probeMost, retryAfter))
	r.m.GatewayAvailable.Set(0)
	r.stopPulling()
	if changed || now.Sub(g.told) >= remindEvery {
		g.told = now
		level := slog.LevelWarn
		if why == badToken {
			level = slog.LevelError
		}
		r.log.Log(r.work, level, "Not delivering", "why", causeText[why], "cause", string(why), "detail", detail,
			"since", g.since.UTC().Format(time.RFC3339), "held", r.count)
	}
}

// delivered notes that the gateway has recorded something.
func (r *Relay) delivered(now time.Time) {
	g := &r.gate
	g.failures, g.trial, g.mute = 0, false, false
	g.slots = min(2*g.slots, r.opts.SubmitConcurrency)
	if g.shut {
		r.openGate(now)
	}
	g.level = 0
	r.resumePulling()
}

// reached notes that a probe was accepted. Unless only recording events can tell,
// the gate opens, on trial while there is something to try it with.
func (r *Relay) reached(now time.Time) {
	g := &r.gate
	if !g.shut || g.cause == silent {
		return
	}
	if g.mute {
		// It is there again, but whether it records is another question.
		g.cause, g.detail, g.next = silent, "", now
		return
	}
	first := g.cause == starting && !g.asked
	r.openGate(now)
	if first {
		g.slots = r.opts.SubmitConcurrency
	}
	if !first && r.waiting() {
		g.trial = true
		r.hasten(now)
		return
	}
	g.level = 0
	r.resumePulling()
}

func (r *Relay) openGate(now time.Time) {
	g := &r.gate
	if g.cause == starting && !g.asked {
		r.log.Info("The gateway accepts the worker's token; receiving")
	} else {
		r.log.Info("Delivering again", "cause", string(g.cause), "after", now.Sub(g.since).Round(time.Millisecond).String(), "held", r.count)
	}
	g.shut, g.failures = false, 0
	g.slots = max(1, g.slots)
	r.m.GatewayAvailable.Set(1)
	r.lastBusy = now
}
