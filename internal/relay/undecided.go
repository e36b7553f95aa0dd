package relay

import (
	"fmt"
	"slices"
	"time"
)

const (
	// A run ends well with so many undecided events at most, none of them older
	// than that.
	maxUndecided    = 10
	maxUndecidedAge = 24 * time.Hour
	// maxNamed is how many undecided events a warning names.
	maxNamed = 100
)

// nothingElse reports whether nothing is held but undecided events that have been
// waited for long enough.
func (r *Relay) nothingElse(now time.Time) bool {
	s := &r.suspects
	if r.count == 0 {
		return true
	}
	wait := undecidedSpans * s.history.Rules.MinSpan
	return r.count == s.leftOut && now.Sub(s.settled) >= wait && now.Sub(r.lastBusy) >= wait
}

// noteUndecided remembers an event that is released at the end although nobody
// knows yet whether it is at fault.
func (r *Relay) noteUndecided(h *held) {
	if h.rare == nil || h.rare.suspect == nil || h.rejection != nil {
		return
	}
	s := &r.suspects
	s.released++
	if published := h.message.PublishTime; s.oldest.IsZero() || published.Before(s.oldest) {
		s.oldest = published
	}
	if len(s.releasedID) < maxNamed {
		s.releasedID = append(s.releasedID, string(h.event.ID()))
	}
}

// undecidedError warns of the undecided events that were released, and says
// whether they are a reason for the run to fail. An outage that is known has an
// error of its own.
func (r *Relay) undecidedError() error {
	s := &r.suspects
	if s.released == 0 {
		return nil
	}
	slices.Sort(s.releasedID)
	age := time.Since(s.oldest).Round(time.Second)
	r.log.Warn("The gateway left events out, and it is not decided whether they are at fault; they are released",
		"events", s.released, "event_ids", s.releasedID, "oldest", age.String())
	if !r.opts.Drain || r.stopping.why == Signal || r.breaker.Open() {
		return nil
	}
	switch {
	case !r.everRecorded:
		return fmt.Errorf("the gateway left out %d events and recorded none: they are undecided and were released", s.released)
	case s.released > maxUndecided:
		return fmt.Errorf("the gateway left out %d events that are undecided, more than %d: they were released", s.released, maxUndecided)
	case age > maxUndecidedAge:
		return fmt.Errorf("the gateway left out %d events that are undecided, the oldest for %v: they were released", s.released, age)
	}
	return nil
}
