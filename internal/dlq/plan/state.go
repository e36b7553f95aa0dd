package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// State is the progress of a plan, computed from the records of its journal. Its methods
// are not safe for concurrent use.
type State struct {
	plan *Plan
	// done has the messages that were published or purged.
	done map[string]done
	left map[string]string // why messages were left, by id; without messages that are done
	// verdicts and reasons are by origin. cameBack has the origins that were seen in the
	// queue again.
	verdicts map[string]Verdict
	reasons  map[string]string
	cameBack map[string]struct{}
	receipts map[string]struct{} // ids of the receipts that were counted
	canaries map[string]struct{}
	groups   map[string]*Group // by the ids of their messages

	// Runs counts the runs that began. Last is the time of the last record, and End how
	// the last run ended; empty if it goes on, or was killed.
	Runs int
	Last time.Time
	End  string
	// By is the account of the last run.
	By string
	// Passed is set once a run has found the canaries good and lets the other messages follow.
	Passed bool
}

// done is what happened to a message, and when.
type done struct {
	kind    Kind // Published or Purged
	at      time.Time
	removed bool // from the queue
}

// NewState returns the state of a plan that was not begun.
func NewState(p *Plan) *State {
	s := &State{
		plan: p, done: map[string]done{}, left: map[string]string{}, verdicts: map[string]Verdict{}, reasons: map[string]string{},
		cameBack: map[string]struct{}{}, receipts: map[string]struct{}{}, canaries: map[string]struct{}{}, groups: map[string]*Group{},
	}
	for i := range p.Groups {
		for id := range p.Groups[i].Messages {
			s.groups[id] = &p.Groups[i]
		}
	}
	return s
}

// Add counts a record. An error means that the journal is not this plan's.
func (s *State) Add(r Record) error {
	if s.Runs == 0 && r.Kind != Begun {
		return errors.New("expected the beginning of a run")
	}
	switch r.Kind {
	case Begun:
		if r.Plan != s.plan.ID || r.Checksum != s.plan.Checksum {
			return fmt.Errorf("it is the journal of another plan, %s", clip(r.Plan))
		}
		s.Runs++
		s.End, s.By = "", r.By
	case Published, Purged, Removed, Left, Canaries:
		for _, id := range r.IDs {
			if err := s.message(r, id); err != nil {
				return err
			}
		}
	case CanariesPassed:
		s.Passed = true
	case CameBack:
		for _, origin := range r.IDs {
			s.cameBack[origin] = struct{}{}
		}
	case Receipted:
		for _, receipt := range r.Receipts {
			s.receipt(receipt)
		}
	case Ended:
		s.End = r.Why
	default:
		return fmt.Errorf("a record of an unknown kind, %s: a later version has written it", clip(string(r.Kind)))
	}
	s.Last = r.At
	return nil
}

func (s *State) message(r Record, id string) error {
	g := s.groups[id]
	if g == nil || r.Kind == Published && !g.Action.Publishes() || r.Kind == Purged && g.Action != Purge {
		return fmt.Errorf("the message %s is %s, and the plan does not say so", clip(id), clip(string(r.Kind)))
	}
	switch r.Kind {
	case Left:
		if _, ok := s.done[id]; !ok {
			s.left[id] = r.Why
		}
	case Canaries:
		s.canaries[id] = struct{}{}
	case Removed:
		if d, ok := s.done[id]; ok {
			d.removed = true
			s.done[id] = d
		}
	default:
		s.done[id] = done{r.Kind, r.At, false}
		delete(s.left, id)
	}
	return nil
}

// rank orders the verdicts on several deliveries of one event; the highest counts. An
// event that the gateway has recorded stays recorded, whatever a redelivery results in.
var rank = map[Verdict]int{Rejected: 1, Duplicate: 2, Recorded: 3}

func (s *State) receipt(r Receipt) {
	if _, twice := s.receipts[r.Message]; twice || rank[r.Verdict] == 0 {
		return
	}
	s.receipts[r.Message] = struct{}{}
	if rank[r.Verdict] > rank[s.verdicts[r.Origin]] {
		s.verdicts[r.Origin], s.reasons[r.Origin] = r.Verdict, r.Reason
	}
}

// Group returns the group of a message that the plan acts on, or nil.
func (s *State) Group(id string) *Group { return s.groups[id] }

