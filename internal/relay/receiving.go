package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
)

// receiving starts and stops the streams from Pub/Sub, after the preflight, and logs
// when none is open. The loop owns it.
type receiving struct {
	run      *run
	receiver *consume.Receiver
	ended    chan error      // of a call of Receive; to the loop
	checked  chan error      // of the preflight; to the loop
	pulled   chan pullResult // to the loop

	preflight preflight
	active    bool               // Receive has been called and has not returned
	wanted    bool               // Receive is to be called
	cancel    context.CancelFunc // of the latest call of Receive
	pulling   bool               // a pull of a few fresh events is in flight
	warned    time.Time          // when the log last said that no stream is open; zero: not since one was
}

// preflight is how far the preflight is.
type preflight int

const (
	preflightRunning preflight = iota
	preflightPassed
	preflightFailed
)

// pullResult is the answer to a pull. Its messages have arrived already.
type pullResult struct {
	found int // messages
	err   error
	drain bool // it was made to end a drain
}

const (
	// warnAfter is how long no stream may be open before the log says so: streams end
	// every so often by design.
	warnAfter = 10 * time.Second
	// notReadyAfter is how long no stream may be open before the worker is not ready.
	notReadyAfter = time.Minute
	// reopening is how long no stream may be open without being a sign of trouble.
	reopening = 5 * time.Second
	// fewEvents is how many fresh events are pulled at a time to find out whether the
	// gateway records again.
	fewEvents = 10
)

func newReceiving(r *run, receiver *consume.Receiver) *receiving {
	return &receiving{
		run: r, receiver: receiver,
		ended: make(chan error, 1), checked: make(chan error, 1), pulled: make(chan pullResult, 1),
	}
}

// check begins the preflight.
func (c *receiving) check() {
	if c.run.opts.Preflight == nil {
		c.preflight = preflightPassed
		return
	}
	c.run.spawn(func() { c.checked <- c.run.opts.Preflight(c.run.fetch) })
}

// start receives, unless the run ends or the preflight goes on.
func (c *receiving) start() {
	if c.run.stopping || c.preflight != preflightPassed {
		return
	}
	c.wanted = true
	if c.active {
		return // again when it has returned
	}
	c.active = true
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(c.run.fetch)
	c.run.spawn(func() { c.ended <- c.receiver.Receive(ctx) })
}

// stop ends receiving for now. Messages that were received stay in flight.
func (c *receiving) stop() {
	c.wanted = false
	if c.active {
		c.cancel()
	}
}

// stopped notes that Receive has returned.
func (c *receiving) stopped() {
	c.active = false
	c.cancel()
}

// pull asks once for at most n messages.
func (c *receiving) pull(n int, drain bool) {
	c.run.spawn(func() {
		found, err := c.receiver.PullOnce(c.run.fetch, n)
		c.pulled <- pullResult{found: found, err: err, drain: drain}
	})
}

// pullFew asks for a few fresh events while the worker does not receive.
func (c *receiving) pullFew() {
	if c.pulling || c.preflight != preflightPassed || c.active {
		return
	}
	c.pulling = true
	c.pull(fewEvents, false)
}

// open reports whether a stream is open, or was a moment ago: reopening one takes a
// moment.
func (c *receiving) open(now time.Time) bool {
	return c.active && withoutStream(c.receiver.Health(), now) < reopening
}

// watch logs the absence of streams once and then now and then, and its end.
func (c *receiving) watch(h consume.Health, now time.Time) {
	switch {
	case h.Open > 0 && !c.warned.IsZero():
		c.warned = time.Time{}
		c.run.log.Info("A stream from Pub/Sub is open again")
	case withoutStream(h, now) >= warnAfter && now.Sub(c.warned) >= remindEvery:
		c.warned = now
		c.run.log.Warn("No stream from Pub/Sub is open; nothing is received", "since", h.NoneSince.UTC().Format(time.RFC3339),
			"error", h.LastError)
	}
}

// withoutStream is how long no stream has been open although the worker receives.
func withoutStream(h consume.Health, now time.Time) time.Duration {
	if h.NoneSince.IsZero() {
		return 0
	}
	return now.Sub(h.NoneSince)
}

// noStreamText says that no stream is open, for how long, and why.
func noStreamText(h consume.Health, now time.Time) string {
	text := fmt.Sprintf("no stream from Pub/Sub has been open for %v", withoutStream(h, now).Round(time.Second))
	if h.LastError != "" {
		text += ": " + h.LastError
	}
	return text
}

// noStreamAtEnd says why a run that ends without a stream is no success; "" if it is
// one. A run that was stopped soon after its start had no time to open one.
func noStreamAtEnd(h consume.Health, now time.Time) string {
	without := withoutStream(h, now)
	if without >= notReadyAfter || without >= warnAfter && !h.EverOpen {
		return noStreamText(h, now)
	}
	return ""
}
