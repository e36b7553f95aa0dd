package dlq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/sourcegraph/conc/pool"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// Sink receives what a replay publishes and removes. The sink of a dry run changes
// nothing.
type Sink interface {
	// Publish returns nil only when the topic has confirmed all messages.
	Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error
	// Remove acknowledges messages in the queue.
	Remove(ctx context.Context, messageIDs []string) error
}

// Nowhere is a Sink that changes nothing.
type Nowhere struct{}

// Publish confirms the messages.
func (Nowhere) Publish(context.Context, []*pubsubpb.PubsubMessage) error { return nil }

// Remove removes nothing.
func (Nowhere) Remove(context.Context, []string) error { return nil }

// Replayer publishes the original messages again.
type Replayer struct {
	Sink Sink
	// Check returns why the worker would reject a message; nil checks nothing.
	Check func(event.Message) *event.Rejection
	// FixOf, if set, returns the fix that corrects a message's data on the way; nil leaves
	// the data.
	FixOf func(*Stored) *Fix
	// ID identifies the operation; each published message carries it. Empty: none does.
	ID string
	// MaxReplays excludes events that were replayed at least this often before.
	MaxReplays int
	// Rate is the maximum of events a second; 0 means no limit.
	Rate int
	// Report is called for each message that is not replayed: from any goroutine, one
	// call at a time.
	Report func(*Stored, error)

	// OnFixed, if set, is called for each event that a fix has changed and Check accepts,
	// with its data before and after.
	OnFixed func(s *Stored, before, after []byte)
	// OnReplayed, if set, is called for each message that was replayed, with what was published. It
	// is called from any goroutine, one call at a time.
	OnReplayed func(*Stored, *pubsubpb.PubsubMessage)

	// Added counts the messages that were published, or that the next Flush publishes.
	// Skipped counts those that were replayed too often before.
	Added, Skipped int

	mu               sync.Mutex // guards replayed and failed
	replayed, failed int

	pending []*replay
	size    int
	next    time.Time // when the rate allows the next request
}

type replay struct {
	stored  *Stored
	message *pubsubpb.PubsubMessage
}

const (
	// replayAttributes is how many attributes a replay adds.
	replayAttributes = 5
	// maxPending bounds the messages that wait to be published, in bytes.
	maxPending = 32 << 20
	// publishStreams is how many requests are in flight at once.
	publishStreams = 8
	// publishGrace is how long a request in flight may still take after an interrupt. After
	// a cancelled request nobody knows whether its messages were published.
	publishGrace = 5 * time.Second
)

// Counts returns how many messages were replayed, and how many failed.
func (r *Replayer) Counts() (replayed, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.replayed, r.failed
}

// Add prepares a message. Flush publishes it at the latest.
func (r *Replayer) Add(ctx context.Context, s *Stored) error {
	if s.Replays >= r.MaxReplays {
		r.Skipped++
		times := "once"
		if s.Replays != 1 {
			times = fmt.Sprintf("%d times", s.Replays)
		}
		r.Report(s, fmt.Errorf("it was replayed %s before; --max-replays is %d", times, r.MaxReplays))
		return nil
	}
	var fix *Fix
	if r.FixOf != nil {
		fix = r.FixOf(s)
	}
	m, err := r.prepare(ctx, s, fix)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.fail(err, s)
		return nil
	}
	if fix != nil && r.OnFixed != nil {
		r.OnFixed(s, s.Original.Data, m.GetData())
	}
	s.Original.Data = nil // the message has it
	r.pending = append(r.pending, &replay{s, m})
	r.Added++
	if r.size += topic.Size(m); r.size > maxPending {
		return r.Flush(ctx)
	}
	return nil
}

func (r *Replayer) fail(err error, stored ...*Stored) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed += len(stored)
	for _, s := range stored {
		r.Report(s, err)
	}
}

// prepare makes the message to publish.
func (r *Replayer) prepare(ctx context.Context, s *Stored, fix *Fix) (*pubsubpb.PubsubMessage, error) {
	if s.Broken != nil {
		return nil, s.Broken
	}
	data := s.Original.Data
	if fix != nil {
		var err error
		if data, err = fix.Apply(ctx, data); err != nil {
			return nil, err
		}
	}
	attributes, err := ReplayAttributes(s.Original.Attributes, &ndjson.DeadLetter{
		MessageID: s.OriginalID, PublishTime: s.OriginalPublishTime, FirstRejectedAt: s.FirstRejectedAt, Replays: s.Replays,
	}, r.ID)
	if err != nil {
		return nil, err
	}
	m := &pubsubpb.PubsubMessage{Data: data, Attributes: attributes, OrderingKey: s.Original.OrderingKey}
	if topic.Size(m) > maxMessageTried {
		return nil, fmt.Errorf("with the attributes of a replay it has %d bytes, more than Pub/Sub takes", topic.Size(m))
	}
	if r.Check != nil {
		rejection := r.Check(event.Message{ID: s.OriginalID, PublishTime: s.OriginalPublishTime, Data: data, Attributes: attributes})
		if rejection != nil {
			return nil, fmt.Errorf("the worker would reject it again: %w", rejection)
		}
	}
	return m, nil
}

