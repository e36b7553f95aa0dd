// Package dlq is the dead-letter queue: it writes what cannot be delivered to
// the dead-letter topic, with the reason and the original message in full.
package dlq

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// The attributes of a dead letter. They are a promise to on-call.
const (
	AttrReason        = "dlq_reason"
	AttrDetail        = "dlq_detail"
	AttrRejectedAt    = "dlq_rejected_at"
	AttrAttempts      = "dlq_attempts"
	AttrMessageID     = "dlq_message_id"
	AttrPublishTime   = "dlq_publish_time"
	AttrSubscription  = "dlq_subscription"
	AttrEventID       = "dlq_event_id"
	AttrWorkerVersion = "dlq_worker_version"
	AttrReplays       = "dlq_replays"
	AttrOrderingKey   = "dlq_ordering_key"
	AttrEncoding      = "dlq_encoding"
)

// The encodings of a dead letter whose data is not the original as it is.
const (
	// EncodingGzip: the data is compressed.
	EncodingGzip = "gzip"
	// EncodingEnvelope: the data is the compressed line that holds the original
	// data and attributes.
	EncodingEnvelope = "envelope+gzip"
)

// Pub/Sub's limits.
const (
	maxAttributes = topic.MaxAttributes
	maxKey        = topic.MaxKeyBytes
	maxValue      = topic.MaxValueBytes
	// maxMessage is 10 MB as documented; some servers take 10 MiB, so what lies
	// between is tried.
	maxMessage      = topic.MaxMessageBytes
	maxMessageTried = 10 << 20
)

// ErrTooLarge means that a dead letter cannot be made to fit.
var ErrTooLarge = errors.New("the dead letter does not fit into a Pub/Sub message, even compressed")

// ErrBroken means that a dead letter could not be made, which must not happen.
var ErrBroken = errors.New("the dead letter could not be made")

// Letter is a message that is to be a dead letter.
type Letter struct {
	// The original message.
	MessageID   string
	PublishTime time.Time
	Data        []byte
	Attributes  map[string]string
	OrderingKey string

	// Why it is rejected.
	Rejection event.Rejection
	// RejectedAt is when.
	RejectedAt time.Time
	// Attempts is how often it was submitted.
	Attempts int
}

// Origin is where letters come from.
type Origin struct {
	Subscription  string // full name
	WorkerVersion string
}

// build makes the message for the dead-letter topic.
func build(l *Letter, origin Origin) (*pubsubpb.PubsubMessage, error) {
	own := ownAttributes(l, origin)
	attributes, plain := merge(l.Attributes, own)
	plain = plain && len(l.OrderingKey) <= maxValue
	if plain {
		m := &pubsubpb.PubsubMessage{Data: l.Data, Attributes: attributes}
		if topic.Size(m) <= maxMessage {
			return m, nil
		}
		compressed, err := compress(l.Data)
		if err != nil {
			return nil, err
		}
		attributes[AttrEncoding] = EncodingGzip
		if len(attributes) <= maxAttributes {
			return smaller(m, &pubsubpb.PubsubMessage{Data: compressed, Attributes: attributes})
		}
	}

	text, err := ndjson.Append(nil, ndjson.Message{Attributes: l.Attributes, Data: l.Data, OrderingKey: l.OrderingKey})
	if err != nil {
		return nil, fmt.Errorf("put a dead letter into an envelope: %w", err)
	}
	compressed, err := compress(text)
	if err != nil {
		return nil, err
	}
	own[AttrEncoding] = EncodingEnvelope
	// The publisher's identity stays outside: subscriptions filter by it.
	for _, key := range []string{event.AttrServiceID, event.AttrServiceEnvironment, event.AttrServiceVersion} {
		if value, ok := l.Attributes[key]; ok && len(value) <= maxValue {
			own[key] = value
		}
	}
	if len(l.OrderingKey) > maxValue {
		delete(own, AttrOrderingKey) // it is in the envelope
	}
	return smaller(nil, &pubsubpb.PubsubMessage{Data: compressed, Attributes: own})
}

// smaller returns the compressed message, or the plain one when compression
// does not help to fit.
func smaller(plain, compressed *pubsubpb.PubsubMessage) (*pubsubpb.PubsubMessage, error) {
	switch {
	case topic.Size(compressed) <= maxMessage:
		return compressed, nil
	case plain != nil && topic.Size(plain) <= maxMessageTried:
		delete(plain.GetAttributes(), AttrEncoding)
		return plain, nil
	case topic.Size(compressed) <= maxMessageTried:
		return compressed, nil
	}
	return nil, ErrTooLarge
}

// ownAttributes says why the message is here and where it came from.
func ownAttributes(l *Letter, origin Origin) map[string]string {
	own := map[string]string{
		AttrReason:        string(l.Rejection.Reason),
		AttrDetail:        fit(l.Rejection.Detail),
		AttrRejectedAt:    l.RejectedAt.UTC().Format(time.RFC3339Nano),
		AttrAttempts:      strconv.Itoa(l.Attempts),
		AttrMessageID:     fit(l.MessageID),
		AttrPublishTime:   l.PublishTime.UTC().Format(time.RFC3339Nano),
		AttrSubscription:  fit(origin.Subscription),
		AttrWorkerVersion: fit(origin.WorkerVersion),
	}
	if l.Rejection.EventID != "" {
		own[AttrEventID] = fit(l.Rejection.EventID)
	}
	if l.OrderingKey != "" {
		own[AttrOrderingKey] = l.OrderingKey
	}
	if replays := event.Replays(l.Attributes); replays > 0 {
		own[AttrReplays] = strconv.Itoa(replays)
	}
	return own
}

// fit cuts a value to what an attribute may hold.
func fit(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxValue {
		return s
	}
	end := maxValue
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// merge joins the original attributes with our own and reports whether the
// result is one that Pub/Sub takes and from which the original can be read.
func merge(original, own map[string]string) (map[string]string, bool) {
	// One place is kept for the encoding.
	if len(original)+len(own) >= maxAttributes {
		return nil, false
	}
	replayed := replayMarks(original)
	all := make(map[string]string, len(original)+len(own)+1)
	for key, value := range original {
		switch {
		case key == "" || len(key) > maxKey || len(value) > maxValue:
			return nil, false
		case strings.HasPrefix(key, "goog") && !strings.HasPrefix(key, "googclient_"):
			return nil, false
		case reserved(key) && !replayed:
			return nil, false
		case strings.HasPrefix(key, "dlq_"):
			return nil, false
		}
		all[key] = value
	}
	maps.Copy(all, own)
	return all, true
}

// reserved reports whether an attribute's name belongs to the queue, so that a
// publisher's own of that name cannot stand beside ours.
func reserved(key string) bool {
	return strings.HasPrefix(key, "dlq_") || strings.HasPrefix(key, "origin_") || key == event.AttrReplayCount
}

// replayMarks reports whether the names of replay that a message carries are the
// three that a replay gave it.
func replayMarks(attributes map[string]string) bool {
	if event.Replays(attributes) == 0 || attributes[event.AttrOriginMessageID] == "" || attributes[event.AttrOriginPublishTime] == "" {
		return false
	}
	for key := range attributes {
		if strings.HasPrefix(key, "origin_") && key != event.AttrOriginMessageID && key != event.AttrOriginPublishTime {
			return false
		}
	}
	return true
}

func compress(data []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("compress a dead letter: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress a dead letter: %w", err)
	}
	return buf.Bytes(), nil
}
