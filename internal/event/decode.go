package event

import (
	"bytes"
	"math"
	"sync"

	"github.com/google/uuid"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// Decoder decodes messages into events. It is safe for concurrent use.
type Decoder struct {
	services           *policy.Set
	defaultEnvironment string
}

// NewDecoder returns a decoder for the events of these services. A message without an
// environment belongs to defaultEnvironment.
func NewDecoder(services *policy.Set, defaultEnvironment string) *Decoder {
	return &Decoder{services: services, defaultEnvironment: defaultEnvironment}
}

// Decode returns the event of the message, or why it is rejected. It does not keep the
// message's data.
func (d *Decoder) Decode(m Message) (Event, *Rejection) {
	event, _, rejection := d.DecodeInto(nil, m)
	return event, rejection
}

// DecodeInto is Decode for many messages: it appends the event's wire bytes to buf and
// returns the extended buffer. The event's Wire is a part of buf, with its capacity cut to
// its length, so buf stays in memory as long as any of its events. The events need about as
// many bytes as the messages have. A rejected message leaves buf as it was.
func (d *Decoder) DecodeInto(buf []byte, m Message) (Event, []byte, *Rejection) {
	p := passes.Get().(*pass)
	if p.sender = m.Sender; p.sender == nil {
		p.own = d.sender(m.Attributes)
		p.sender = &p.own
	}
	event, out, rejection := p.decode(buf, m)
	p.release()
	if rejection != nil {
		return Event{}, buf, rejection
	}
	return event, out, nil
}

// pass is the state of the one pass over a message, which validates the document and
// encodes it. The pass remembers the first fault of a field and goes on, because a
// malformed document is the more important reason.
type pass struct {
	reader
	message Message
	sender  *Sender
	own     Sender // used if the message has no Sender

	// These are parts of the data, or of arena if they had escapes.
	feature, action, idText []byte

	id           [16]byte
	derived      [idLen]byte // idText if the publisher gave none
	idState      idState
	timestamp    instant
	hasTimestamp bool
	hasTrace     bool

	// Parts of the event's wire form: the contents of source.client and of parameters, and
	// the fields from user on.
	client, params, rest []byte
	hasClient            bool
	hasInteraction       bool

	// emit is false while private metadata is checked but not encoded, and for the rest of
	// the pass once the event is too large.
	emit     bool
	tooLarge bool
	// relay is the service's rule for private metadata. isPrivate is set if the event has
	// any.
	relay     policy.PrivateMetadata
	isPrivate bool
	// metadataAt and privateAt are the offsets of the two objects for the second walk of a
	// catalogue, 0 if the event has none.
	metadataAt, privateAt int
}

type idState int

const (
	idAbsent idState = iota
	idGiven
	idFaulty
)

var passes = sync.Pool{New: func() any { return new(pass) }}

// maxKept is the largest scratch buffer, in elements, that is kept for the next message,
// because one huge event must not occupy memory for ever.
const maxKept = 16 << 10

// release returns the pass to the pool without references to its message.
func (p *pass) release() {
	*p = pass{
		client: keep(p.client), params: keep(p.params), rest: keep(p.rest),
		reader: reader{arena: keep(p.arena), keys: keep(p.keys), table: keep(p.table)},
	}
	passes.Put(p)
}

func keep[T any](s []T) []T {
	if cap(s) > maxKept {
		return nil
	}
	return s[:0]
}

func (p *pass) decode(buf []byte, m Message) (Event, []byte, *Rejection) {
	service, publisher, rejection := p.sender.service, p.sender.publisher, p.sender.rejection
	if rejection != nil {
		return Event{}, nil, rejection
	}
	if len(m.Data) > math.MaxInt32 {
		return Event{}, nil, reject(Oversized, "", "the message has %d bytes, more than Pub/Sub can carry", len(m.Data))
	}
	p.data, p.message = m.Data, m
	p.emit, p.relay = true, service.PrivateMetadata
	p.document()
	if p.syntax != "" {
		return Event{}, nil, reject(MalformedPayload, "", "malformed JSON at byte offset %d (the first is 0): expected %s", p.syntaxAt, p.syntax)
	}
	p.complete()
	if p.fault != "" {
		return Event{}, nil, &Rejection{Reason: InvalidEvent, Detail: limit(p.fault), EventID: p.knownID()}
	}
	if detail := p.violation(service, publisher); detail != "" {
		return Event{}, nil, &Rejection{Reason: PolicyViolation, Detail: limit(detail), EventID: p.knownID()}
	}
	if service.RestrictsPrivate() {
		newCatalogueRules(p, service).relayListed()
	}
	if p.tooLarge {
		return Event{}, nil, reject(Oversized, p.knownID(), "the event is too large: expected less than %d bytes when the gateway renders it as JSON with its metadata", maxJSON)
	}
	start := len(buf)
	buf = p.assemble(buf)
	wire := buf[start:len(buf):len(buf)]
	if detail := tooLarge(wire, publisher); detail != "" {
		return Event{}, nil, &Rejection{Reason: Oversized, Detail: detail, EventID: p.knownID()}
	}
	return Event{UUID: p.id, Publisher: publisher, Wire: wire}, buf, nil
}

// document decodes the whole data.
func (p *pass) document() {
	if p.next() != '{' {
		p.fail(p.pos, "a JSON object"+encodingOf(p.data))
		return
	}
	p.topLevel()
	if p.syntax == "" && (p.next() != 0 || p.pos < len(p.data)) {
		p.fail(p.pos, "nothing after the object")
	}
}

// encodingOf names the encoding of data that is JSON in another encoding than plain UTF-8;
// "" if it recognises none.
func encodingOf(data []byte) string {
	for _, e := range []struct{ begin, what string }{
		{"\xef\xbb\xbf", "a byte order mark, which JSON must not have"},
		{"\xff\xfe", "UTF-16"},
		{"\xfe\xff", "UTF-16"},
		{"\x1f\x8b", "gzip"},
	} {
		if bytes.HasPrefix(data, []byte(e.begin)) {
			return ", and the data begins as " + e.what
		}
	}
	return ""
}

// complete adds the fields that the publisher left out, and finds required ones that are
// missing.
func (p *pass) complete() {
	if p.feature == nil {
		p.invalid("feature: missing; expected %s", nameRule)
	}
	if p.action == nil {
		p.invalid("action: missing; expected %s", nameRule)
	}
	if p.idState != idAbsent && p.hasTimestamp {
		return
	}
	originID, published := p.message.ID, p.message.PublishTime
	if o := p.sender.origin; o != nil {
		originID, published = o.id, o.published
	}
	if p.idState == idAbsent {
		p.id = deriveID(published, originID)
		p.idText = append(p.derived[:0], uuid.UUID(p.id).String()...)
	}
	if !p.hasTimestamp {
		var ok bool
		if p.timestamp, ok = instantOf(published); !ok {
			p.invalid("timestamp: missing, and the message's publish time is not within the years 0001 to 9999")
		}
	}
}

// knownID returns the event's id as text, or "" if the publisher's is not valid.
func (p *pass) knownID() string {
	if p.idState == idFaulty {
		return ""
	}
	return string(p.idText)
}
