// Package load makes the benchmark's events. Each has its number in it, so that every
// server can identify it without storing any.
package load

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Plan describes the published events. Every process of the benchmark gets it.
type Plan struct {
	// Events in total.
	Events int `json:"events"`
	// Publishers are the identities that take turns.
	Publishers int `json:"publishers"`
	// Padding bytes are added to each event as private metadata, except to honest ones.
	Padding int `json:"padding"`
	// Values fills the padding with this JSON value, as often as it fits, instead of one
	// text.
	Values string `json:"values"`
	// Flood is the kind of events with which the first of two publishers needs very many
	// streams. The kinds are below; "" means no flood.
	Flood string `json:"flood"`
	// HonestEvery makes every n-th event of a flood an ordinary one of the second
	// publisher.
	HonestEvery int `json:"honest_every"`
	// RejectEvery makes every n-th event invalid; 0 makes none invalid.
	RejectEvery int `json:"reject_every"`
	// Rate is how many events are published per second; 0 publishes all at the start.
	Rate int `json:"rate"`
	// FailAfter makes the gateway fail for good once it has recorded this many events; 0
	// means never.
	FailAfter int `json:"fail_after"`
	// Batch is how many events the simplest client of the gateway sends at once.
	Batch int `json:"batch"`
	// KeepStreams makes it send all batches of a publisher over one stream.
	KeepStreams bool `json:"keep_streams"`
	// Latency is how long the gateway takes for a payload, in milliseconds.
	Latency int `json:"latency_ms"`
	// Capacity is how many payloads the gateway takes at once; while the second third of
	// the events is recorded, it takes half as many. Further streams end with
	// ResourceExhausted. 0 means no limit.
	Capacity int `json:"capacity"`
	// SteadyCapacity keeps the capacity as it is all the time.
	SteadyCapacity bool `json:"steady_capacity"`
	// Noisy makes the first publisher send all events except every n-th; 0 means that
	// publishers take turns.
	Noisy int `json:"noisy"`
	// WarmUp is the time, in seconds, in which the latencies of published events do not
	// count.
	WarmUp int `json:"warm_up_s"`
	// PubsubDistance is the round-trip time to Pub/Sub, in milliseconds.
	PubsubDistance int `json:"pubsub_distance_ms"`
}

// Environment is the environment of all publishers, except for FloodEnvironments.
const Environment = "prod"

const (
	// FloodNone is ordinary events, to compare with.
	FloodNone = "none"
	// FloodEnvironments is events with an environment each.
	FloodEnvironments = "environments"
	// FloodID is events that all have the nil UUID.
	FloodID = "id"
)

const nilUUID = "00000000-0000-0000-0000-000000000000"

// ServiceID returns the id of a publisher.
func ServiceID(n int) string { return fmt.Sprintf("svc-%03d", n) }

// Publisher returns the publisher of an event.
func (p Plan) Publisher(event int) int {
	switch {
	case p.Honest(event):
		return 1
	case p.Flood != "":
		return 0
	case p.Noisy == 0:
		return event % p.Publishers
	case event%p.Noisy > 0:
		return 0
	default:
		return 1 + event/p.Noisy%(p.Publishers-1)
	}
}

// Honest reports whether an event stands beside a flood.
func (p Plan) Honest(event int) bool { return p.Flood != "" && event%p.HonestEvery == p.HonestEvery-1 }

// Quiet reports whether the event is of another publisher than a noisy one.
func (p Plan) Quiet(event int) bool { return p.Noisy == 0 || p.Publisher(event) > 0 }

// CapacityAfter returns how many payloads the gateway takes at once after this many events;
// 0 means no limit.
func (p Plan) CapacityAfter(recorded int) int {
	if phase := 3 * recorded / p.Events; phase == 1 && !p.SteadyCapacity {
		return p.Capacity / 2
	}
	return p.Capacity
}

// Valid reports whether the worker should submit the event.
func (p Plan) Valid(event int) bool { return p.RejectEvery == 0 || event%p.RejectEvery != 0 }

// Rejected is how many events are invalid.
func (p Plan) Rejected() int {
	if p.RejectEvery == 0 {
		return 0
	}
	return (p.Events + p.RejectEvery - 1) / p.RejectEvery
}

const (
	idPrefix   = "01a1f872-5b00-7578-ad5d-"
	numberSize = 12
	// ackIDSize is about the size of Pub/Sub's own.
	ackIDSize = 180
	// numberOffset is where a number stands in an event's id.
	numberOffset = len(idPrefix)
	idSize       = numberOffset + numberSize
	stampLayout  = "2006-01-02T15:04:05.000000000Z"
)

// Number returns the number of the event with this id, or -1 if the benchmark did not make
// it.
func Number(id []byte) int {
	if len(id) != idSize || string(id[:numberOffset]) != idPrefix {
		return -1
	}
	return parse(id[numberOffset:])
}

// AckedNumber returns the number of the event with this ack id, or -1 if the benchmark did
// not make it.
func AckedNumber(ackID []byte) int {
	if len(ackID) != ackIDSize {
		return -1
	}
	return parse(ackID[:numberSize])
}

// NumberInData returns the number of the event with this data, or -1 if the benchmark did
// not make it.
func NumberInData(data []byte) int {
	at := strings.Index(string(data), idPrefix)
	if at < 0 || at+idSize > len(data) {
		return -1
	}
	return Number(data[at : at+idSize])
}

func parse(hexadecimal []byte) int {
	n := 0
	for _, c := range hexadecimal {
		switch {
		case c-'0' <= 9:
			n = n<<4 | int(c-'0')
		case c-'a' <= 5:
			n = n<<4 | int(c-'a'+10)
		default:
			return -1
		}
	}
	return n
}

