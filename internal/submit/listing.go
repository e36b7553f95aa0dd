package submit

import (
	"bytes"
	"slices"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// Listing collects the ids that the gateway lists as recorded in its answer to a payload,
// in any order, and derives which events they are. It is not known whether the gateway
// lists an id once for each event that has it, or once in all; Listing understands both.
type Listing struct {
	events []*event.Event
	listed []bool // by event; nil before the answer
	next   int    // where List begins to look: the gateway lists in the order of the payload
}

// Collision is a set of events of a payload that have the same id, of which the gateway has
// listed fewer than were sent. Nothing tells which of them it has recorded.
type Collision struct {
	// Events are their indexes in the batch, at least two.
	Events []int
	// Recorded is how many of them are recorded: at least one, and not all.
	Recorded int
}

// NewListing returns the listing of a payload before its answer.
func NewListing(events []*event.Event) *Listing { return &Listing{events: events} }

// Answer notes that an answer has come. It may list no id.
func (l *Listing) Answer() {
	if l.listed == nil {
		l.listed = make([]bool, len(l.events))
	}
}

// List notes that an event with this id was recorded. It ignores an id that was not sent,
// or that was listed more often than it was sent.
func (l *Listing) List(id []byte) {
	l.Answer()
	// Usually the id is that of the next event, or some events before it were left out.
	for range l.events {
		if l.next == len(l.events) {
			l.next = 0
		}
		i := l.next
		l.next++
		if !l.listed[i] && bytes.Equal(l.events[i].ID(), id) {
			l.listed[i] = true
			return
		}
	}
}

// Result says for each event whether it is recorded; nil without an answer. Events of a
// collision are not recorded as far as listed goes.
func (l *Listing) Result() (listed []bool, collisions []Collision) {
	missing := 0
	for _, ok := range l.listed {
		if !ok {
			missing++
		}
	}
	if missing == 0 || missing == len(l.listed) {
		return l.listed, nil // the usual cases: all events, or none
	}
	places := make(map[string][]int, len(l.events))
	for i, e := range l.events {
		id := string(e.ID())
		places[id] = append(places[id], i)
	}
	listed = slices.Clone(l.listed)
	for _, e := range l.events {
		same := places[string(e.ID())]
		delete(places, string(e.ID()))
		recorded := 0
		for _, i := range same {
			if l.listed[i] {
				recorded++
			}
		}
		if recorded == 0 || recorded == len(same) {
			continue
		}
		for _, i := range same {
			listed[i] = false
		}
		collisions = append(collisions, Collision{Events: same, Recorded: recorded})
	}
	return listed, collisions
}
