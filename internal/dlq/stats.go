package dlq

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Group is letters of one fault.
type Group struct {
	Reason      string `json:"reason"`
	Service     string `json:"service"`
	Environment string `json:"environment"`
	Feature     string `json:"feature"`
	Action      string `json:"action"`
	// Detail is without what differs from event to event.
	Detail string `json:"detail"`
}

// GroupOf returns the group of a letter.
func GroupOf(s *Stored) Group {
	detail := s.Detail
	if s.Broken != nil {
		detail = s.Broken.Error()
	}
	feature, action := SafeName(s)
	return Group{
		Reason: Word(string(s.Reason)), Service: Word(s.Service), Environment: Word(s.Environment),
		Feature: feature, Action: action, Detail: Normalize(SafeDetail(detail)),
	}
}

// Tally is how many letters a group has.
type Tally struct {
	Group
	Count int `json:"count"`
	// First and Last are when the first and the last of them were rejected.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// ReplayedBefore is how many of them have been replayed before.
	ReplayedBefore int `json:"replayed_before"`
	// Owner and Runbook are the service's; the caller sets them.
	Owner   string `json:"owner,omitempty"`
	Runbook string `json:"runbook,omitempty"`
}

// Stats counts letters without keeping them.
type Stats struct {
	// Count, ReplayedBefore, Oldest and Newest are of all of them.
	Count, ReplayedBefore int
	Oldest, Newest        time.Time
	groups                map[Group]*Tally
}

// maxGroups bounds the memory; what is beyond counts as one group for each
// reason.
const maxGroups = 5000

// Add counts a letter.
func (s *Stats) Add(l *Stored) {
	if s.groups == nil {
		s.groups = map[Group]*Tally{}
	}
	group := GroupOf(l)
	t := s.groups[group]
	if t == nil && len(s.groups) >= maxGroups {
		group = Group{Reason: group.Reason, Detail: "(others)"}
		t = s.groups[group]
	}
	if t == nil {
		t = &Tally{Group: group}
		s.groups[group] = t
	}
	t.Count++
	s.Count++
	if l.Replays > 0 {
		t.ReplayedBefore++
		s.ReplayedBefore++
	}
	widen(&t.First, &t.Last, l.RejectedAt)
	widen(&s.Oldest, &s.Newest, l.RejectedAt)
}

func widen(first, last *time.Time, at time.Time) {
	if first.IsZero() || at.Before(*first) {
		*first = at
	}
	if at.After(*last) {
		*last = at
	}
}

// Groups returns the groups, the largest first.
func (s *Stats) Groups() []*Tally {
	return slices.SortedFunc(maps.Values(s.groups), func(a, b *Tally) int {
		return cmp.Or(
			cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Environment, b.Environment), cmp.Compare(a.Feature, b.Feature),
			cmp.Compare(a.Action, b.Action), cmp.Compare(a.Detail, b.Detail),
		)
	})
}