// put writes a number as numberSize hexadecimal digits.
func put(at []byte, number int) {
	var b [numberSize / 2]byte
	for i := range b {
		b[len(b)-1-i] = byte(number >> (8 * i))
	}
	hex.Encode(at, b[:])
}

// template is an encoded entry of a StreamingPullResponse, with the places of its variable
// parts.
type template struct {
	bytes                                  []byte
	ackID, eventID, messageID, stamp, time int
	environment                            int // -1: it is always the same
}

// Maker encodes messages.
type Maker struct {
	plan           Plan
	valid, invalid []template // by publisher
}

// NewMaker returns a maker of the plan's messages.
func NewMaker(p Plan) *Maker {
	m := &Maker{plan: p}
	for n := range p.Publishers {
		m.valid = append(m.valid, newTemplate(p, n, "cody.webview.request"))
		m.invalid = append(m.invalid, newTemplate(p, n, "Cody.webview.request"))
	}
	return m
}

func newTemplate(p Plan, publisher int, feature string) template {
	padding := ""
	switch {
	case p.Flood != "" && publisher > 0: // an honest publisher
	case p.Values != "":
		values := strings.Repeat(p.Values+",", max(0, p.Padding/(len(p.Values)+1)-1)) + p.Values
		padding = `"privateMetadata":{"padding":[` + values + `]},`
	case p.Padding > 0:
		padding = `"privateMetadata":{"padding":"` + strings.Repeat("x", p.Padding) + `"},`
	}
	id, environment, anonymous := idPrefix+strings.Repeat("0", numberSize), Environment, "455d46ae-e8bd-4c11-881d-1a76da064151"
	if p.Flood == FloodEnvironments && publisher == 0 {
		environment = environmentPrefix + strings.Repeat("0", numberSize)
	}
	if p.Flood == FloodID && publisher == 0 {
		id, anonymous = nilUUID, id // the number stands elsewhere
	}
	stamp := time.Unix(0, 0).UTC().Format(stampLayout)
	data := `{"feature":"` + feature + `","action":"certError","id":"` + id +
		`","timestamp":"` + stamp + `","metadata":{"tier":-1,"durationMs":3918},` + padding +
		`"user":{"anonymousUserId":"` + anonymous + `"},"client":{"name":"VSCode.Cody","version":"1.84.0"},` +
		`"interaction":{"traceId":"1386b39c59355d4cc09710021d13be3c"}}`

	var message []byte
	bytesField := func(b []byte, number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
	}
	message = bytesField(message, 1, []byte(data))
	for _, attribute := range [][2]string{
		{"service_id", ServiceID(publisher)}, {"service_environment", environment}, {"service_version", "2026.46.1"},
	} {
		entry := bytesField(nil, 1, []byte(attribute[0]))
		message = bytesField(message, 2, bytesField(entry, 2, []byte(attribute[1])))
	}
	message = bytesField(message, 3, []byte("m"+strings.Repeat("0", numberSize)))
	// Five bytes each for seconds and nanoseconds, whatever their values.
	message = bytesField(message, 4, []byte{1 << 3, 0x80, 0x80, 0x80, 0x80, 0, 2 << 3, 0x80, 0x80, 0x80, 0x80, 0})

	var received []byte
	received = bytesField(received, 1, []byte(strings.Repeat("0", numberSize)+strings.Repeat("A", ackIDSize-numberSize)))
	received = bytesField(received, 2, message)
	b := bytesField(nil, 1, received)
	at := func(part string) int { return strings.Index(string(b), part) }
	return template{
		bytes:     b,
		ackID:     at(strings.Repeat("A", ackIDSize-numberSize)) - numberSize,
		eventID:   at(idPrefix) + numberOffset,
		messageID: at("m"+strings.Repeat("0", numberSize)) + 1,
		stamp:     at(stamp),
		time:      len(b) - 12,

		environment: environmentAt(b),
	}
}

// environmentPrefix begins the environments of FloodEnvironments.
const environmentPrefix = "made-up-"

// environmentAt returns the place of the number in the environment, or -1 if it has none.
func environmentAt(message []byte) int {
	if at := strings.Index(string(message), environmentPrefix); at >= 0 {
		return at + len(environmentPrefix)
	}
	return -1
}

// Append appends the message as an entry of a StreamingPullResponse, or of a
// PullResponse.
func (m *Maker) Append(b []byte, event int, published time.Time) []byte {
	t := &m.valid[m.plan.Publisher(event)]
	if !m.plan.Valid(event) {
		t = &m.invalid[m.plan.Publisher(event)]
	}
	start := len(b)
	b = append(b, t.bytes...)
	at := b[start:]
	put(at[t.ackID:], event)
	put(at[t.eventID:], event)
	put(at[t.messageID:], event)
	if t.environment >= 0 {
		put(at[t.environment:], event)
	}
	published.UTC().AppendFormat(at[t.stamp:t.stamp], stampLayout)
	putVarint(at[t.time+1:], uint64(published.Unix()))
	putVarint(at[t.time+7:], uint64(published.Nanosecond()))
	return b
}

// Size returns the size of one encoded message, in bytes.
func (m *Maker) Size() int { return len(m.valid[0].bytes) }

// putVarint writes a number of at most 35 bits in five bytes.
func putVarint(at []byte, n uint64) {
	for i := range 5 {
		at[i] = byte(n>>(7*i)) | 0x80
	}
	at[4] &= 0x7f
}
