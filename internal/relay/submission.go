package relay

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// submission is a batch of events that a stream carries, or that waits for its turn.
type submission struct {
	publisher *publisher
	events    []*inflight
	role      role
	// again: an answer left it out as a whole before. piece: it was cut out of events
	// that an answer left out.
	again, piece bool
	// isolated: it was cut out of a batch that failed while others succeeded. Its
	// failures say nothing about the gateway.
	isolated bool

	failures     int       // streams that failed, of it or of the batch that it was cut out of
	firstFailure uint64    // when the first of them failed, by the logical clock
	refused      int       // streams that were refused for lack of capacity, and are no failures
	attempts     int       // for the backoff
	due          time.Time // when it may be submitted again, or at the latest if it is kept back

	// The latest stream.
	started    uint64 // by the logical clock
	startedAt  time.Time
	connection int
	// exclusive: no suspect was in flight when it started. suspectsBefore is how many
	// submissions of suspects had started by then.
	exclusive      bool
	suspectsBefore uint64
	// size is the size of the batch that was submitted: some of its events may be
	// settled since.
	size struct{ events, bytes int }
}

// role is what a submission's events are to the verdict on those that answers left out.
type role int

const (
	// ordinary events were not left out, or are controls.
	ordinary role = iota
	// suspected events were left out of an answer, each of them.
	suspected
	// try is one suspect that is submitted while no other suspect is in flight.
	try
)

// suspect reports whether the events are suspects.
func (s *submission) suspect() bool { return s.role != ordinary }

// submissionResult is the end of a stream.
type submissionResult struct {
	submission *submission
	result     submit.Result
}

// dropSettled removes events that were settled while the submission waited, and reports
// whether any are left.
func (s *submission) dropSettled() bool {
	s.events = unsettled(s.events)
	return len(s.events) > 0
}

func unsettled(events []*inflight) []*inflight {
	return slices.DeleteFunc(events, func(e *inflight) bool { return e.settled })
}

// halves are the two halves of a batch of which a stream failed, to be submitted apart.
func (s *submission) halves() [2]*submission {
	var halves [2]*submission
	middle := len(s.events) / 2
	for i, events := range [][]*inflight{s.events[:middle:middle], s.events[middle:]} {
		halves[i] = &submission{
			publisher: s.publisher, events: events, role: s.role, piece: s.piece, isolated: true,
			failures: max(1, s.failures), firstFailure: s.firstFailure,
		}
	}
	return halves
}

// requestID names a stream. It is a UUIDv7, so that a log sorts by it.
func requestID() string {
	id, err := uuid.NewV7()
	if err != nil {
		// Only without the system's randomness; the id need not be a secret.
		return uuid.Nil.String()
	}
	return id.String()
}

// submissionHeap orders submissions by when they are due.
type submissionHeap []*submission

func (h submissionHeap) Len() int           { return len(h) }
func (h submissionHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h submissionHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push and Pop are for container/heap.
func (h *submissionHeap) Push(x any) { *h = append(*h, x.(*submission)) }

// Pop takes the last.
func (h *submissionHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
