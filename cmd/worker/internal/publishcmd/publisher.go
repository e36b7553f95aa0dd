package publishcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// publisher publishes lines in their order.
type publisher struct {
	topic     topic.Publisher
	topicName string
	bounds    *retry.Bounds
	decoder   *event.Decoder // nil if lines are not checked
	catalogue *listed        // nil if there is none
	stderr    io.Writer
	source    string

	request []numbered
	size    int
	done    published
}

// published has the results of the lines.
type published struct {
	Published int `json:"published"`
	// Invalid lines are not valid events, or Pub/Sub refuses them.
	Invalid int `json:"invalid"`
	// Failed lines seemed valid, and it is not known whether they were published: Pub/Sub
	// was unavailable, or the command was interrupted.
	Failed int `json:"failed,omitempty"`
}

// numbered is a message and the number of its line.
type numbered struct {
	message *pubsubpb.PubsubMessage
	line    int
}

// maxMessage is the largest message that any server accepts; the documented limit is 10 MB.
const maxMessage = 10 << 20

// run publishes the lines of the input until its end, or until ctx ends.
func (p *publisher) run(ctx context.Context, input io.Reader) error {
	err := p.lines(ctx, readLines(ctx, input))
	// Lines that were read before an error are published.
	if ctx.Err() == nil && !errors.Is(err, errPublish) {
		err = errors.Join(err, p.flush(ctx))
	}
	p.done.Failed += len(p.request)
	if ctx.Err() != nil {
		return errors.New("interrupted; lines that were not read yet were not published")
	}
	return err
}

// errPublish is in every error of a request.
var errPublish = errors.New("not published")

func (p *publisher) lines(ctx context.Context, lines <-chan inputLine) error {
	for {
		var l inputLine
		select {
		case l = <-lines:
		case <-ctx.Done():
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(l.err, errLineTooLong):
			p.refuse(l.number, l.err)
		case l.err != nil && !errors.Is(l.err, io.EOF):
			return fmt.Errorf("%s: line %d: %w", p.source, l.number, l.err)
		case len(bytes.TrimSpace(l.text)) > 0:
			if err := p.take(ctx, l.number, l.text); err != nil {
				return err
			}
		}
		if errors.Is(l.err, io.EOF) {
			return nil
		}
		// Lines must not wait for a slow input.
		if !l.more {
			if err := p.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// take checks a line and adds it to the request.
func (p *publisher) take(ctx context.Context, n int, text []byte) error {
	parsed, err := ndjson.Parse(text)
	if err != nil {
		p.refuse(n, err)
		return nil
	}
	if parsed.DeadLetter != nil {
		// The line is from the dead-letter queue, so the event keeps its identity.
		if parsed.Attributes, err = dlq.ReplayAttributes(parsed.Attributes, parsed.DeadLetter, ""); err != nil {
			p.refuse(n, err)
			return nil
		}
	}
	received := event.Message{PublishTime: time.Now(), Data: parsed.Data, Attributes: parsed.Attributes}
	if p.decoder != nil {
		if _, rejection := p.decoder.Decode(received); rejection != nil {
			p.refuse(n, rejection)
			return nil
		}
	}
	if p.catalogue != nil {
		if err := p.catalogue.check(received); err != nil {
			p.refuse(n, err)
			return nil
		}
	}
	m := &pubsubpb.PubsubMessage{Data: parsed.Data, Attributes: parsed.Attributes, OrderingKey: parsed.OrderingKey}
	if p.decoder != nil {
		if err := topic.Check(m); err != nil {
			p.refuse(n, err)
			return nil
		}
	}
	size := topic.Size(m)
	if size > maxMessage {
		p.refuse(n, fmt.Errorf("the message has %d bytes, more than Pub/Sub takes", size))
		return nil
	}
	if len(p.request) > 0 && (len(p.request) == topic.MaxRequestMessages || p.size+size > topic.MaxRequestBytes ||
		p.request[0].message.GetOrderingKey() != m.GetOrderingKey()) {
		if err := p.flush(ctx); err != nil {
			p.request = append(p.request, numbered{m, n})
			return err
		}
	}
	p.request, p.size = append(p.request, numbered{m, n}), p.size+size
	return nil
}

func (p *publisher) refuse(n int, why error) {
	p.done.Invalid++
	fmt.Fprintf(p.stderr, "%s:%d: %v\n", p.source, n, why)
}

// flush publishes the request and waits until it is confirmed. Messages that Pub/Sub
// refuses are reported and removed. After an error the request has the messages that are
// not known to be published.
func (p *publisher) flush(ctx context.Context) error {
	for len(p.request) > 0 {
		err := p.publish(ctx, p.request)
		switch {
		case err == nil:
			p.done.Published += len(p.request)
			p.request = nil
		case status.Code(err) == codes.InvalidArgument:
			// One bad message makes Pub/Sub refuse the whole request.
			err = p.oneByOne(ctx)
		}
		if err != nil {
			return fmt.Errorf("%w to %s (PUBSUB_TOPIC) from line %d on: %w", errPublish, p.topicName, p.request[0].line, err)
		}
	}
	p.request, p.size = nil, 0
	return nil
}

// oneByOne publishes each message of the request in a request of its own, until all are
// settled or Pub/Sub is unavailable.
func (p *publisher) oneByOne(ctx context.Context) error {
	for len(p.request) > 0 {
		err := p.publish(ctx, p.request[:1])
		switch {
		case status.Code(err) == codes.InvalidArgument:
			p.refuse(p.request[0].line, fmt.Errorf("Pub/Sub refuses it: %s", status.Convert(err).Message()))
		case err != nil:
			return err
		default:
			p.done.Published++
		}
		p.request = p.request[1:]
	}
	return nil
}

func (p *publisher) publish(ctx context.Context, part []numbered) error {
	messages := make([]*pubsubpb.PubsubMessage, len(part))
	for i, m := range part {
		messages[i] = m.message
	}
	return topic.PublishPatiently(ctx, finishing{p.topic}, messages, p.bounds, command.SayRetrying(func(format string, args ...any) {
		fmt.Fprintf(p.stderr, format+"\n", args...)
	}))
}

// publishGrace is how long a request in flight may take after an interrupt. If it were cut,
// it would be unknown whether its events were published.
const publishGrace = 5 * time.Second

// finishing lets a request in flight finish when the context of the command ends.
type finishing struct{ topic.Publisher }

func (f finishing) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	work, cancel := retry.Outlive(ctx, publishGrace)
	defer cancel()
	return f.Publisher.Publish(work, messages)
}
