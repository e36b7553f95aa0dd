// Package event defines the message on the topic: it decodes, validates and completes an
// event and encodes it for Telemetry Gateway. It is the only place that knows what a valid
// event is.
package event

import "time"

// Message is the part of a Pub/Sub message that the decoder needs.
type Message struct {
	// ID and PublishTime are assigned by Pub/Sub.
	ID          string
	PublishTime time.Time
	Data        []byte
	Attributes  map[string]string
	// Sender, if set, is the result of the decoder's method Sender for Attributes.
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
	// UUID is the event's id: the publisher's own, or derived from the message.
	UUID [16]byte
	// Publisher is the service and environment that published the event.
	Publisher Publisher
}

// ID returns the id as the publisher wrote it. It is a part of Wire.
func (e *Event) ID() []byte {
	if len(e.Wire) < idAt {
		return nil
	}
	return e.Wire[idAt:e.IDEnd()]
}

// IDEnd returns the index in Wire at which the id ends. ID needs only the bytes before it.
func (e *Event) IDEnd() int { return idAt + int(e.Wire[idAt-1]) }

// idAt is the index in Wire at which the id begins: after its tag and its length, a byte
// each.
const idAt = 2

// Rejection is why a message is not a valid event.
type Rejection struct {
	Reason Reason
	// Detail is one readable sentence, at most MaxDetail bytes of UTF-8: the fault, its
	// place in the event, and the expected form. It never has a value of privateMetadata,
	// nor any value at an unexpected place.
	Detail string
	// EventID is the event's id, or empty if it is not known.
	EventID string
}

// MaxDetail is the longest detail, in bytes: the limit of a Pub/Sub attribute.
const MaxDetail = 1024

// Error returns reason and detail.
func (r *Rejection) Error() string { return string(r.Reason) + ": " + r.Detail }
