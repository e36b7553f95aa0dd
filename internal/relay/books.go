package relay

import (
	"maps"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// Books count every delivery until its end:
// received = submitted + sum(rejected) + duplicates + released + held.
type Books struct {
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
	Books
	Ended           Ended   `json:"ended"`
	DurationSeconds float64 `json:"duration_seconds"`
}

// NewBooks returns empty books.
func NewBooks() Books { return Books{Rejected: map[event.Reason]int{}} }

// copy returns books that do not change any more.
func (b Books) copy() Books {
	b.Rejected = maps.Clone(b.Rejected)
	return b
}

// AllRejected is how many events were rejected, whatever the reason.
func (b Books) AllRejected() (n int) {
	for _, count := range b.Rejected {
		n += count
	}
	return n
}

// Balanced reports whether everything received is accounted for; at the end of
// a run nothing is held.
func (b Books) Balanced(held int) bool { return b.difference(held) == 0 }

// difference is how many deliveries are not accounted for.
func (b Books) difference(held int) int {
	return b.Received - (b.Submitted + b.AllRejected() + b.Duplicates + b.Released + held)
}

func (r *Relay) summary() Summary {
	return Summary{
		Books:           r.books.copy(),
		Ended:           r.stopping.why,
		DurationSeconds: time.Since(r.started).Round(time.Millisecond).Seconds(),
	}
}
