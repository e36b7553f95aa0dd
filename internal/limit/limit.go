// Package limit decides how many streams to the gateway may be in flight. It is pure: its
// caller passes in the time and the results, and it does no I/O.
//
// The limit grows while events wait for a stream and the gateway is as fast as with few
// streams. It falls when latency rises, and by one for each stream that fails or is
// refused. docs/decisions/adaptive-limit.md says why.
package limit

import (
	"time"
)

const (
	// Start is the limit at the start, in streams. Latency alone never lowers the
	// limit below it: a slow gateway still gets as many streams.
	Start = 8
	// DefaultMax is the largest limit by default, in streams.
	DefaultMax = 512
)

const (
	// growBelow and fallAbove are ratios of the latency to the best one: the limit grows
	// only below the first, and falls above the second.
	growBelow, fallAbove = 1.25, 1.5
	// fallTo is the ratio of latencies that a fall aims at. It is above 1, so that the
	// remaining streams keep a busy gateway busy. One fall takes at most mostFall of the
	// limit, because latency is noisy.
	fallTo, mostFall = 1.1, 0.5
	// The limit grows only while at least one event waits for each waitingShare events in
	// streams. With fewer waiting events, more streams would have smaller batches and
	// hardly record more.
	waitingShare = 3
	// After a refusal the limit stays for pauseLatencies times the latency, within
	// these bounds.
	pauseLatencies     = 14
	minPause, maxPause = 2 * time.Second, 10 * time.Second
	// failuresToGrow is the share of streams that may fail while the limit grows.
	failuresToGrow = 0.02
	// At every multiple of dipEvery on the clock, a limit that is reached is reduced to
	// Start, to measure the latency with few streams. All workers do so at the same time,
	// so that a queue that they share becomes empty. A dip takes about four times the
	// latency. From a latency of dipLatency on, dips are rarer. maxDip bounds one dip.
	dipEvery, dipLatency, maxDip = time.Minute, 500 * time.Millisecond, 10 * time.Second
)

// Outcome says what the end of a stream means for the limit.
type Outcome int

const (
	// Answered: the gateway answered, and recorded at least some of the events.
	Answered Outcome = iota
	// Refused: the gateway had no capacity for the stream (ResourceExhausted).
	Refused
	// Failed: the stream failed otherwise.
	Failed
	// Ignored: the end says nothing about the gateway's capacity. The events may be at
	// fault, the token may be missing, or the gateway recorded nothing.
	Ignored
)

// Reason says why the limit fell last.
type Reason string

// The reasons. NotFallen is the one before the first fall.
const (
	NotFallen Reason = "none"
	Latency   Reason = "latency" // streams take longer than with fewer of them
	Refusal   Reason = "refused" // the gateway had no capacity for a stream
	Failure   Reason = "failed"  // streams failed
	Unused    Reason = "unused"  // there was no work for so many streams
	Outage    Reason = "outage"  // the breaker opened
)

// Reasons are all of them, for a metric with a bounded set of values.
var Reasons = []Reason{NotFallen, Latency, Refusal, Failure, Unused, Outage}

// End is the end of a stream.
type End struct {
	Outcome Outcome
	// Latency is the time from the start of the stream to its end.
	Latency time.Duration
	// Events and Bytes are the size of its payload, Events as given to Started. Latencies are compared with those
	// of payloads of about the same size only: the gateway publishes 250 events of a
	// payload at once, so 1,000 take it four times as long.
	Events, Bytes int
	// Waiting is how many events are ready and wait for a stream to end. Without them
	// the limit does not grow.
	Waiting int
}

// Limit is the number of streams that may be in flight. It is not safe for
// concurrent use.
type Limit struct {
	adapts     bool
	start, max int

	limit    int
	inFlight int
	events   int // in flight
	reason   Reason
	falls    int
	// recovering: after an outage, or when most streams have failed, each success adds
	// one stream until start is reached.
	recovering bool
	// step is the next growth, at most a doubling. No growth is before paused.
	step   int
	paused time.Time
	// changed is when the limit changed last: streams that started earlier say nothing
	// about it.
	changed time.Time
	window  window
	best    best
	dip     dip
}

// dip is a measurement with few streams in flight.
type dip struct {
	on      bool
	since   time.Time
	drained bool // no more streams are in flight than the dip allows
	next    time.Time
}

// Fixed returns a limit of n streams. Only an outage reduces it, until the gateway
// is back.
func Fixed(n int) *Limit {
	return &Limit{start: n, max: n, limit: n, reason: NotFallen}
}

// Adaptive returns a limit that begins at Start and stays between 1 and most.
func Adaptive(ceiling int) *Limit {
	start := min(Start, ceiling)
	return &Limit{adapts: true, start: start, max: ceiling, limit: start, step: start, reason: NotFallen}
}

// Limit is how many streams may be in flight now, at least one.
func (l *Limit) Limit() int {
	if l.dip.on {
		return min(l.start, l.limit)
	}
	return l.limit
}

// InFlight is how many streams have started and not ended.
func (l *Limit) InFlight() int { return l.inFlight }

// Max is the largest number that Limit returns.
func (l *Limit) Max() int { return l.max }

// Reason says why the limit fell last.
func (l *Limit) Reason() Reason { return l.reason }

// Falls is how often the limit has fallen.
func (l *Limit) Falls() int { return l.falls }

