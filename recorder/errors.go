package recorder

import (
	"errors"
	"fmt"
)

var (
	// ErrDropped means that the buffer is full: Pub/Sub is unavailable, or slower than the
	// service records.
	ErrDropped = errors.New("recorder: the buffer is full, the event was dropped")
	// ErrClosed means that the recorder has been closed.
	ErrClosed = errors.New("recorder: closed, the event was dropped")
	// ErrUnconfirmed means that Pub/Sub has not confirmed all events in time. The error
	// says how many, and why the last try failed.
	ErrUnconfirmed = errors.New("recorder: events were not confirmed by Pub/Sub")
	// ErrFailed means that events were taken but not published: Pub/Sub refused them, or
	// did not answer for Config.RetryFor. The error has their number and the last one's
	// reason, a gRPC status if it came from Pub/Sub.
	ErrFailed = errors.New("recorder: events were not published")
)

// InvalidError means that an event was not recorded because the relay would reject it. It
// never has a key or a value of private metadata.
type InvalidError struct {
	Feature Feature
	Action  Action
	// Reason is the relay's reason, such as invalid_event.
	Reason string
	// Detail is one readable sentence: the fault, its place in the event, and the expected
	// form.
	Detail string
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("recorder: event %.64q, %.64q: %s: %s", e.Feature, e.Action, e.Reason, e.Detail)
}
