package dlq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// restoredMarks are the attributes that keep the id and the times of a message that has
// no reason.
var restoredMarks = []string{AttrRestored, AttrMessageID, AttrPublishTime, AttrRejectedAt}

// ErrNotDeadLettered means that a line was not written by an export or a backup of the
// queue.
var ErrNotDeadLettered = errors.New("it is no line of an export or a backup of the dead-letter queue")

// Restore returns the message of a line, as it was in the queue: the same original
// message, reason, times and ids. Only Pub/Sub's own id of the message in the queue is
// new.
func Restore(line ndjson.Message) (*pubsubpb.PubsubMessage, error) {
	m, err := restored(line)
	if err != nil {
		return nil, err
	}
	// Some servers accept more bytes than is documented: see maxMessage.
	small := &pubsubpb.PubsubMessage{Data: m.GetData()[:min(1, len(m.GetData()))], Attributes: m.GetAttributes(), OrderingKey: m.GetOrderingKey()}
	if err := topic.Check(small); err != nil {
		return nil, err
	}
	if topic.Size(m) > maxMessageTried {
		return nil, ErrTooLarge
	}
	return m, nil
}

func restored(line ndjson.Message) (*pubsubpb.PubsubMessage, error) {
	d := line.DeadLetter
	original := ndjson.Message{Attributes: line.Attributes, Data: line.Data, OrderingKey: line.OrderingKey}
	if d == nil {
		// An export writes a message that it cannot decode exactly as the queue has it.
		if line.Attributes[AttrReason] == "" {
			return nil, ErrNotDeadLettered
		}
		return &pubsubpb.PubsubMessage{Data: line.Data, Attributes: line.Attributes, OrderingKey: line.OrderingKey}, nil
	}
	for key := range d.Attributes {
		if !strings.HasPrefix(key, "dlq_") && !strings.HasPrefix(key, nativePrefix) {
			return nil, fmt.Errorf("deadLetter.attributes: expected names of the queue, got one of %d bytes", len(key))
		}
	}
	if d.Attributes[AttrReason] != "" {
		own := maps.Clone(d.Attributes)
		delete(own, AttrEncoding)
		return pack(original, own)
	}
	attributes := make(map[string]string, len(original.Attributes)+len(d.Attributes)+len(restoredMarks))
	maps.Copy(attributes, original.Attributes)
	maps.Copy(attributes, d.Attributes)
	keepIdentity(attributes, d)
	return &pubsubpb.PubsubMessage{Data: original.Data, Attributes: attributes, OrderingKey: original.OrderingKey}, nil
}

// keepIdentity adds the marks. It adds none if the message has attributes of the same
// names, or already as many attributes as Pub/Sub allows: then Pub/Sub's new id takes the
// place of the old one, which loses little for a message without a reason.
func keepIdentity(attributes map[string]string, d *ndjson.DeadLetter) {
	rejected := d.RejectedAt
	if rejected.IsZero() || d.MessageID == "" || len(d.MessageID) > maxValue || len(attributes)+len(restoredMarks) > maxAttributes {
		return
	}
	for _, key := range restoredMarks {
		if _, ok := attributes[key]; ok {
			return
		}
	}
	attributes[AttrRestored] = "true"
	attributes[AttrMessageID] = d.MessageID
	attributes[AttrPublishTime] = d.PublishTime.UTC().Format(time.RFC3339Nano)
	attributes[AttrRejectedAt] = rejected.UTC().Format(time.RFC3339Nano)
}

// Restorer publishes restored messages to the dead-letter topic, in order.
type Restorer struct {
	// Publish returns nil only when the topic has confirmed all messages.
	Publish func(ctx context.Context, messages []*pubsubpb.PubsubMessage) error
	// Done is how many messages are confirmed: always the first ones.
	Done int

	pending []*pubsubpb.PubsubMessage
	size    int
}

// Add takes a message. It publishes the messages before it when a request is full.
func (r *Restorer) Add(ctx context.Context, m *pubsubpb.PubsubMessage) error {
	n := topic.Size(m)
	full := len(r.pending) == topic.MaxRequestMessages || len(r.pending) > 0 &&
		(r.size+n > topic.MaxRequestBytes || r.pending[0].GetOrderingKey() != m.GetOrderingKey())
	if full {
		if err := r.Flush(ctx); err != nil {
			return err
		}
	}
	r.pending, r.size = append(r.pending, m), r.size+n
	return ctx.Err()
}

// Flush publishes the pending messages. A request in flight may outlive ctx by
// publishGrace, because after a cancelled request nobody knows whether its messages were
// published.
func (r *Restorer) Flush(ctx context.Context) error {
	if len(r.pending) == 0 {
		return nil
	}
	work, cancel := retry.Outlive(ctx, publishGrace)
	defer cancel()
	if err := r.Publish(work, r.pending); err != nil {
		return err
	}
	r.Done += len(r.pending)
	r.pending, r.size = nil, 0
	return nil
}
