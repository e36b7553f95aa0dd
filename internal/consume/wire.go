package consume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Responses are decoded by hand. Building the generated messages would cost more than all
// further work on them.

// Field numbers of google/pubsub/v1/pubsub.proto. The field of messages has the same number
// in both responses.
const (
	fieldReceived   = 1 // StreamingPullResponse.received_messages
	fieldProperties = 4 // StreamingPullResponse.subscription_properties
	fieldAckID      = 1 // ReceivedMessage.ack_id
	fieldMessage    = 2 // ReceivedMessage.message
	fieldData       = 1 // PubsubMessage.data
	fieldAttribute  = 2 // PubsubMessage.attributes
	fieldMessageID  = 3 // PubsubMessage.message_id
	fieldPublished  = 4 // PubsubMessage.publish_time
	fieldOrdering   = 5 // PubsubMessage.ordering_key
	fieldKey        = 1 // key of an entry of attributes
	fieldValue      = 2
	fieldSeconds    = 1 // Timestamp.seconds
	fieldNanos      = 2 // Timestamp.nanos
)

const (
	// pieceSize is how many messages are taken out of a response at once. They are few
	// enough to be still in the processor's cache when they are decoded.
	pieceSize = 64
	// maxInterned and maxInternedBytes bound the sets of attributes that a reader
	// remembers: their number, and the size of each.
	maxInterned      = 1024
	maxInternedBytes = 1024
)

// reader takes messages out of encoded responses. It must be used by one goroutine.
type reader struct {
	// known has the attributes of earlier messages by their encoding, because most messages
	// of a publisher have the same.
	known   map[string]*attributes
	scratch []byte
	buffer  []byte // the encoding of the current message
	// messages is the result of next.
	messages []*Message
	// propertiesKnown is set once a response had the properties of the subscription.
	propertiesKnown bool
	exactlyOnce     bool // the subscription delivers exactly once
	entry
}

// attributes is shared by all messages with the same attributes.
type attributes struct {
	values map[string]string
	size   int // bytes
	same   Same
}

// entry has the parts of a message, which are slices of the response.
type entry struct {
	ackID, id, ordering, data []byte
	attributes                [][]byte
	seconds                   int64 // of the publish time
	nanos                     int32
}

func newReader() *reader {
	return &reader{known: make(map[string]*attributes), messages: make([]*Message, 0, pieceSize)}
}

