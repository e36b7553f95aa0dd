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
	// maxMessage keeps a message below Pub/Sub's 10 MB, with some room for the
	// request around it.
	maxMessage = 9_990_000
)

// validator makes messages of events, and lets none through that the relay would
// reject.
type validator struct {
	decoder    *event.Decoder
	attributes map[string]string // of every message; never changed
	overhead   int               // bytes of a message beside its data
	// attributeBytes is the size of the attributes alone.
	attributeBytes int
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
		const framing = 16 // more than what encloses each in the encoding
		v.overhead += len(name) + len(value) + framing
		v.attributeBytes += len(name) + len(value)
	}
	// The environment counts for the size of an event. Where the relay's own will
	// be used, it is taken to be as long as one can be.
	v.decoder = event.NewDecoder(services, strings.Repeat("e", maxAttribute))
	_, rejection := v.decoder.Decode(event.Message{
		PublishTime: time.Now(), Data: []byte(`{"feature":"checked","action":"checked"}`), Attributes: v.attributes,
	})
	if rejection != nil {
		return nil, fmt.Errorf("recorder: Service: %s", rejection.Detail)
	}
	return v, nil
}

// encode returns the data of the event's message, or why there is none: an
// *InvalidError.
func (v *validator) encode(ctx context.Context, feature Feature, action Action, opts []Option) ([]byte, error) {
	d := drafts.Get().(*draft)
	// Not deferred: a draft in which an option panicked is not used again.
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
	d.encode(ctx, feature, action)
	err := v.check(d, feature, action)
	var data []byte
	if err == nil {
		data = bytes.Clone(d.buf)
	}
	d.release()
	return data, err
}

func (v *validator) check(d *draft, feature Feature, action Action) error {
	invalid := func(reason event.Reason, detail string) error {
		return &InvalidError{Feature: feature, Action: action, Reason: string(reason), Detail: detail}
	}
	if d.fault != "" {
		return invalid(event.InvalidEvent, d.fault)
	}
	_, wire, rejection := v.decoder.DecodeInto(d.wire, event.Message{Data: d.buf, Attributes: v.attributes})
	d.wire = wire[:0]
	if rejection != nil {
		return invalid(rejection.Reason, rejection.Detail)
	}
	if size := len(d.buf) + v.overhead; size > maxMessage {
		return invalid(event.Oversized, fmt.Sprintf("the message is too large: expected at most %d bytes, got %d", maxMessage, size))
	}
	return nil
}
