package dlq

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
)

// The attributes that Pub/Sub's own dead-letter policy adds.
const (
	nativePrefix      = "CloudPubSubDeadLetterSource"
	nativeAttempts    = nativePrefix + "DeliveryCount"
	nativePublishTime = nativePrefix + "TopicPublishTime"
	nativeSource      = nativePrefix + "Subscription"
)

// The limits of a compressed original message. The original came from Pub/Sub, so that
// its size is at most that of a Pub/Sub message. A larger one is an attack or an accident.
const (
	// maxRestoredAttributes bounds all names and values together, in bytes.
	maxRestoredAttributes = maxAttributes * (maxKey + maxValue)
	// maxRestoredLine bounds an envelope with such a message: data in base64, and
	// attributes and an ordering key of which JSON escapes each byte.
	maxRestoredLine = maxMessageTried/3*4 + 6*(maxRestoredAttributes+maxOrderingKey) + 16<<10
	maxOrderingKey  = 1024
)

var errRestored = errors.New("it is larger than any Pub/Sub message can be")

// carried refuses a message that is larger than Pub/Sub's limits.
func carried(m ndjson.Message) error {
	attributes := 0
	for key, value := range m.Attributes {
		attributes += len(key) + len(value)
	}
	if len(m.Data) > maxMessageTried || len(m.Attributes) > maxAttributes || attributes > maxRestoredAttributes || len(m.OrderingKey) > maxOrderingKey {
		return errRestored
	}
	return nil
}

// Stored is a dead-lettered message as it is in the queue.
type Stored struct {
	// ID and PublishTime are those of the message in the queue.
	ID          string
	PublishTime time.Time

	Reason   event.Reason
	Detail   string
	Attempts int
	// RejectedAt is PublishTime if the message does not say it.
	RejectedAt time.Time
	// FirstRejectedAt is the time of the event's first rejection, before all replays. It
	// is RejectedAt if the message does not say it.
	FirstRejectedAt time.Time
	// ServicesDigest identifies the services list of the worker that rejected the event;
	// empty if the message does not say it.
	ServicesDigest string
	// Replays is how often the event was replayed before its rejection.
	Replays       int
	EventID       string
	Subscription  string
	WorkerVersion string

	// OriginalID and OriginalPublishTime are those of the rejected message, or ID and
	// PublishTime if the message in the queue does not say them.
	OriginalID          string
	OriginalPublishTime time.Time
	// Original is the rejected message. If Broken says why it cannot be restored,
	// Original is the message in the queue.
	Original ndjson.Message
	Broken   error

	// Added are the attributes that the queue added to the original ones.
	Added map[string]string

	Service, Environment string
	Feature, Action      string

	fault fault.Fault // the result of FaultOf, from its first call on
}

// Read reads a message in the queue, also one that the worker did not write. An event
// that does not name its environment belongs to defaultEnvironment.
func Read(m *pubsubpb.PubsubMessage, defaultEnvironment string) *Stored {
	a := m.GetAttributes()
	s := &Stored{
		ID:          m.GetMessageId(),
		PublishTime: m.GetPublishTime().AsTime(),
		Reason:      ReasonUnknown,
		OriginalID:  m.GetMessageId(),
		Original:    ndjson.Message{Attributes: a, Data: m.GetData(), OrderingKey: m.GetOrderingKey()},
	}
	s.RejectedAt, s.OriginalPublishTime = s.PublishTime, s.PublishTime
	switch {
	case a[AttrReason] != "":
		s.readOwn(m)
	case a[nativeAttempts] != "" || a[nativeSource] != "":
		s.readNative(a)
	}
	if s.Reason == ReasonUnknown || s.Reason == ReasonAttempts {
		s.readRestored(a)
	}
	if s.FirstRejectedAt.IsZero() || s.FirstRejectedAt.After(s.RejectedAt) {
		s.FirstRejectedAt = s.RejectedAt
	}
	s.Service = s.Original.Attributes[event.AttrServiceID]
	if s.Environment = s.Original.Attributes[event.AttrServiceEnvironment]; s.Environment == "" {
		s.Environment = defaultEnvironment
	}
	s.readEvent()
	return s
}

func (s *Stored) readOwn(m *pubsubpb.PubsubMessage) {
	a := m.GetAttributes()
	s.Reason, s.Detail = event.Reason(a[AttrReason]), fit(a[AttrDetail])
	s.Attempts, _ = strconv.Atoi(a[AttrAttempts]) // 0 if it is not a number
	s.Replays, _ = strconv.Atoi(a[AttrReplays])
	s.Replays = max(0, s.Replays)
	s.EventID, s.Subscription, s.WorkerVersion = a[AttrEventID], fit(a[AttrSubscription]), fit(a[AttrWorkerVersion])
	s.RejectedAt = instant(a[AttrRejectedAt], s.RejectedAt)
	s.FirstRejectedAt = instant(a[AttrFirstRejectedAt], s.RejectedAt)
	s.ServicesDigest = Word(fit(a[AttrServicesDigest]))
	if id := a[AttrMessageID]; id != "" {
		s.OriginalID = id
		s.OriginalPublishTime = instant(a[AttrPublishTime], s.OriginalPublishTime)
	}
	s.Added = with(a, "dlq_")
	original, err := unpack(m)
	if err != nil {
		s.Broken = err
		return
	}
	s.Original = original
}

