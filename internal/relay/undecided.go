package relay

import (
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// undecidedEvents are suspects that were released at the end of a run, although nobody
// knows yet whether they are at fault.
type undecidedEvents struct {
	count  int
	ids    []string  // of some of them
	oldest time.Time // their oldest publish time
}

const (
	// A run with so many undecided events at most, none of them older than that, is a
	// success.
	maxUndecided    = 10
	maxUndecidedAge = 24 * time.Hour
	// maxNamed is how many undecided events a warning names.
	maxNamed = 100
)

// note remembers an event that is released, if it is undecided.
func (u *undecidedEvents) note(e *inflight) {
	if e.suspect() == nil || e.rejection != nil {
		return
	}
	u.count++
	if published := e.message.PublishTime; u.oldest.IsZero() || published.Before(u.oldest) {
		u.oldest = published
	}
	if len(u.ids) < maxNamed {
		u.ids = append(u.ids, string(e.event.ID()))
	}
}

// warn logs them.
func (u *undecidedEvents) warn(log *slog.Logger, now time.Time) {
	if u.count == 0 {
		return
	}
	slices.Sort(u.ids)
	log.Warn("The gateway left events out, and it is not decided whether they are at fault; they are released",
		"events", u.count, "event_ids", u.ids, "oldest", u.age(now).String())
}

// failure says why a drain that ends with them is no success; nil if it is one.
func (u *undecidedEvents) failure(everRecorded bool, now time.Time) error {
	switch {
	case u.count == 0:
	case !everRecorded:
		return fmt.Errorf("the gateway left out %d events and recorded none: they are undecided and were released", u.count)
	case u.count > maxUndecided:
		return fmt.Errorf("the gateway left out %d events that are undecided, more than %d: they were released", u.count, maxUndecided)
	case u.age(now) > maxUndecidedAge:
		return fmt.Errorf("the gateway left out %d events that are undecided, the oldest for %v: they were released", u.count, u.age(now))
	}
	return nil
}

func (u *undecidedEvents) age(now time.Time) time.Duration {
	return now.Sub(u.oldest).Round(time.Second)
}
