// Package load makes the benchmark's events. Each carries its number, so that
// every server can tell which one it sees without keeping any.
package load

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Plan says what is published. It travels to every process of the benchmark.
type Plan struct {
	// Events in total.
	Events int `json:"events"`
	// Publishers are the identities that take turns.
	Publishers int `json:"publishers"`
	// Padding bytes are added to each event as private metadata, but for honest ones.
	Padding int `json:"padding"`
	// Values has the padding consist of as many such JSON values as fit, rather than
	// of one text.
	Values string `json:"values"`
	// Flood has the first of two publishers send what takes much of the gateway's streams:
	// one of the kinds below; "": it is an ordinary plan.
	Flood string `json:"flood"`
	// HonestEvery makes every so many'th event of a flood one of the second publisher,
	// which is ordinary.
	HonestEvery int `json:"honest_every"`
	// RejectEvery makes every so many'th event invalid; 0: none.
	RejectEvery int `json:"reject_every"`
	// Rate of publishing, in events a second; 0: all are there at the start.
	Rate int `json:"rate"`
	// AwayAfter makes the gateway fail for good when it has recorded so many
	// events; 0: never.
	AwayAfter int `json:"away_after"`
	// Batch is how many events the plainest client of the gateway sends at once.
	Batch int `json:"batch"`
	// KeepStreams has it send all batches of a publisher in one stream.
	KeepStreams bool `json:"keep_streams"`
	// Latency is how long the gateway takes for a payload, in milliseconds.
	Latency int `json:"latency_ms"`
	// Capacity is how many payloads the gateway takes at once, and half of it while the
	// second third of the events is recorded. Further streams end with
	// ResourceExhausted. 0: any number.
	Capacity int `json:"capacity"`
	// Noisy makes the first publisher send all events but one in so many; 0: publishers
	// take turns.
	Noisy int `json:"noisy"`
	// WarmUp is how long events are published whose latencies do not count, in seconds.
	WarmUp int `json:"warm_up_s"`
	// PubsubDistance is how long bytes are on their way to Pub/Sub and back together,
	// in milliseconds.
	PubsubDistance int `json:"pubsub_distance_ms"`
}

// Environment is that of all publishers, but for FloodEnvironments.
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

// ServiceID names a publisher.
func ServiceID(n int) string { return fmt.Sprintf("svc-%03d", n) }

// Publisher of an event.
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

// CapacityAfter is how many payloads the gateway takes at once when so many events are
// recorded; 0: any number.
func (p Plan) CapacityAfter(recorded int) int {
	if phase := 3 * recorded / p.Events; phase == 1 {
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
	// ackIDSize is about that of Pub/Sub's own.
	ackIDSize = 180
	// numberOffset is where a number stands in an event's id.
	numberOffset = len(idPrefix)
	idSize       = numberOffset + numberSize
	stampLayout  = "2006-01-02T15:04:05.000000000Z"
)

// Number returns the number of the event with this id; -1 if it is none of ours.
func Number(id []byte) int {
	if len(id) != idSize || string(id[:numberOffset]) != idPrefix {
		return -1
	}
	return parse(id[numberOffset:])
}

// AckedNumber returns the number of the event with this ack id; -1 if it is none
// of ours.
func AckedNumber(ackID []byte) int {
	if len(ackID) != ackIDSize {
		return -1
	}
	return parse(ackID[:numberSize])
}

// NumberInData returns the number of the event with this data, and what is wrong
// if it is none of ours.
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

// template is an encoded entry of a StreamingPullResponse, and where its
// variable parts stand.
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
	case p.Flood != "" && publisher > 0: // the honest one
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
	// Seconds in five bytes, and nanoseconds in as many, whatever they are.
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

// environmentPrefix is how the environments of FloodEnvironments begin.
const environmentPrefix = "made-up-"

// environmentAt is where the number in the environment stands, -1 if it has none.
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

// Size of one encoded message, in bytes.
func (m *Maker) Size() int { return len(m.valid[0].bytes) }

// putVarint writes a number of at most 35 bits in five bytes.
func putVarint(at []byte, n uint64) {
	for i := range 5 {
		at[i] = byte(n>>(7*i)) | 0x80
	}
	at[4] &= 0x7f
}
