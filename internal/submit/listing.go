package submit

import (
	"bytes"
	"slices"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// Listing takes the ids that the gateway lists as recorded in its answer to a payload,
// in any order, and says which events that settles. Nothing says whether the gateway
// lists an id once for each event with it, or once at all; both are understood.
type Listing struct {
	events []*event.Event
	listed []bool // by event; nil before an answer
	next   int    // the gateway lists in the order of the payload
}

// Collision is some events of a payload that have one id, of which the gateway has
// listed fewer than there are: nobody can tell which of them it has recorded.
type Collision struct {
	// Events are their places in the batch, at least two.
	Events []int
	// Recorded is how many of them are recorded: at least one, and not all.
	Recorded int
}

// NewListing returns the listing of a payload, before its answer.
func NewListing(events []*event.Event) *Listing { return &Listing{events: events} }

// Answer notes that an answer has come. It may list nothing.
func (l *Listing) Answer() {
	if l.listed == nil {
		l.listed = make([]bool, len(l.events))
	}
}

// List notes that an event with this id was recorded. An id that was not sent, or is
// listed more often than it was sent, is ignored.
func (l *Listing) List(id []byte) {
	l.Answer()
	// Usually it is the next one, or some were left out before it.
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

// Result says for each event whether it is recorded, nil without an answer. The
// events of a collision count as not recorded there.
func (l *Listing) Result() (listed []bool, collisions []Collision) {
	missing := 0
	for _, ok := range l.listed {
		if !ok {
			missing++
		}
	}
	if missing == 0 || missing == len(l.listed) {
		return l.listed, nil // as it mostly is: all events, or none
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