// ReplayAttributes returns the attributes of a message that is published again: the
// original ones, and those that keep its identity. operation identifies the replay; it may
// be empty. The event keeps its id, its timestamp and the time of its first rejection.
func ReplayAttributes(original map[string]string, from *ndjson.DeadLetter, operation string) (map[string]string, error) {
	if _, own := original[event.AttrReplayID]; own && event.Replays(original) == 0 {
		return nil, errors.New("it has an attribute replay_id of its own, which a replay would overwrite; export it, and rename the attribute")
	}
	// An event that was replayed before keeps its first origin, and so its id.
	id, published := event.Message{ID: from.MessageID, PublishTime: from.PublishTime, Attributes: original}.Origin()
	attributes := make(map[string]string, len(original)+replayAttributes)
	maps.Copy(attributes, original)
	attributes[event.AttrReplayCount] = strconv.Itoa(max(0, from.Replays) + 1)
	attributes[event.AttrOriginMessageID] = id
	attributes[event.AttrOriginPublishTime] = published.UTC().Format(time.RFC3339Nano)
	attributes[event.AttrOriginRejectedAt] = from.FirstRejectedAt.UTC().Format(time.RFC3339Nano)
	if operation != "" {
		attributes[event.AttrReplayID] = operation
	}
	if len(attributes) > maxAttributes {
		return nil, fmt.Errorf("it has %d attributes and no room for those of a replay; export it, and remove some", len(original))
	}
	return attributes, nil
}

// Flush publishes the pending messages, and removes the confirmed ones.
func (r *Replayer) Flush(ctx context.Context) error {
	pending := r.pending
	r.pending, r.size = nil, 0
	streams := publishStreams
	if r.Rate > 0 {
		streams = 1
	}
	// One goroutine publishes all messages of an ordering key, so that their order stays.
	p := pool.New().WithErrors().WithFirstError().WithMaxGoroutines(streams)
	for _, group := range byKey(pending) {
		p.Go(func() error {
			for _, request := range r.requests(group) {
				if err := r.pace(ctx, len(request)); err != nil {
					return err
				}
				if err := r.send(ctx, request); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return p.Wait()
}

// byKey groups by ordering key, each group in the order of its origin.
func byKey(pending []*replay) [][]*replay {
	var keys []string
	groups := map[string][]*replay{}
	for _, x := range pending {
		key := x.message.GetOrderingKey()
		if groups[key] == nil {
			keys = append(keys, key)
		}
		groups[key] = append(groups[key], x)
	}
	all := make([][]*replay, len(keys))
	for i, key := range keys {
		if key != "" {
			slices.SortStableFunc(groups[key], func(a, b *replay) int {
				return a.stored.OriginalPublishTime.Compare(b.stored.OriginalPublishTime)
			})
		}
		all[i] = groups[key]
	}
	return all
}

// requests splits messages of one ordering key by the limits of a request and the rate.
func (r *Replayer) requests(group []*replay) [][]*replay {
	limit := topic.MaxRequestMessages
	if r.Rate > 0 {
		limit = min(limit, max(1, r.Rate/10))
	}
	var (
		all     [][]*replay
		request []*replay
		size    int
	)
	for _, x := range group {
		n := topic.Size(x.message)
		if len(request) == limit || (len(request) > 0 && size+n > topic.MaxRequestBytes) {
			all = append(all, request)
			request, size = nil, 0
		}
		request, size = append(request, x), size+n
	}
	if len(request) > 0 {
		all = append(all, request)
	}
	return all
}

// pace waits until the rate allows n more.
func (r *Replayer) pace(ctx context.Context, n int) error {
	if err := ctx.Err(); err != nil || r.Rate == 0 {
		return err
	}
	now := time.Now()
	if r.next.Before(now) {
		r.next = now
	}
	wait := r.next.Sub(now)
	r.next = r.next.Add(time.Duration(n) * time.Second / time.Duration(r.Rate))
	return retry.Sleep(ctx, wait)
}

// send publishes one request, then removes its messages. An error ends the replay.
func (r *Replayer) send(ctx context.Context, request []*replay) error {
	messages := make([]*pubsubpb.PubsubMessage, len(request))
	ids := make([]string, len(request))
	stored := make([]*Stored, len(request))
	for i, x := range request {
		messages[i], ids[i], stored[i] = x.message, x.stored.ID, x.stored
	}
	err := r.publish(ctx, messages)
	if status.Code(err) == codes.InvalidArgument && len(request) > 1 {
		for i := range request {
			if err := r.send(ctx, request[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		r.fail(fmt.Errorf("it was not published: %w", err), stored...)
		if status.Code(err) == codes.InvalidArgument {
			return nil // Pub/Sub may accept the next
		}
		return &PublishError{err}
	}
	if err := r.Sink.Remove(ctx, ids); err != nil {
		r.fail(errors.New("it was published, but could not be removed from the queue; replayed again it is the same event"), stored...)
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replayed += len(request)
	if r.OnReplayed != nil {
		for _, x := range request {
			r.OnReplayed(x.stored, x.message)
		}
	}
	return nil
}

func (r *Replayer) publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	work, cancel := retry.Outlive(ctx, publishGrace)
	defer cancel()
	return r.Sink.Publish(work, messages)
}

// PublishError means that the topic does not take messages.
type PublishError struct{ Err error }

func (e *PublishError) Error() string { return e.Err.Error() }

// Unwrap returns Pub/Sub's error.
func (e *PublishError) Unwrap() error { return e.Err }
