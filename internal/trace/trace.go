// Package trace concludes from known facts where an event is, and which parts of the answer
// are not proven. The caller collects the facts. The package reads nothing but the audit
// file.
package trace

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/receipts"
)

// State is where an event is.
type State string

// The states. All but NotRejected are proven by a message, a receipt or a record.
const (
	// InQueue: it is in the dead-letter queue.
	InQueue State = "in_queue"
	// Recorded: the gateway has recorded its replay.
	Recorded State = "recorded"
	// RejectedAgain: its replay was rejected, and it is not in the queue that was read.
	RejectedAgain State = "rejected_again"
	// Replayed: it was published again, and the verdict is not known.
	Replayed State = "replayed"
	// Removed: a command has removed it from the queue.
	Removed State = "removed"
	// NotRejected: it was recorded, still waits, or was never published.
	NotRejected State = "not_rejected"
)

// Rejection is the event in the dead-letter queue.
type Rejection struct {
	Fault           string    `json:"fault"`
	Reason          string    `json:"reason"`
	Service         string    `json:"service"`
	Detail          string    `json:"detail"`
	RejectedAt      time.Time `json:"rejected_at"`
	FirstRejectedAt time.Time `json:"first_rejected_at"`
	Release         string    `json:"release,omitempty"`
	Replays         int       `json:"replays"`
	DeadLetterID    string    `json:"dead_letter_id"`
	// ReplayID identifies the replay after which the event was rejected again; empty if it
	// was not replayed.
	ReplayID string `json:"replay_id,omitempty"`
}

// Action is what a command did, by the audit records.
type Action struct {
	At time.Time `json:"at"`
	// By is the account, and What the command, such as dlq replay.
	By   string `json:"by"`
	What string `json:"what"`
	// Filter selected the messages.
	Filter string `json:"filter,omitempty"`
	// ReplayID is empty if the command published nothing.
	ReplayID string `json:"replay_id,omitempty"`
}

// Replay is one replay of the event.
type Replay struct {
	ID string `json:"replay_id"`
	// Action is the command; nil if no audit record of it is known.
	Action *Action `json:"action,omitempty"`
	// Verdict is unknown without a receipt. Reason is that of a rejection.
	Verdict receipts.Verdict `json:"verdict"`
	Reason  string           `json:"reason,omitempty"`
	// At is the time of the verdict, zero if it is unknown.
	At time.Time `json:"at,omitzero"`
}

// Facts are what is known about an event.
type Facts struct {
	Rejections []Rejection
	// QueueDoubt says why the queue may have more than was read, as a clause; empty if
	// nothing speaks for it.
	QueueDoubt string
	// Receipts are those of the event. ReceiptsDoubt says why there may be others.
	Receipts      []receipts.Receipt
	ReceiptsDoubt string
	// Actions are the commands that name the event or one of its replays. ActionsDoubt says
	// why there may be others.
	Actions      []Action
	ActionsDoubt string
	// Oldest is how long the oldest event has waited for the worker; nil if that is not
	// known, for the reason in OldestDoubt. Created is when the event's id was made, by the
	// publisher's clock; zero if the id does not say it.
	Oldest      *time.Duration
	OldestDoubt string
	Created     time.Time
	// Now is the present.
	Now time.Time
}

// Answer is where an event is.
type Answer struct {
	State State `json:"state"`
	// Summary is one sentence.
	Summary string `json:"summary"`
	// Rejections has more than one element if several messages of the event were rejected.
	Rejections []Rejection `json:"rejections"`
	// Replays are in the order of time.
	Replays []Replay `json:"replays"`
	// Others are commands that have changed the event's messages and replayed none.
	Others []Action `json:"others"`
	// Unproven are sentences about facts that could not be found out.
	Unproven []string `json:"unproven"`
}

// Conclude returns what the facts prove.
func Conclude(f Facts) Answer {
	slices.SortStableFunc(f.Actions, func(a, b Action) int { return a.At.Compare(b.At) })
	a := Answer{Rejections: f.Rejections, Replays: replays(f), Others: []Action{}, Unproven: []string{}}
	for _, action := range f.Actions {
		if action.ReplayID == "" {
			a.Others = append(a.Others, action)
		}
	}
	if a.Rejections == nil {
		a.Rejections = []Rejection{}
	}
	a.State, a.Summary = state(&a)
	if a.State == NotRejected {
		a.Summary += notRejected(f)
	}
	a.Unproven = unproven(f, &a)
	return a
}

