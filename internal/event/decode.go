package event

import (
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// Decoder turns messages into events. It is safe for concurrent use.
type Decoder struct {
	services           *policy.Set
	defaultEnvironment string
}

// NewDecoder returns a decoder of the events of these services. A message that
// does not name an environment belongs to defaultEnvironment.
func NewDecoder(services *policy.Set, defaultEnvironment string) *Decoder {
	return &Decoder{services: services, defaultEnvironment: defaultEnvironment}
}

// Decode returns the event of the message, or why it is rejected. The message's
// data is only read and not kept.
func (d *Decoder) Decode(m Message) (Event, *Rejection) {
	event, _, rejection := d.DecodeInto(nil, m)
	return event, rejection
}

// DecodeInto is Decode for many messages: it appends the event's wire bytes to
// buf and returns the extended buffer. The event's Wire is a part of it whose
// capacity ends with it. A rejected message leaves the buffer as it was.
func (d *Decoder) DecodeInto(buf []byte, m Message) (Event, []byte, *Rejection) {
	return Event{}, buf, &Rejection{Reason: MalformedPayload, Detail: "not decoded yet"}
}
