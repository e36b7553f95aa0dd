// Package event is the message on the topic: it decodes, validates and
// completes an event and maps it to Telemetry Gateway's form. It is the only
// place that knows what a valid event is.
package event

import "time"

// Message is what the decoder sees of a Pub/Sub message.
type Message struct {
	// ID and PublishTime are given by Pub/Sub.
	ID          string
	PublishTime time.Time
	Data        []byte
	Attributes  map[string]string
	// Sender is what the same decoder has read in Attributes; it reads them itself if
	// this is nil.
	Sender *Sender
}

// Publisher is the identity under which an event is recorded. A stream to the
// gateway has exactly one.
type Publisher struct {
	ServiceID   string
	Environment string
}

// Event is a valid event in the gateway's form.
type Event struct {
	// Wire is the encoded telemetrygateway.v1.Event.
	Wire []byte
	// UUID is the id: the publisher's own, or derived from the message.
	UUID [16]byte
	// Publisher is who recorded it.
	Publisher Publisher
}

// ID is the id in text form, as the publisher wrote it. It is a part of Wire,
// which begins with it.
func (e *Event) ID() []byte {
	if len(e.Wire) < idAt {
		return nil
	}
	return e.Wire[idAt:e.IDEnd()]
}

// IDEnd is where the id ends in Wire. What is before it is enough for ID.
func (e *Event) IDEnd() int { return idAt + int(e.Wire[idAt-1]) }

// idAt is where the id begins in Wire: after its tag and its length, a byte each.
const idAt = 2

// Rejection says why a message is not a valid event.
type Rejection struct {
	Reason Reason
	// Detail is one readable sentence, at most MaxDetail bytes of UTF-8: what,
	// where in the event, and what was expected. It never holds a value of
	// privateMetadata, nor one that was found where it does not belong.
	Detail string
	// EventID is the event's id as far as it is known, else empty.
	EventID string
}

// MaxDetail is the longest detail, in bytes: the limit of a Pub/Sub attribute.
const MaxDetail = 1024

// Error makes a rejection an error, for commands that print it.
func (r *Rejection) Error() string { return string(r.Reason) + ": " + r.Detail }