// fell notes that the limit falls, and why.
func (l *Limit) fell(why Reason) {
	l.reason = why
	l.falls++
}

// Started notes that a stream with so many events starts.
func (l *Limit) Started(events int) {
	l.inFlight++
	l.events += events
	l.window.peak = max(l.window.peak, l.inFlight)
}

// Reset notes that the breaker has opened: the limit is 1, and each success adds one.
func (l *Limit) Reset() {
	if l.limit > 1 {
		l.fell(Outage)
	}
	l.limit = 1
	l.recovering = l.start > 1
	l.step, l.paused = l.start, time.Time{}
	l.window, l.dip = window{}, dip{next: l.dip.next}
}

// Ended notes that a stream has ended.
func (l *Limit) Ended(e End, now time.Time) {
	demand := waitingShare*e.Waiting >= l.events
	l.inFlight--
	l.events -= e.Events
	switch e.Outcome {
	case Answered:
		l.answered(e, demand, now)
	case Refused:
		l.refused(now)
	case Failed:
		l.failed()
	case Ignored:
	}
}

// refused removes the slot of a refused stream. The gateway has accepted the streams that
// are still in flight, so their number is its capacity.
func (l *Limit) refused(now time.Time) {
	if !l.adapts {
		return
	}
	l.recovering = false
	l.pause(now)
	// Streams may also be few because there was little to send: 10 % at most.
	l.lower(max(l.inFlight, l.limit*9/10), Refusal)
}

// failed takes the slot of a stream that failed, so that the limit falls as far as
// streams fail.
func (l *Limit) failed() {
	if !l.adapts {
		return
	}
	l.window.failed++
	l.lower(l.limit-1, Failure)
	if l.limit < l.start {
		l.recovering = true
	}
}

// lower sets the limit to less than it is. Streams that start later are compared with
// the best latency as before, so the window goes on.
func (l *Limit) lower(to int, why Reason) {
	if to = max(1, min(to, l.limit-1)); to < l.limit {
		l.limit = to
		l.fell(why)
	}
}

// pause makes the next growth a late and small one.
func (l *Limit) pause(now time.Time) {
	l.step = 1
	l.paused = now.Add(min(maxPause, max(minPause, pauseLatencies*l.best.recent)))
}

func (l *Limit) answered(e End, demand bool, now time.Time) {
	if l.recovering {
		l.set(l.limit+1, now)
		l.recovering = l.limit < l.start
		return
	}
	if !l.adapts || l.draining(now) || now.Add(-e.Latency).Before(l.changed) {
		return
	}
	l.window.add(e, demand, now)
	if !l.dip.on && l.risen(now) {
		return
	}
	if l.window.over(l.Limit(), now) {
		l.turn(now)
	}
}

// risen lowers the limit if latency has risen.
func (l *Limit) risen(now time.Time) bool {
	if l.window.n < fewest || l.limit <= l.start {
		return false
	}
	ratio := l.window.ratio(&l.best)
	if ratio <= fallAbove {
		return false
	}
	l.fell(Latency)
	// Latency may also have risen for a moment, because of the worker's own machine.
	l.step = max(1, l.start/2, l.limit/16)
	l.set(max(l.start, int(float64(l.limit)*max(mostFall, fallTo/ratio))), now)
	return true
}

// turn ends a window: it learns from it, and may change the limit.
func (l *Limit) turn(now time.Time) {
	w := l.window
	ratio := w.ratio(&l.best)
	l.best.learn(&w, ratio, l.dip.on || w.peak <= l.start, now)
	switch {
	case l.dip.on:
		l.dip.on = false
		l.set(l.limit, now)
		return
	case !w.demanded():
		// A limit that was not used must not be available to a sudden load.
		if to := max(l.start, 2*w.peak); to < l.limit {
			l.fell(Unused)
			l.set(to, now)
			return
		}
	case l.mayDip(now):
		return
	case ratio >= growBelow:
		l.step = max(1, l.step/4)
	case w.n >= l.limit && !now.Before(l.paused) && l.limit < l.max && float64(w.failed) <= failuresToGrow*float64(w.n):
		grown := min(l.max, l.limit+min(l.step, l.limit))
		l.step = min(2*l.step, grown)
		l.set(grown, now)
		return
	}
	l.window = window{since: now, peak: l.inFlight}
}

// mayDip begins a dip if it is time for one.
func (l *Limit) mayDip(now time.Time) bool {
	d := &l.dip
	if now.Before(d.next) {
		return false
	}
	due := !d.next.IsZero()
	d.next = now.Truncate(dipEvery)
	for range max(1, int(l.best.recent/dipLatency)) {
		d.next = d.next.Add(dipEvery)
	}
	if !due || l.limit <= l.start {
		return false
	}
	d.on, d.since, d.drained = true, now, false
	l.window = window{}
	return true
}

// draining reports whether more streams are in flight than a dip allows. A dip that
// takes too long ends.
func (l *Limit) draining(now time.Time) bool {
	d := &l.dip
	switch {
	case !d.on:
	case now.Sub(d.since) > maxDip:
		d.on = false
		l.set(l.limit, now)
	case d.drained:
	case l.inFlight < l.Limit():
		d.drained = true
		l.set(l.limit, now)
	default:
		return true
	}
	return false
}

// set changes the limit, and begins a window.
func (l *Limit) set(to int, now time.Time) {
	l.limit = to
	l.changed = now
	l.window = window{since: now, peak: l.inFlight}
}
