package relay

import (
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// Result is the outcome of a message that is settled and not released.
type Result string

// The results.
const (
	Recorded  Result = "recorded"
	Rejected  Result = "rejected"
	Duplicate Result = "duplicate" // another message with the same event was settled
)

// Verdict is the result of one message. It is valid during the call of OnVerdict only.
type Verdict struct {
	Message *consume.Message
	Result  Result
	// EventID is empty if the event's id is not known.
	EventID string
	// Rejection is why the event was rejected, nil if it was recorded. A duplicate has
	// that of the other message.
	Rejection *event.Rejection
	// Replayed reports whether the message has a valid replay_count.
	Replayed bool
}

// judged reports the verdict of a message, whose event is e.
func (s *settlement) judged(m *consume.Message, e *inflight, result Result) {
	if s.run.opts.OnVerdict == nil {
		return
	}
	replayed := event.Replays(m.Attributes) > 0
	if result != Rejected && !replayed {
		return
	}
	v := Verdict{Message: m, Result: result, EventID: string(e.event.ID()), Rejection: e.rejection, Replayed: replayed}
	if e.rejection != nil {
		v.EventID = e.rejection.EventID
	}
	s.run.opts.OnVerdict(v)
}