// next takes up to pieceSize messages off the front of a response; none at its end. The
// messages do not refer to the response. The next call uses the slice again.
func (r *reader) next(response Response) (messages []*Message, err error) {
	clear(r.messages[:pieceSize]) // a settled message must not be kept alive
	messages = r.messages[:0]
	for response.Remaining() > 0 && len(messages) < pieceSize {
		tag, err := binary.ReadUvarint(response)
		if err != nil {
			return nil, malformed(err)
		}
		number, kind := protowire.DecodeTag(tag)
		if kind != protowire.BytesType {
			if err := skip(response, kind); err != nil {
				return nil, err
			}
			continue
		}
		size, err := binary.ReadUvarint(response)
		if err != nil {
			return nil, malformed(err)
		}
		if size > uint64(response.Remaining()) {
			return nil, malformed(io.ErrUnexpectedEOF)
		}
		r.buffer = slices.Grow(r.buffer[:0], int(size))[:size]
		if _, err := io.ReadFull(response, r.buffer); err != nil {
			return nil, malformed(err)
		}
		if number == fieldProperties {
			if err := r.properties(r.buffer); err != nil {
				return nil, err
			}
		}
		if number != fieldReceived {
			continue
		}
		m, err := r.received(r.buffer)
		if err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// properties reads the properties of the subscription.
func (r *reader) properties(encoded []byte) error {
	var p pubsubpb.StreamingPullResponse_SubscriptionProperties
	if err := proto.Unmarshal(encoded, &p); err != nil {
		return malformed(err)
	}
	r.propertiesKnown, r.exactlyOnce = true, p.GetExactlyOnceDeliveryEnabled()
	return nil
}

// skip discards a field whose wire type is not bytes. Pub/Sub sends none so far.
func skip(response Response, kind protowire.Type) (err error) {
	switch kind {
	case protowire.VarintType:
		_, err = binary.ReadUvarint(response)
	case protowire.Fixed32Type:
		_, err = response.Discard(4)
	case protowire.Fixed64Type:
		_, err = response.Discard(8)
	default:
		err = errWireType
	}
	if err != nil {
		return malformed(err)
	}
	return nil
}

// errWireType means that a field has a wire type that protobuf has deprecated.
var errWireType = errors.New("a group")

// received reads one ReceivedMessage.
func (r *reader) received(b []byte) (*Message, error) {
	r.entry = entry{attributes: r.attributes[:0]}
	for len(b) > 0 {
		number, value, rest, err := field(b)
		if err != nil {
			return nil, err
		}
		b = rest
		switch {
		case value == nil:
		case number == fieldAckID:
			r.ackID = value
		case number == fieldMessage:
			if err := r.pubsubMessage(value); err != nil {
				return nil, err
			}
		}
	}
	shared, err := r.attributesOf(r.attributes)
	if err != nil {
		return nil, err
	}
	m := r.message(r.id, r.ordering, r.ackID, r.data)
	m.PublishTime = time.Unix(r.seconds, int64(r.nanos)).UTC()
	size := len(r.data) + len(r.id) + len(r.ordering)
	if shared != nil {
		m.Attributes, m.Same = shared.values, &shared.same
		size += shared.size
	}
	m.size = int32(size) // Pub/Sub allows 10 MB
	return m, nil
}

// pubsubMessage reads a PubsubMessage.
func (r *reader) pubsubMessage(b []byte) error {
	for len(b) > 0 {
		number, value, rest, err := field(b)
		if err != nil {
			return err
		}
		b = rest
		if value == nil {
			continue
		}
		switch number {
		case fieldData:
			r.data = value
		case fieldAttribute:
			r.attributes = append(r.attributes, value)
		case fieldMessageID:
			r.id = value
		case fieldPublished:
			if err := r.timestamp(value); err != nil {
				return err
			}
		case fieldOrdering:
			r.ordering = value
		default: // delivery counters and the like
		}
	}
	return nil
}

// attributesOf returns the attributes with these entries, or nil if there are none.
// Messages with the same entries share the result, which never changes.
func (r *reader) attributesOf(entries [][]byte) (*attributes, error) {
	if len(entries) == 0 {
		return nil, nil
	}
	encoded := r.scratch[:0]
	for _, e := range entries {
		encoded = protowire.AppendBytes(encoded, e)
	}
	r.scratch = encoded
	if known := r.known[string(encoded)]; known != nil {
		return known, nil
	}
	all := &attributes{values: make(map[string]string, len(entries))}
	for _, e := range entries {
		key, value, err := keyAndValue(e)
		if err != nil {
			return nil, err
		}
		all.values[key] = value
	}
	for key, value := range all.values {
		all.size += len(key) + len(value)
	}
	if len(encoded) <= maxInternedBytes {
		if len(r.known) >= maxInterned {
			clear(r.known)
		}
		r.known[string(encoded)] = all
	}
	return all, nil
}

func keyAndValue(b []byte) (key, value string, err error) {
	for len(b) > 0 {
		number, text, rest, err := field(b)
		if err != nil {
			return "", "", err
		}
		b = rest
		if text == nil && (number == fieldKey || number == fieldValue) {
			return "", "", malformed(errNoText)
		}
		switch number {
		case fieldKey:
			key = string(text)
		case fieldValue:
			value = string(text)
		default:
		}
	}
	return key, value, nil
}

// errNoText means that the key or the value of an attribute is not a text. Without this
// error it would count as an unknown field, and the attribute would become empty.
var errNoText = errors.New("an attribute that is no text")

// timestamp reads the publish time.
func (r *reader) timestamp(b []byte) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed(protowire.ParseError(n))
		}
		b = b[n:]
		var value uint64
		if kind == protowire.VarintType {
			value, n = protowire.ConsumeVarint(b)
		} else {
			number, n = 0, protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return malformed(protowire.ParseError(n))
		}
		b = b[n:]
		switch number {
		case fieldSeconds:
			r.seconds = int64(value)
		case fieldNanos:
			r.nanos = int32(value)
		default:
		}
	}
	return nil
}

// field takes a field off the front of a message. The value is nil if its wire type is not
// bytes.
func field(b []byte) (number protowire.Number, value, rest []byte, err error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, nil, nil, malformed(protowire.ParseError(n))
	}
	b = b[n:]
	if kind == protowire.BytesType {
		if value, n = protowire.ConsumeBytes(b); n < 0 {
			return 0, nil, nil, malformed(protowire.ParseError(n))
		}
		return number, value, b[n:], nil
	}
	if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
		return 0, nil, nil, malformed(protowire.ParseError(n))
	}
	return number, nil, b[n:], nil
}

func malformed(err error) error { return fmt.Errorf("read what Pub/Sub has sent: %w", err) }

// Response is an encoded response, to be read once. Its owner closes it.
type Response = *mem.Reader

// NewResponse returns a response with these bytes.
func NewResponse(encoded []byte) Response {
	return mem.BufferSlice{mem.SliceBuffer(encoded)}.Reader()
}

// codec does not decode responses.
type codec struct{}

// Name is empty, because grpc-go appends the name of a forced codec to the
// content type, and Google's front answers anything but exactly
// "application/grpc" with HTTP 404 (googleapis.github.io#27, alpakka#2237).
func (codec) Name() string { return "" }

// Marshal encodes like gRPC's own codec, into pooled memory.
func (codec) Marshal(v any) (mem.BufferSlice, error) { return protobuf.Marshal(v) }

// protobuf is gRPC's own codec.
var protobuf = encoding.GetCodecV2(grpcproto.Name)

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case Response:
		v.Reset(data) // takes a reference of its own, and frees each buffer when it has been read
		return nil
	case *emptypb.Empty:
		return nil
	}
	return errors.New("consume: unknown type of response")
}
