package submit

import (
	"errors"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// Field numbers of the gateway's messages in telemetrygateway.proto.
const (
	fieldPayload   = 2 // RecordEventsRequest.events
	fieldEvents    = 1 // EventsPayload.events
	fieldSucceeded = 1 // RecordEventsResponse.succeeded_events
)

// payload is a RecordEventsRequest with events, which are already encoded.
type payload []*event.Event

// codec encodes requests without building messages, and decodes responses
// without building strings.
type codec struct{}

// Name is empty, because grpc-go appends the name of a forced codec to the
// content type, and the gateway stands behind Google's front, which answers
// anything but exactly "application/grpc" with HTTP 404
// (googleapis.github.io#27, alpakka#2237).
func (codec) Name() string { return "" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case mem.BufferSlice: // already encoded
		return v, nil
	case *telemetrygatewayv1.RecordEventsRequest:
		b, err := proto.Marshal(v)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return nil, errors.New("submit: unknown type of request")
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	l, ok := v.(*Listing)
	if !ok {
		return errors.New("submit: unknown type of response")
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return l.unmarshal(buf.ReadOnlyData())
}

// maxCopied is the longest payload, in bytes, that is copied into one pooled buffer: the
// largest size of gRPC's pool.
const maxCopied = 1 << 20

// marshal encodes the payload. It does not copy the events of a payload longer than
// maxCopied, because several such payloads at a time would double the memory in use.
func (p payload) marshal() mem.BufferSlice {
	size := 0
	for _, e := range p {
		size += protowire.SizeTag(fieldEvents) + protowire.SizeBytes(len(e.Wire))
	}
	header := appendHeader(nil, fieldPayload, size)
	if len(header)+size > maxCopied {
		parts := mem.BufferSlice{mem.SliceBuffer(header)}
		for _, e := range p {
			parts = append(parts, mem.SliceBuffer(appendHeader(nil, fieldEvents, len(e.Wire))), mem.SliceBuffer(e.Wire))
		}
		return parts
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(len(header) + size)
	b := append((*buf)[:0], header...)
	for _, e := range p {
		b = append(appendHeader(b, fieldEvents, len(e.Wire)), e.Wire...)
	}
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}
}

// appendHeader appends the tag of a field and its size.
func appendHeader(b []byte, number protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.BytesType), uint64(size))
}

// unmarshal enters an encoded RecordEventsResponse into the listing.
func (l *Listing) unmarshal(b []byte) error {
	l.Answer()
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if number != fieldSucceeded || kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		id, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		l.List(id)
	}
	return nil
}