// Done reports whether a message was published or purged.
func (s *State) Done(id string) bool {
	_, ok := s.done[id]
	return ok
}

// Receipted reports whether a receipt was counted, by the id of its message.
func (s *State) Receipted(message string) bool {
	_, ok := s.receipts[message]
	return ok
}

// CameBack reports whether an event is known to be in the queue again.
func (s *State) CameBack(origin string) bool {
	_, ok := s.cameBack[origin]
	return ok
}

// Canaries returns the ids of the canaries.
func (s *State) Canaries() []string { return slices.Collect(maps.Keys(s.canaries)) }

// InQueue returns the messages that were published or purged before a time, and that may
// still be in the queue, because a run ended before the queue confirmed their removal.
func (s *State) InQueue(before time.Time) []string {
	var ids []string
	for id, d := range s.done {
		if !d.removed && d.at.Before(before) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Complete reports whether every message was published or purged, and removed from the
// queue.
func (s *State) Complete() bool {
	if len(s.done) < len(s.groups) {
		return false
	}
	for _, d := range s.done {
		if !d.removed {
			return false
		}
	}
	return true
}

// Counts are numbers of messages.
type Counts struct {
	// Planned is the sum of Published, Purged, Left and Todo.
	Planned   int `json:"planned"`
	Published int `json:"published"`
	Purged    int `json:"purged"`
	// Left were tried and stay in the queue.
	Left int `json:"left"`
	// Todo were not tried yet.
	Todo int `json:"todo"`
	// Recorded, Duplicates, Rejected and Waiting add up to Published. Waiting messages have
	// no verdict yet.
	Recorded   int `json:"recorded"`
	Duplicates int `json:"duplicates"`
	Rejected   int `json:"rejected"`
	Waiting    int `json:"waiting"`
}

// Counts counts the messages.
func (s *State) Counts() Counts {
	var c Counts
	for _, g := range s.Groups() {
		c.add(g.Counts)
	}
	return c
}

func (c *Counts) add(o Counts) {
	c.Planned += o.Planned
	c.Published += o.Published
	c.Purged += o.Purged
	c.Left += o.Left
	c.Todo += o.Todo
	c.Recorded += o.Recorded
	c.Duplicates += o.Duplicates
	c.Rejected += o.Rejected
	c.Waiting += o.Waiting
}

func (c *Counts) count(v Verdict) {
	c.Published++
	switch v {
	case Recorded:
		c.Recorded++
	case Duplicate:
		c.Duplicates++
	case Rejected:
		c.Rejected++
	default:
		c.Waiting++
	}
}

// verdict returns the verdict on an event. An event that was seen in the queue again
// counts as rejected even without a receipt.
func (s *State) verdict(origin string) Verdict {
	v := s.verdicts[origin]
	if _, back := s.cameBack[origin]; back && v == "" {
		return Rejected
	}
	return v
}

// CanaryCounts counts the canaries, as Counts counts all.
func (s *State) CanaryCounts() Counts {
	var c Counts
	for id := range s.canaries {
		c.Planned++
		if s.done[id].kind == Published {
			c.count(s.verdict(s.groups[id].Messages[id]))
		}
	}
	return c
}

// GroupState is how far the messages of one fault are.
type GroupState struct {
	*Group
	Counts Counts
	// Reasons are those of the rejected events, as the receipts give them.
	Reasons map[string]int
}

// Groups returns how far each fault is, in the plan's order.
func (s *State) Groups() []GroupState {
	all := make([]GroupState, len(s.plan.Groups))
	for i := range s.plan.Groups {
		g := GroupState{Group: &s.plan.Groups[i], Reasons: map[string]int{}}
		g.Counts.Planned = len(g.Messages)
		for id, origin := range g.Messages {
			switch s.done[id].kind {
			case Purged:
				g.Counts.Purged++
			case Published:
				v := s.verdict(origin)
				g.Counts.count(v)
				if reason := s.reasons[origin]; v == Rejected && reason != "" {
					g.Reasons[reason]++
				}
			default:
				if _, ok := s.left[id]; ok {
					g.Counts.Left++
				}
			}
		}
		c := &g.Counts
		c.Todo = c.Planned - c.Published - c.Purged - c.Left
		all[i] = g
	}
	return all
}

// Whys counts why messages were left.
func (s *State) Whys() map[string]int {
	whys := map[string]int{}
	for _, why := range s.left {
		whys[why]++
	}
	return whys
}
