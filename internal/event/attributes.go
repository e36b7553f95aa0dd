package event

import (
	"strconv"
	"strings"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// Attributes of a message on the topic. The decoder ignores the last two, which replayed
// messages have, and all others.
const (
	AttrSchemaVersion      = "schema_version"
	AttrServiceID          = "service_id"
	AttrServiceEnvironment = "service_environment"
	AttrServiceVersion     = "service_version"
	AttrTraceparent        = "traceparent"
	AttrGoogleTraceparent  = "googclient_traceparent"
	AttrReplayCount        = "replay_count"
	AttrOriginMessageID    = "origin_message_id"
	AttrOriginPublishTime  = "origin_publish_time"
	AttrReplayID           = "replay_id"
	AttrOriginRejectedAt   = "origin_rejected_at"
)

// SchemaVersion is the only version of the topic's messages so far.
const SchemaVersion = "1"

// Sender is the decoded form of a message's attributes. Messages with the same attributes
// share it.
type Sender struct {
	service   *policy.Service
	publisher Publisher
	rejection *Rejection // of all its messages; nil if the attributes are valid
	version   string     // of the service, valid UTF-8
	trace     string     // trace id
	origin    *origin    // nil unless the messages are replays
}

// origin identifies the message that was first published, of which this one is a replay.
type origin struct {
	id        string
	published time.Time
}

// Publisher returns who published the messages. It is empty if they are rejected because of
// their attributes.
func (s *Sender) Publisher() Publisher { return s.publisher }

// Sender decodes the attributes of a message.
func (d *Decoder) Sender(attributes map[string]string) *Sender {
	s := d.sender(attributes)
	return &s
}

func (d *Decoder) sender(attributes map[string]string) Sender {
	service, publisher, rejection := d.publisher(attributes)
	if rejection != nil {
		return Sender{rejection: rejection}
	}
	return Sender{
		service: service, publisher: publisher,
		version: validUTF8(attributes[AttrServiceVersion]), trace: traceID(attributes), origin: originOf(attributes),
	}
}

// publisher reads from the attributes who published the message.
func (d *Decoder) publisher(attributes map[string]string) (*policy.Service, Publisher, *Rejection) {
	if v, ok := attributes[AttrSchemaVersion]; ok && v != SchemaVersion {
		return nil, Publisher{}, reject(UnsupportedSchema, "", "attribute schema_version: expected %q or none, got %s", SchemaVersion, describe(v))
	}
	id, ok := attributes[AttrServiceID]
	if !ok {
		return nil, Publisher{}, reject(UnknownService, "", "attribute service_id: missing; expected the MSP service id of the publisher")
	}
	if !validServiceID(id) {
		return nil, Publisher{}, reject(UnknownService, "", "attribute service_id: expected an MSP service id of the form ^[a-z0-9-]+$, got %s", describe(id))
	}
	service, ok := d.services.Lookup(id)
	if !ok {
		return nil, Publisher{}, reject(UnknownService, "", "attribute service_id: %s is not listed in services.yaml", describe(id))
	}
	environment := attributes[AttrServiceEnvironment]
	if environment == "" || environment == d.defaultEnvironment {
		environment = d.defaultEnvironment // the same string for all, which compares quickly
	}
	if service.ID != "" {
		id = service.ID // for the same reason
	}
	return service, Publisher{id, validUTF8(environment)}, nil
}

func validServiceID(id string) bool {
	for i := range len(id) {
		if c := id[i]; c-'a' > 'z'-'a' && !isDigit(c) && c != '-' {
			return false
		}
	}
	return id != ""
}

// validUTF8 replaces invalid bytes. Pub/Sub delivers only valid attributes, but the gateway
// would end the stream on any other.
func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// traceID returns the trace id that the attributes have, or "".
func traceID(attributes map[string]string) string {
	if id := traceparentID(attributes[AttrTraceparent]); id != "" {
		return id
	}
	return traceparentID(attributes[AttrGoogleTraceparent])
}

// traceparentID returns the trace id of a W3C traceparent (00-traceid-parentid-flags), or
// "" if it is not valid. Later versions may have more after another hyphen.
func traceparentID(s string) string {
	const size = len("00-00000000000000000000000000000000-0000000000000000-00")
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return ""
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:55]
	if !lowerHex(version) || !lowerHex(trace) || !lowerHex(parent) || !lowerHex(flags) ||
		version == "ff" || allZeros(trace) || allZeros(parent) {
		return ""
	}
	if len(s) > size && (version == "00" || s[size] != '-') {
		return ""
	}
	return trace
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isDigit(c) && c-'a' > 'f'-'a' {
			return false
		}
	}
	return true
}

func allZeros(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}

// Replays returns how often a message with these attributes has been replayed from the
// dead-letter queue. It returns 0 if replay_count is missing or not a positive decimal
// number in plain form.
func Replays(attributes map[string]string) int {
	s := attributes[AttrReplayCount]
	if s == "" || s[0] < '1' || s[0] > '9' {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// Origin returns the message id and publish time from which the event's id and timestamp
// are derived. For a replay they are those of the message that was first published, else
// the message's own.
func (m Message) Origin() (id string, published time.Time) {
	if o := originOf(m.Attributes); o != nil {
		return o.id, o.published
	}
	return m.ID, m.PublishTime
}

// originOf returns the origin of a message with these attributes, or nil if it is not a
// replay.
func originOf(attributes map[string]string) *origin {
	if Replays(attributes) == 0 || attributes[AttrOriginMessageID] == "" {
		return nil
	}
	at, ok := parseInstant([]byte(attributes[AttrOriginPublishTime]))
	if !ok {
		return nil
	}
	return &origin{attributes[AttrOriginMessageID], time.Unix(at.seconds, int64(at.nanos)).UTC()}
}
