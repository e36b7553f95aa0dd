package dlq

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// Group identifies messages with the same fault of the same feature.
type Group struct {
	Reason      string `json:"reason"`
	Service     string `json:"service"`
	Environment string `json:"environment"`
	Feature     string `json:"feature"`
	Action      string `json:"action"`
	// Detail is normalized: see fault.Normalize.
	Detail string `json:"detail"`
}

// GroupOf returns the group of a message.
func GroupOf(s *Stored) Group {
	f := FaultOf(s)
	feature, action := SafeName(s)
	return Group{
		Reason: f.Reason, Service: f.Service, Environment: Word(s.Environment),
		Feature: feature, Action: action, Detail: f.Detail,
	}
}

// FaultOf returns the fault of a message. It is not safe for concurrent use with the
// same message.
func FaultOf(s *Stored) fault.Fault {
	if s.fault != (fault.Fault{}) {
		return s.fault
	}
	detail := s.Detail
	if s.Broken != nil {
		detail = s.Broken.Error()
	}
	s.fault = fault.Of(string(s.Reason), s.Service, detail)
	return s.fault
}

// GroupCount is a group with its counts.
type GroupCount struct {
	Group
	// Fault is the id of the fault that the messages have.
	Fault string `json:"fault"`
	Count int    `json:"count"`
	// First is the time of the first rejection, before all replays; Last is that of the
	// last.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// ReplayedBefore is how many of the messages were replayed before.
	ReplayedBefore int `json:"replayed_before"`
	// Owner and Runbook belong to the service. The caller sets them.
	Owner   string `json:"owner,omitempty"`
	Runbook string `json:"runbook,omitempty"`
}

// Stats counts messages without keeping them.
type Stats struct {
	// Count, ReplayedBefore, Oldest and Newest are of all messages.
	Count, ReplayedBefore int
	Oldest, Newest        time.Time
	groups                map[Group]*GroupCount
}

// maxGroups bounds the memory. Beyond it, each reason has one group of others.
const maxGroups = 5000

// Add counts a message.
func (s *Stats) Add(m *Stored) {
	if s.groups == nil {
		s.groups = map[Group]*GroupCount{}
	}
	group := GroupOf(m)
	t := s.groups[group]
	if t == nil && len(s.groups) >= maxGroups {
		group = Group{Reason: group.Reason, Detail: otherFault}
		t = s.groups[group]
	}
	if t == nil {
		t = &GroupCount{Group: group}
		if group.Detail != otherFault {
			t.Fault = FaultOf(m).ID()
		}
		s.groups[group] = t
	}
	t.Count++
	s.Count++
	if m.Replays > 0 {
		t.ReplayedBefore++
		s.ReplayedBefore++
	}
	widen(&t.First, &t.Last, m.FirstRejectedAt)
	widen(&t.First, &t.Last, m.RejectedAt)
	widen(&s.Oldest, &s.Newest, m.FirstRejectedAt)
	widen(&s.Oldest, &s.Newest, m.RejectedAt)
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
func (s *Stats) Groups() []*GroupCount {
	return slices.SortedFunc(maps.Values(s.groups), func(a, b *GroupCount) int {
		return cmp.Or(
			cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Environment, b.Environment), cmp.Compare(a.Feature, b.Feature),
			cmp.Compare(a.Action, b.Action), cmp.Compare(a.Detail, b.Detail),
		)
	})
}
