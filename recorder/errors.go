package recorder

import (
	"errors"
	"fmt"
)

var (
	// ErrDropped means that the buffer is full: Pub/Sub is away, or slower than
	// the service records.
	ErrDropped = errors.New("recorder: the buffer is full, the event was dropped")
	// ErrClosed means that the recorder has been closed.
	ErrClosed = errors.New("recorder: closed, the event was dropped")
	// ErrUnconfirmed means that Pub/Sub has not confirmed everything in time. The error
	// says how many events, and why the last try failed.
	ErrUnconfirmed = errors.New("recorder: events were not confirmed by Pub/Sub")
	// ErrFailed means that events were taken and not published: Pub/Sub refused them,
	// or did not answer for Config.RetryFor. The error says how many, and the last
	// one's reason, a gRPC status if it came from Pub/Sub.
	ErrFailed = errors.New("recorder: events were not published")
)

// InvalidError says why an event was not recorded: the relay would reject it. It
// never holds a key or a value of private metadata.
type InvalidError struct {
	Feature Feature
	Action  Action
	// Reason is what the relay would give as the reason, such as invalid_event.
	Reason string
	// Detail is one readable sentence: what, where in the event, what was
	// expected.
	Detail string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("recorder: event %.64q, %.64q: %s: %s", e.Feature, e.Action, e.Reason, e.Detail)
}
