package recorder

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

const (
	// maxAttribute is Pub/Sub's limit of an attribute's value, in bytes.
	maxAttribute = 1024
	// maxMessage keeps a message below Pub/Sub's 10 MB, with some space for the request
	// around it.
	maxMessage = 9_990_000
)

// validator encodes events as messages, and refuses those that the relay would reject.
type validator struct {
	decoder    *event.Decoder
	attributes map[string]string // of every message; never changed
	overhead   int               // size of a message without its data
	// attributeBytes is the size of the attributes alone.
	attributeBytes int
	process        func(context.Context, *Event) // may be nil
}

func newValidator(s Service) (*validator, error) {
	for _, a := range []struct{ name, value string }{
		{"ID", s.ID}, {"Environment", s.Environment}, {"Version", s.Version},
	} {
		if len(a.value) > maxAttribute || !utf8.ValidString(a.value) {
			return nil, fmt.Errorf("recorder: Service.%s: expected at most %d bytes of UTF-8", a.name, maxAttribute)
		}
	}
	services, err := policy.NewSet([]*policy.Service{{ID: s.ID}}, false)
	if err != nil {
		return nil, fmt.Errorf("recorder: %w", err)
	}
	v := &validator{attributes: s.attributes()}
	for name, value := range v.attributes {
		const framing = 16 // more than the encoding adds to each
		v.overhead += len(name) + len(value) + framing
		v.attributeBytes += len(name) + len(value)
	}
	// The environment counts for the size of an event. If the relay's own will be used, the
	// longest possible one is assumed.
	v.decoder = event.NewDecoder(services, strings.Repeat("e", maxAttribute))
	_, rejection := v.decoder.Decode(event.Message{
		PublishTime: time.Now(), Data: []byte(`{"feature":"checked","action":"checked"}`), Attributes: v.attributes,
	})
	if rejection != nil {
		return nil, fmt.Errorf("recorder: Service: %s", rejection.Detail)
	}
	return v, nil
}

// encode returns the data of the event's message, or an *InvalidError. stripped says why
// the given private metadata is not in the data; nil if it is.
func (v *validator) encode(ctx context.Context, feature Feature, action Action, opts []Option) (data []byte, stripped, err error) {
	d := drafts.Get().(*draft)
	// The release is not deferred, because a draft in which an option panicked must not be
	// used again.
	d.Feature, d.Action = feature, action
	for _, opt := range contextOptions(ctx) {
		if opt != nil {
			opt.apply(d)
		}
	}
	for _, opt := range opts {
		if opt != nil {
			opt.apply(d)
		}
	}
	if v.process != nil {
		d.ownAll()
		v.process(ctx, &d.Event)
	}
	d.encode(ctx)
	reason, detail := v.check(d)
	if reason != "" && d.PrivateMetadata != nil && d.stripped == "" {
		// The private metadata may be at fault, such as by its size. An event without it is
		// better than no event.
		d.buf, d.fault, d.stripped = d.buf[:0], "", detail
		stripReason := reason
		d.encode(ctx)
		if reason, detail = v.check(d); reason == "" {
			stripped = &InvalidError{Feature: d.Feature, Action: d.Action, Reason: string(stripReason), Detail: d.stripped}
		}
	} else if d.stripped != "" {
		stripped = &InvalidError{Feature: d.Feature, Action: d.Action, Reason: string(event.InvalidEvent), Detail: d.stripped}
	}
	if reason != "" {
		stripped, err = nil, &InvalidError{Feature: d.Feature, Action: d.Action, Reason: string(reason), Detail: detail}
	} else {
		data = bytes.Clone(d.buf)
	}
	d.release()
	return data, stripped, err
}

// check returns why the relay would reject the event; an empty reason if it would not.
func (v *validator) check(d *draft) (reason event.Reason, detail string) {
	if d.fault != "" {
		return event.InvalidEvent, d.fault
	}
	_, wire, rejection := v.decoder.DecodeInto(d.wire, event.Message{Data: d.buf, Attributes: v.attributes})
	d.wire = wire[:0]
	if rejection != nil {
		return rejection.Reason, rejection.Detail
	}
	if size := len(d.buf) + v.overhead; size > maxMessage {
		return event.Oversized, fmt.Sprintf("the message is too large: expected at most %d bytes, got %d", maxMessage, size)
	}
	return "", ""
}
