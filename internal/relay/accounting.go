package relay

import (
	"maps"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// Accounting counts every delivery until its end:
// received = submitted + sum(rejected) + duplicates + released + in flight.
type Accounting struct {
	Received   int                  `json:"received"`
	Submitted  int                  `json:"submitted"`
	Rejected   map[event.Reason]int `json:"rejected"`
	Duplicates int                  `json:"duplicates"`
	Released   int                  `json:"released"`
	Batches    int                  `json:"batches"`
}

// Ended says why a run ended.
type Ended string

// The ways in which a run ends.
const (
	Drained  Ended = "drained"
	Deadline Ended = "deadline"
	Signal   Ended = "signal"
	Failed   Ended = "error"
)

// Summary is the last line that a run prints.
type Summary struct {
	Accounting
	Ended           Ended   `json:"ended"`
	DurationSeconds float64 `json:"duration_seconds"`
}

// NewAccounting returns an accounting of nothing.
func NewAccounting() Accounting { return Accounting{Rejected: map[event.Reason]int{}} }

// copy returns an accounting that does not change when a does.
func (a Accounting) copy() Accounting {
	a.Rejected = maps.Clone(a.Rejected)
	return a
}

// AllRejected is how many events were rejected, whatever the reason.
func (a Accounting) AllRejected() (n int) {
	for _, count := range a.Rejected {
		n += count
	}
	return n
}

// Balanced reports whether every delivery is accounted for while so many are in
// flight. At the end of a run none is.
func (a Accounting) Balanced(inFlight int) bool { return a.unaccounted(inFlight) == 0 }

// unaccounted is how many deliveries are not accounted for. Any number but 0 is a bug.
func (a Accounting) unaccounted(inFlight int) int {
	return a.Received - (a.Submitted + a.AllRejected() + a.Duplicates + a.Released + inFlight)
}
