package dlq

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Filter selects messages. Values of one field are alternatives; all fields that
// are set must match.
type Filter struct {
	Reasons, Services, Environments, Features, Actions []string
	// Faults are ids: see package fault.
	Faults   []string
	EventIDs []string
	// MessageIDs are those of the original messages or of the dead-lettered messages.
	MessageIDs []string
	// Since and Until bound the time of the rejection; zero means no bound.
	Since, Until time.Time
	// PublishedBefore excludes messages that came into the queue later; zero means no
	// bound.
	PublishedBefore time.Time
	// Limit is the maximum number of messages; 0 means all.
	Limit int
	// Private selects only messages with data that is private or may be.
	Private bool
	// Chosen, if set, selects messages by more than the other fields say; ChosenBy is how
	// String calls it.
	Chosen   func(*Stored) bool
	ChosenBy string
}

// Match reports whether the filter selects a message, apart from the limit.
func (f *Filter) Match(s *Stored) bool {
	return among(f.Reasons, string(s.Reason)) && among(f.Services, s.Service) &&
		among(f.Environments, s.Environment) && among(f.Features, s.Feature) && among(f.Actions, s.Action) &&
		among(f.EventIDs, s.EventID) &&
		(among(f.MessageIDs, s.OriginalID) || among(f.MessageIDs, s.ID)) &&
		(f.Since.IsZero() || !s.RejectedAt.Before(f.Since)) &&
		(f.Until.IsZero() || !s.RejectedAt.After(f.Until)) &&
		!f.late(s.PublishTime) && (!f.Private || ViewOf(s, false).Private) &&
		(f.Chosen == nil || f.Chosen(s)) &&
		(len(f.Faults) == 0 || slices.Contains(f.Faults, FaultOf(s).ID()))
}

// Narrow reports whether the filter excludes anything.
func (f *Filter) Narrow() bool {
	return len(f.Faults)+len(f.Reasons)+len(f.Services)+len(f.Environments)+len(f.Features)+len(f.Actions)+len(f.EventIDs)+
		len(f.MessageIDs)+f.Limit > 0 || f.Private || f.Chosen != nil || !f.Since.IsZero() || !f.Until.IsZero()
}

func (f *Filter) late(published time.Time) bool {
	return !f.PublishedBefore.IsZero() && !published.Before(f.PublishedBefore)
}

func (f *Filter) String() string {
	var parts []string
	add := func(name string, values []string) {
		if len(values) > 0 {
			parts = append(parts, name+"="+strings.Join(values, "|"))
		}
	}
	add("fault", f.Faults)
	add("reason", f.Reasons)
	add("service", f.Services)
	add("environment", f.Environments)
	add("feature", f.Features)
	add("action", f.Actions)
	add("event-id", f.EventIDs)
	add("message-id", f.MessageIDs)
	if !f.Since.IsZero() {
		parts = append(parts, "since="+f.Since.UTC().Format(time.RFC3339))
	}
	if !f.Until.IsZero() {
		parts = append(parts, "until="+f.Until.UTC().Format(time.RFC3339))
	}
	if f.Chosen != nil {
		parts = append(parts, f.ChosenBy)
	}
	if f.Private {
		parts = append(parts, "private")
	}
	if f.Limit > 0 {
		parts = append(parts, fmt.Sprintf("limit=%d", f.Limit))
	}
	if parts == nil {
		return "all"
	}
	return strings.Join(parts, " ")
}

func among(values []string, value string) bool {
	return len(values) == 0 || slices.Contains(values, value)
}

// ParseTime reads a time: RFC 3339, a date (midnight UTC), or an age such as 2h or
// 7d.
func ParseTime(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if d, ok := parseAge(text); ok {
		return now.Add(-d), nil
	}
	return time.Time{}, errors.New("expected a time such as 2006-01-02T15:04:05Z, a date such as 2006-01-02, or how long ago, such as 2h or 7d")
}

// maxAgeDays is more than Pub/Sub keeps anything, and fits into a duration.
const maxAgeDays = 10_000

// parseAge reads a duration in Go's syntax, with days allowed in front: 1d, 1d12h.
func parseAge(text string) (time.Duration, bool) {
	var days time.Duration
	if before, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseFloat(before, 64)
		if err != nil || !(n >= 0 && n <= maxAgeDays) {
			return 0, false
		}
		days = time.Duration(n * 24 * float64(time.Hour))
		if text = after; text == "" {
			return days, true
		}
	}
	d, err := time.ParseDuration(text)
	return days + d, err == nil && d >= 0 && days+d >= 0
}
