package relay

import (
	"slices"
	"time"
)

// controls are events that are kept back to prove that the gateway records, when no
// others are there to prove it. They are healthy as far as anybody knows. The loop owns
// them.
type controls struct {
	run      *run
	inflight *inflightSet
	queue    *submissionQueue

	leftOut []*submission // events that an answer left out beside many others
	fresh   []*submission // events that were not submitted yet, in a drain, in the order of due
	// changed is when fresh events were kept back or submitted last, or could not be.
	changed time.Time

	latestArrival time.Time
	// allowance is how many fresh events may be kept back while others arrive.
	allowance float64
}

const (
	// maxControlsOfCut is how many events of one cut are kept back at most, and
	// maxControls how many of all cuts and fresh ones. Few, since some of them may be at
	// fault themselves, which shows only when they are submitted.
	maxControlsOfCut = 10
	maxControls      = 48
	// minControls are needed to prove that an event is at fault. With fewer, nobody is.
	minControls = 5
	// controlsIdle is how long fresh events are kept back while no event is suspected
	// and the last answers are waited for; maxControlsIdle while others flow. Then others
	// take their place, or prove as much.
	controlsIdle    = time.Second
	maxControlsIdle = 2 * time.Second
	// While events arrive, one of so many is kept back at most, beside the first
	// maxControls, so that the latency of 99 % does not depend on it, and no more than
	// maxControls in maxControlsIdle, since each may need a stream of its own. When nothing
	// has arrived for arrivalPause, the backlog may be over, and these may be the last
	// events.
	arrivalsPerControl = 200
	arrivalPause       = 200 * time.Millisecond
)

func newControls(r *run, set *inflightSet, q *submissionQueue) *controls {
	return &controls{run: r, inflight: set, queue: q, allowance: maxControls}
}

// count is how many events are kept back.
func (c *controls) count() int { return countUnsettled(c.leftOut) + countUnsettled(c.fresh) }

// countUnsettled is how many events of the submissions are not settled.
func countUnsettled(kept []*submission) (n int) {
	for _, s := range kept {
		for _, e := range s.events {
			if !e.settled {
				n++
			}
		}
	}
	return n
}

// keepLeftOut keeps some of the events back that an answer left out, and returns the
// others. A service with less than its share keeps none back: they would wait until all
// suspects of the others are judged.
func (c *controls) keepLeftOut(p *publisher, events []*inflight) []*inflight {
	keep := min(len(events)/2, maxControlsOfCut, maxControls-c.count())
	if keep <= 0 || c.run.opts.RejectAfter == 0 || c.run.stopping || c.inflight.light(p.service) {
		return events
	}
	rest := len(events) - keep
	c.leftOut = append(c.leftOut, &submission{publisher: p, events: slices.Clone(events[rest:])})
	return events[:rest:rest]
}

// arrived notes that so many messages have arrived.
func (c *controls) arrived(n int, now time.Time) {
	earned := min(float64(n)/arrivalsPerControl, maxControls*now.Sub(c.latestArrival).Seconds()/maxControlsIdle.Seconds())
	c.allowance = min(maxControls, c.allowance+earned)
	c.latestArrival = now
}

// keepFresh keeps some events of a fresh batch back: when a backlog ends, they prove that
// the gateway records, if others are left out. Where traffic goes on, it is proof enough,
// so that few are kept back.
func (c *controls) keepFresh(s *submission, breakerClosed bool, now time.Time) {
	if !c.run.opts.Drain || c.run.opts.RejectAfter == 0 || !breakerClosed {
		return
	}
	if c.inflight.light(s.publisher.service) || len(c.inflight.events) < 2*minControls {
		return // they would wait for others' events, or half of all is too few to prove anything
	}
	keep := min((len(s.events)+1)/2, maxControls-c.count())
	if now.Sub(c.latestArrival) < arrivalPause {
		keep = min(keep, int(c.allowance))
	}
	if keep <= 0 {
		return
	}
	c.allowance = max(0, c.allowance-float64(keep))
	c.changed = now
	rest := len(s.events) - keep
	c.fresh = append(c.fresh, &submission{publisher: s.publisher, events: slices.Clone(s.events[rest:]), due: now.Add(maxControlsIdle)})
	s.events = s.events[:rest]
}

