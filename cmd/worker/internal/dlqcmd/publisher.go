package dlqcmd

import (
	"context"
	"errors"
	"fmt"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// lookEvery is how many seconds a slow replay publishes before it reads on.
const lookEvery = 5

// publisher publishes dead-lettered messages to the topic again. Replay and apply share
// it.
type publisher struct {
	id               string // of the operation: each replayed message has it
	maxReplays, rate int
	// check is the worker's own check of an event; nil without one.
	check func(event.Message) *event.Rejection
	fix   *dlq.Fix
	// backup keeps the replayed messages as they were; nil keeps none.
	backup *backup
	say    func(format string, args ...any)

	topic  topic.Publisher
	bounds *retry.Bounds // of requests to the topic
}

// connected calls work with a connection to the topic, and adds the remedy to an error of
// the topic.
func (p *publisher) connected(ctx context.Context, d *session, work func() error) error {
	name := d.cfg.TopicName()
	client, err := topic.NewClient(ctx, name, app.PubSubOptions(d.cfg)...)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // Everything is confirmed by then.
	p.topic, p.bounds = client, command.PublishBounds(d.opts.RefusalPatience)
	if p.rate > 0 {
		// Small parts let the replay see early which events are rejected meanwhile.
		d.queue.maxMessages = min(1000, max(1, lookEvery*p.rate))
	}
	err = work()
	if refused, ok := errors.AsType[*dlq.PublishError](err); ok && ctx.Err() == nil {
		return fmt.Errorf("publish to %s (PUBSUB_TOPIC): %w%s; every event that was not confirmed is back in the queue", name, refused.Err, publisherHint(refused.Err))
	}
	return err
}

// publisherHint names the missing role if the topic has refused the account.
func publisherHint(err error) string {
	if code := status.Code(err); code == codes.PermissionDenied || code == codes.Unauthenticated {
		return "; expected roles/pubsub.publisher on it"
	}
	return ""
}

// sink publishes to the topic and removes from the queue of a walk.
func (p *publisher) sink(w *dlq.Walk) *topicSink {
	return &topicSink{topic: p.topic, bounds: p.bounds, queue: w.Queue, say: p.say}
}

// replayer replays messages to a sink, and calls report for each that it skips.
func (p *publisher) replayer(sink dlq.Sink, report func(*dlq.Stored, error)) *dlq.Replayer {
	replayer := &dlq.Replayer{
		Sink: sink, MaxReplays: p.maxReplays, Rate: p.rate, ID: p.id, Check: p.check,
		Report: report,
	}
	if p.backup != nil {
		replayer.Sink = &backupSink{sink: replayer.Sink, backup: p.backup}
		replayer.Report = func(s *dlq.Stored, why error) {
			p.backup.drop(s.ID)
			report(s, why)
		}
	}
	if p.fix != nil {
		replayer.FixOf = func(*dlq.Stored) *dlq.Fix { return p.fix }
	}
	return replayer
}

// keep keeps a message as it is for the backup, if there is one.
func (p *publisher) keep(s *dlq.Stored) error {
	if p.backup == nil {
		return nil
	}
	return p.backup.keep(s)
}

// add replays a message, and keeps it as it is for the backup.
func (p *publisher) add(ctx context.Context, replayer *dlq.Replayer, s *dlq.Stored) error {
	if err := p.keep(s); err != nil {
		return err
	}
	return replayer.Add(ctx, s)
}

// backupSink writes messages to the backup before it acknowledges them.
type backupSink struct {
	sink   dlq.Sink
	backup *backup
}

func (s *backupSink) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	return s.sink.Publish(ctx, messages)
}

func (s *backupSink) Remove(ctx context.Context, messageIDs []string) error {
	if err := s.backup.write(messageIDs); err != nil {
		return err
	}
	return s.sink.Remove(ctx, messageIDs)
}

// topicSink publishes to the topic, and acknowledges in the queue.
type topicSink struct {
	topic  topic.Publisher
	bounds *retry.Bounds
	queue  *dlq.Queue
	say    func(format string, args ...any)
}

func (s *topicSink) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	return topic.PublishPatiently(ctx, s.topic, messages, s.bounds, command.SayRetrying(s.say))
}

func (s *topicSink) Remove(ctx context.Context, messageIDs []string) error {
	return s.queue.Remove(ctx, messageIDs)
}