// replays are all replays of the event that are known.
func replays(f Facts) []Replay {
	all := map[string]*Replay{}
	of := func(id string) *Replay {
		if all[id] == nil {
			all[id] = &Replay{ID: id, Verdict: receipts.Unknown}
		}
		return all[id]
	}
	for _, r := range f.Receipts {
		if known := of(r.ReplayID); rank(r.Verdict) > rank(known.Verdict) {
			known.Verdict, known.Reason, known.At = r.Verdict, r.Reason, r.At
		}
	}
	for _, rejection := range f.Rejections {
		if rejection.ReplayID == "" {
			continue
		}
		if known := of(rejection.ReplayID); known.Verdict == receipts.Unknown {
			known.Verdict, known.Reason, known.At = receipts.Rejected, rejection.Reason, rejection.RejectedAt
		}
	}
	for _, action := range f.Actions {
		if action.ReplayID != "" {
			if known := of(action.ReplayID); known.Action == nil {
				known.Action = &action
			}
		}
	}
	sorted := []Replay{}
	for _, r := range all {
		sorted = append(sorted, *r)
	}
	// Ids of replays begin with their time.
	slices.SortFunc(sorted, func(a, b Replay) int { return cmp.Compare(a.ID, b.ID) })
	return sorted
}

// rank orders the verdicts on several deliveries of one event; the highest counts. An event
// that the gateway has recorded stays recorded, whatever a redelivery results in.
func rank(v receipts.Verdict) int {
	return slices.Index([]receipts.Verdict{receipts.Unknown, receipts.Rejected, receipts.Duplicate, receipts.Recorded}, v)
}

// state returns where the event is, and a sentence about it.
func state(a *Answer) (State, string) {
	if len(a.Rejections) > 0 {
		r := a.Rejections[0]
		return InQueue, fmt.Sprintf("It is in the dead-letter queue: %s of %s, fault %s.", r.Reason, cmp.Or(r.Service, "an unnamed service"), r.Fault)
	}
	var last *Replay
	for i := range a.Replays {
		r := &a.Replays[i]
		switch r.Verdict {
		case receipts.Recorded:
			return Recorded, fmt.Sprintf("The gateway recorded its replay %s at %s.", r.ID, clock(r.At))
		case receipts.Duplicate:
			return Recorded, fmt.Sprintf("The gateway had it already when the replay %s came, at %s.", r.ID, clock(r.At))
		default:
			last = r
		}
	}
	switch {
	case last != nil && last.Verdict == receipts.Rejected:
		return RejectedAgain, fmt.Sprintf("Its replay %s was rejected (%s) at %s, and it is not in the queue now.", last.ID, cmp.Or(last.Reason, "without a reason"), clock(last.At))
	case last != nil:
		return Replayed, fmt.Sprintf("It was replayed (%s), and the verdict is not known.", last.ID)
	case len(a.Others) > 0:
		o := a.Others[len(a.Others)-1]
		return Removed, fmt.Sprintf("It is not in the queue; %s by %s selected it at %s.", o.What, o.By, clock(o.At))
	}
	return NotRejected, "It was not rejected, as far as is known here: it was recorded, still waits, or was never published."
}

// notRejected returns sentences about what the age of the oldest waiting event proves.
func notRejected(f Facts) string {
	switch {
	case f.Oldest == nil:
		return ""
	case *f.Oldest == 0:
		return " By the newest sample of Cloud Monitoring no event waits."
	}
	text := fmt.Sprintf(" The oldest event has waited for %s.", f.Oldest.Round(time.Second))
	if !f.Created.IsZero() && f.Now.Sub(f.Created) > *f.Oldest+waitingError {
		text += fmt.Sprintf(" This one is older, by its id of %s, so that it no longer waits.", clock(f.Created))
	}
	return text
}

// waitingError is how old the figure for the oldest event may be, and how far a
// publisher's clock may be off.
const waitingError = 5 * time.Minute

// unproven lists the unknown facts that could change the answer.
func unproven(f Facts, a *Answer) []string {
	all := []string{}
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if f.QueueDoubt != "" && len(f.Rejections) == 0 {
		add("Whether the queue has it: %s.", f.QueueDoubt)
	}
	if f.ReceiptsDoubt != "" && a.State != Recorded && a.State != InQueue {
		add("What became of replays: %s.", f.ReceiptsDoubt)
	}
	if f.ActionsDoubt != "" {
		add("Who has replayed or removed it: %s.", f.ActionsDoubt)
	}
	if a.State == NotRejected {
		add("Whether the gateway has recorded it: the gateway cannot be asked for single events.")
		if f.Oldest == nil {
			add("Whether it still waits: %s.", cmp.Or(f.OldestDoubt, "the age of the oldest event is not known"))
		}
		add("Whether it was published at all: Pub/Sub keeps no list of messages.")
	}
	return all
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}

// CreatedAt returns when a UUID of version 7 was made, in milliseconds, by the clock of
// its maker; zero for any other text.
func CreatedAt(id string) time.Time {
	if len(id) != len("00000000-0000-7000-8000-000000000000") || id[14] != '7' {
		return time.Time{}
	}
	milli, err := strconv.ParseUint(id[:8]+id[9:13], 16, 48)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(int64(milli)).UTC()
}
