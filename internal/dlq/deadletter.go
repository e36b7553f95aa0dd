// Package dlq is the dead-letter queue. A Writer publishes rejected messages to the
// dead-letter topic, with the reason and the complete original message. A Queue reads
// them from the dead-letter subscription; a Walk selects some of them by a Filter; a
// Replayer publishes the originals again, and an Exporter writes them to a file.
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

// The attributes of a dead-lettered message. They are a promise to on-call.
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
	// AttrFirstRejectedAt is on an event that was replayed and rejected again.
	AttrFirstRejectedAt = "dlq_first_rejected_at"
	// AttrServicesDigest identifies the services list of the worker: see policy.Set.
	AttrServicesDigest = "dlq_services_digest"
	// AttrRestored is on a message without a reason that Restore has made: its id and its
	// times are those of the message that was removed.
	AttrRestored = "dlq_restored"
)

// The encodings of a dead-lettered message whose data is not the original data.
const (
	// EncodingGzip: the data is compressed.
	EncodingGzip = "gzip"
	// EncodingEnvelope: the data is a compressed line (see package ndjson) with the
	// original data and attributes.
	EncodingEnvelope = "envelope+gzip"
)

// Pub/Sub's limits.
const (
	maxAttributes = topic.MaxAttributes
	maxKey        = topic.MaxKeyBytes
	maxValue      = topic.MaxValueBytes
	// maxMessage is 10 MB as documented. Some servers accept 10 MiB, so that the writer
	// tries messages between the two.
	maxMessage      = topic.MaxMessageBytes
	maxMessageTried = 10 << 20
)

// ErrTooLarge means that a dead-lettered message cannot be made to fit.
var ErrTooLarge = errors.New("the dead-lettered message does not fit into a Pub/Sub message, even compressed")

// ErrBroken means that building a dead-lettered message panicked, which is a bug.
var ErrBroken = errors.New("the dead-lettered message could not be made")

// DeadLetter is a rejected message for the dead-letter queue.
type DeadLetter struct {
	// The original message.
	MessageID   string
	PublishTime time.Time
	Data        []byte
	Attributes  map[string]string
	OrderingKey string

	// Rejection says why it is rejected.
	Rejection event.Rejection
	// RejectedAt is the time of the rejection.
	RejectedAt time.Time
	// Attempts is how often the event was submitted.
	Attempts int
}

// Name returns the feature and the action that the data gives, as far as it can be
// read. They may be anything, because the event may be invalid.
func (d *DeadLetter) Name() (feature, action string) {
	feature, action, _ = peek(d.Data)
	return clip(feature), clip(action)
}

// Origin says which worker rejects the messages.
type Origin struct {
	Subscription  string // full name
	WorkerVersion string
	// ServicesDigest identifies the services list; empty if it is not known.
	ServicesDigest string
}

// build makes the message for the dead-letter topic.
func build(d *DeadLetter, origin Origin) (*pubsubpb.PubsubMessage, error) {
	return pack(ndjson.Message{Attributes: d.Attributes, Data: d.Data, OrderingKey: d.OrderingKey}, ownAttributes(d, origin))
}

// pack makes a dead-lettered message of the original one and of the queue's own
// attributes. It compresses data that does not fit, and uses an envelope if the names of
// attributes collide.
func pack(original ndjson.Message, own map[string]string) (*pubsubpb.PubsubMessage, error) {
	attributes, plain := merge(original.Attributes, own)
	plain = plain && len(original.OrderingKey) <= maxValue
	if plain {
		m := &pubsubpb.PubsubMessage{Data: original.Data, Attributes: attributes}
		if topic.Size(m) <= maxMessage {
			return m, nil
		}
		compressed, err := compress(original.Data)
		if err != nil {
			return nil, err
		}
		attributes[AttrEncoding] = EncodingGzip
		if len(attributes) <= maxAttributes {
			return smaller(m, &pubsubpb.PubsubMessage{Data: compressed, Attributes: attributes})
		}
	}

	text, err := ndjson.Append(nil, ndjson.Message{Attributes: original.Attributes, Data: original.Data, OrderingKey: original.OrderingKey})
	if err != nil {
		return nil, fmt.Errorf("put a dead-lettered message into an envelope: %w", err)
	}
	compressed, err := compress(text)
	if err != nil {
		return nil, err
	}
	own[AttrEncoding] = EncodingEnvelope
	// The publisher's identity stays outside, because subscriptions filter by it.
	for _, key := range []string{event.AttrServiceID, event.AttrServiceEnvironment, event.AttrServiceVersion} {
		if value, ok := original.Attributes[key]; ok && len(value) <= maxValue {
			own[key] = value
		}
	}
	if len(original.OrderingKey) > maxValue {
		delete(own, AttrOrderingKey) // it is in the envelope
	}
	return smaller(nil, &pubsubpb.PubsubMessage{Data: compressed, Attributes: own})
}

// smaller returns the compressed message, or the plain one if only the plain one may fit.
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

// ownAttributes are the attributes that the worker adds.
func ownAttributes(d *DeadLetter, origin Origin) map[string]string {
	own := map[string]string{
		AttrReason:        string(d.Rejection.Reason),
		AttrDetail:        fit(d.Rejection.Detail),
		AttrRejectedAt:    d.RejectedAt.UTC().Format(time.RFC3339Nano),
		AttrAttempts:      strconv.Itoa(d.Attempts),
		AttrMessageID:     fit(d.MessageID),
		AttrPublishTime:   d.PublishTime.UTC().Format(time.RFC3339Nano),
		AttrSubscription:  fit(origin.Subscription),
		AttrWorkerVersion: fit(origin.WorkerVersion),
	}
	if d.Rejection.EventID != "" {
		own[AttrEventID] = fit(d.Rejection.EventID)
	}
	if d.OrderingKey != "" {
		own[AttrOrderingKey] = d.OrderingKey
	}
	if origin.ServicesDigest != "" {
		own[AttrServicesDigest] = origin.ServicesDigest
	}
	if replays := event.Replays(d.Attributes); replays > 0 {
		own[AttrReplays] = strconv.Itoa(replays)
		if first := d.Attributes[event.AttrOriginRejectedAt]; isInstant(first) {
			own[AttrFirstRejectedAt] = first
		}
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

// merge joins the original attributes with the worker's own. ok is false if Pub/Sub
// would refuse the result, or if the original could not be read from it.
func merge(original, own map[string]string) (all map[string]string, ok bool) {
	// One place is kept for the encoding.
	if len(original)+len(own) >= maxAttributes {
		return nil, false
	}
	replayed := replayMarks(original)
	all = make(map[string]string, len(original)+len(own)+1)
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

// reserved reports whether the name of an attribute belongs to the queue. A
// publisher's attribute of such a name needs an envelope.
func reserved(key string) bool {
	return strings.HasPrefix(key, "dlq_") || strings.HasPrefix(key, "origin_") || key == event.AttrReplayCount
}

// replayMarks reports whether a replay has set the reserved attributes of a message.
func replayMarks(attributes map[string]string) bool {
	if event.Replays(attributes) == 0 || attributes[event.AttrOriginMessageID] == "" || attributes[event.AttrOriginPublishTime] == "" {
		return false
	}
	for key := range attributes {
		if strings.HasPrefix(key, "origin_") && key != event.AttrOriginMessageID && key != event.AttrOriginPublishTime && key != event.AttrOriginRejectedAt {
			return false
		}
	}
	return true
}

func compress(data []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("compress a dead-lettered message: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress a dead-lettered message: %w", err)
	}
	return buf.Bytes(), nil
}