func (s *Stored) readNative(a map[string]string) {
	s.Reason = ReasonAttempts
	s.Attempts, _ = strconv.Atoi(a[nativeAttempts])
	s.Subscription = fit(a[nativeSource])
	s.Detail = fmt.Sprintf("Pub/Sub's own dead-letter policy took the message after %d deliveries to the subscription %s; no worker has judged it", s.Attempts, s.Subscription)
	s.OriginalPublishTime = instant(a[nativePublishTime], s.OriginalPublishTime)
	s.Original.Attributes, s.Added = without(a, nativePrefix), with(a, nativePrefix)
	s.Replays = event.Replays(s.Original.Attributes)
	if s.Replays > 0 {
		s.FirstRejectedAt = instant(s.Original.Attributes[event.AttrOriginRejectedAt], s.RejectedAt)
	}
}

// readRestored reads the id and the times that Restore has kept of a message that the
// worker did not write.
func (s *Stored) readRestored(a map[string]string) {
	id, published, rejected := a[AttrMessageID], instant(a[AttrPublishTime], time.Time{}), instant(a[AttrRejectedAt], time.Time{})
	if a[AttrReason] != "" || a[AttrRestored] == "" || id == "" || published.IsZero() || rejected.IsZero() {
		return
	}
	s.OriginalID, s.OriginalPublishTime, s.RejectedAt = id, published, rejected
	if s.Replays == 0 {
		s.FirstRejectedAt = rejected
	}
	original := maps.Clone(s.Original.Attributes)
	added := maps.Clone(s.Added)
	if added == nil {
		added = map[string]string{}
	}
	for _, key := range restoredMarks {
		added[key] = a[key]
		delete(original, key)
	}
	s.Original.Attributes, s.Added = original, added
}

// unpack is the inverse of pack.
func unpack(m *pubsubpb.PubsubMessage) (ndjson.Message, error) {
	a := m.GetAttributes()
	data := m.GetData()
	switch encoding := a[AttrEncoding]; encoding {
	case "":
	case EncodingGzip:
		var err error
		if data, err = decompress(data, maxMessageTried); err != nil {
			return ndjson.Message{}, fmt.Errorf("the message's data cannot be decompressed: %w", err)
		}
	case EncodingEnvelope:
		text, err := decompress(data, maxRestoredLine)
		if err != nil {
			return ndjson.Message{}, fmt.Errorf("the message's data cannot be decompressed: %w", err)
		}
		original, err := ndjson.Parse(text)
		if err == nil {
			err = carried(original)
		}
		if err != nil {
			return ndjson.Message{}, fmt.Errorf("the message's envelope cannot be read: %w", err)
		}
		return original, nil
	default:
		return ndjson.Message{}, fmt.Errorf("the message's encoding %q is not known to this version", Word(encoding))
	}
	return ndjson.Message{Data: data, Attributes: without(a, "dlq_"), OrderingKey: a[AttrOrderingKey]}, nil
}

func decompress(data []byte, limit int) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(out) > limit {
		return nil, errRestored
	}
	return out, nil
}

func with(attributes map[string]string, prefix string) map[string]string {
	out := map[string]string{}
	for k, v := range attributes {
		if strings.HasPrefix(k, prefix) {
			out[k] = v
		}
	}
	return out
}

func without(attributes map[string]string, prefix string) map[string]string {
	out := make(map[string]string, len(attributes))
	for k, v := range attributes {
		if !strings.HasPrefix(k, prefix) {
			out[k] = v
		}
	}
	return out
}

// isInstant reports whether a text is a time as the worker writes it.
func isInstant(text string) bool { return !instant(text, time.Time{}).IsZero() }

func instant(text string, otherwise time.Time) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return otherwise
	}
	return t.UTC()
}

// readEvent reads the feature, the action and the id from the data.
func (s *Stored) readEvent() {
	if s.Broken != nil || len(s.Original.Data) == 0 {
		return
	}
	feature, action, id := peek(s.Original.Data)
	s.Feature, s.Action = clip(feature), clip(action)
	if s.EventID == "" {
		s.EventID = clip(id)
	}
}

// peek returns three fields of a JSON object, the first of each name. It returns
// nothing for other data.
func peek(data []byte) (feature, action, id string) {
	d := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true))
	if token, err := d.ReadToken(); err != nil || token.Kind() != '{' {
		return "", "", ""
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return "", "", ""
		}
		var into *string
		switch name.String() {
		case "feature":
			into = &feature
		case "action":
			into = &action
		case "id":
			into = &id
		}
		if into == nil || *into != "" || d.PeekKind() != '"' {
			if d.SkipValue() != nil {
				return "", "", ""
			}
			continue
		}
		value, err := d.ReadToken()
		if err != nil {
			return "", "", ""
		}
		*into = value.String()
	}
	if _, err := d.ReadToken(); err != nil {
		return "", "", ""
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return "", "", ""
	}
	return feature, action, id
}

// clip shortens a text that the worker has not written.
func clip(s string) string { return fault.Clip(s, 120) }