// takeOne takes one event to be submitted as a proof, nil if none is kept back.
func (c *controls) takeOne() *submission {
	if s := takeOne(&c.fresh); s != nil {
		return s
	}
	return takeOne(&c.leftOut)
}

// freeLight submits the fresh events of services that have less than their share by now:
// they do not wait for others' events. Those can be kept back instead, if there are
// enough of them.
func (c *controls) freeLight() {
	if len(c.fresh) == 0 || c.queue.groups.Len() < maxControls {
		return
	}
	c.fresh = slices.DeleteFunc(c.fresh, func(s *submission) bool {
		light := c.inflight.light(s.publisher.service)
		if light {
			c.queue.push(s)
		}
		return light
	})
}

// freeFresh submits fresh events when no event is suspected: part by part when nothing
// else is in flight or waits, and while others flow those that have been kept back for
// long. It reports whether it submitted any.
func (c *controls) freeFresh(streams int, now time.Time) bool {
	if len(c.fresh) == 0 {
		return false
	}
	if c.inflight.leftOut > 0 {
		c.changed = now
		return false
	}
	var freed []*submission
	switch {
	case c.queue.othersWait():
		freed = c.takeDue(now)
	case streams > 0 && now.Sub(c.changed) < controlsIdle:
	default:
		freed = takePart(&c.fresh)
	}
	if len(freed) == 0 {
		return false
	}
	for _, s := range freed {
		c.queue.push(s)
	}
	c.changed = now
	return true
}

// takeDue takes the fresh events that have been kept back for maxControlsIdle.
func (c *controls) takeDue(now time.Time) []*submission {
	n := 0
	for n < len(c.fresh) && !c.fresh[n].due.After(now) {
		n++
	}
	due := slices.Clone(c.fresh[:n])
	c.fresh = slices.Delete(c.fresh, 0, n)
	return due
}

// freeLeftOut submits events that an answer left out when no other one is suspected.
func (c *controls) freeLeftOut() {
	if kept := countUnsettled(c.leftOut); kept == 0 || kept < c.inflight.leftOut {
		return
	}
	for _, s := range takePart(&c.leftOut) {
		c.queue.push(s)
	}
}

// takeAll takes all events that are kept back.
func (c *controls) takeAll() []*submission {
	all := append(c.leftOut, c.fresh...)
	c.leftOut, c.fresh = nil, nil
	return all
}

// takeOne takes the last event out of submissions that are kept back.
func takeOne(kept *[]*submission) *submission {
	for len(*kept) > 0 {
		last := (*kept)[len(*kept)-1]
		last.events = unsettled(last.events)
		n := len(last.events) - 1
		if n < 0 {
			*kept = (*kept)[:len(*kept)-1]
			continue
		}
		s := &submission{publisher: last.publisher, events: []*inflight{last.events[n]}}
		last.events = last.events[:n]
		return s
	}
	return nil
}

// takePart takes a part of the events that are kept back: a third while there are many;
// then one after the other, so that if one is at fault the others are still there to
// prove it; and all of them when they are too few for that.
func takePart(kept *[]*submission) []*submission {
	n := countUnsettled(*kept)
	switch {
	case n <= minControls:
		all := *kept
		*kept = nil
		return all
	case n <= 2*minControls:
		n = 1
	default:
		n /= 3
	}
	var taken []*submission
	for n > 0 && len(*kept) > 0 {
		last := (*kept)[len(*kept)-1]
		last.events = unsettled(last.events)
		rest := max(0, len(last.events)-n)
		n -= len(last.events) - rest
		if rest == 0 {
			*kept = (*kept)[:len(*kept)-1]
			taken = append(taken, last)
			continue
		}
		taken = append(taken, &submission{publisher: last.publisher, events: slices.Clone(last.events[rest:])})
		last.events = last.events[:rest]
	}
	return taken
}
