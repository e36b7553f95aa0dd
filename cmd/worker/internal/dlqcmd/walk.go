package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// queueReader reads the dead-letter queue, and owns what its last walk has found.
type queueReader struct {
	cfg     *config.Config
	client  *dlq.Client
	opts    dlq.QueueOptions
	console *console

	// maxMessages bounds how many messages are read at once; 0 is the default.
	maxMessages int
	// quick ends a walk after one empty pull. It may miss messages that Pub/Sub withholds
	// for a moment.
	quick bool
	// looks says that the command only reads, so that it may use the view: see source.
	looks bool
	// saysLimit says on stderr that --limit was reached. A program knows its own limit.
	saysLimit bool

	// inQueue is the number of messages at the end of the last complete walk, without
	// those newer than the start; -1 before the first.
	inQueue int
	warned  map[string]bool // faults of the filter that no message has
	// read is the number of messages that the last walk has seen.
	read int
	// viewed says that the last walk has read a view, which also shows the messages that
	// other readers have leased.
	viewed bool
	// complete says that the last walk has seen the whole queue, as far as can be known.
	// If not, its counts are lower bounds.
	complete bool
}

// walk reads the queue once. At the end it releases every message that act has not
// removed.
func (q *queueReader) walk(ctx context.Context, filter *dlq.Filter, stop bool, act func(*dlq.Walk) error) error {
	opts := q.opts
	opts.MaxMessages = q.maxMessages
	if q.quick {
		opts.EmptyPulls = 1
	}
	source, look := q.source(ctx)
	defer q.endLook(look)
	queue := dlq.Open(source, opts)
	w := &dlq.Walk{Queue: queue, Filter: filter, Environment: q.cfg.Environment, Stop: stop}
	w.OnProgress = q.console.advance
	q.console.showBar("reading the queue", -1, "messages")
	err := q.explain(ctx, act(w))
	q.console.hideBar()
	q.complete = false
	if err == nil {
		q.read, q.viewed = w.Read, look != nil
		q.warnFaults(w)
		missing := q.warnMissing(w, look != nil)
		doubts := queue.Doubts()
		if look != nil && w.Ended && look.Doubt() != "" {
			doubts = append(doubts, look.Doubt())
		}
		q.complete = !missing && !w.Cut && len(doubts) == 0
		if w.Cut && q.saysLimit {
			doubts = append(doubts, "--limit was reached")
		}
		if len(doubts) > 0 {
			q.console.say("worker: at least %s of the queue match, and there may be more: %s", command.Plural(w.Matched, "message"), strings.Join(doubts, "; "))
		}
		if !stop {
			q.inQueue = queue.Leased() - w.Late
		}
	}
	return errors.Join(err, queue.Close())
}

// pass walks through the queue once for a change. It selects only messages that are
// older than the start of the first pass with the filter.
func (q *queueReader) pass(ctx context.Context, filter *dlq.Filter, n *counts, act func(w *dlq.Walk) error) error {
	return q.walk(ctx, filter, false, func(w *dlq.Walk) error {
		w.FromStart = true
		err := act(w)
		n.matched, n.left = w.Matched, w.Queue.Leased()
		if w.Late > 0 {
			q.console.say("worker: %s that came after the start: left in the queue", command.Plural(w.Late, "message"))
		}
		return err
	})
}

// again walks through the whole queue once more. missing reports whether it saw fewer
// messages than the walk before. The next one compares with that walk, too.
func (q *queueReader) again(ctx context.Context, filter *dlq.Filter, act func(*dlq.Walk) error) (missing bool, err error) {
	before := q.inQueue
	err = q.walk(ctx, filter, false, act)
	missing = q.inQueue < before
	q.inQueue = before
	return missing, err
}

// warnMissing says how many messages were in the queue before and were not seen now.
// It compares with an earlier walk, because Pub/Sub does not say how many messages
// other readers have leased.
func (q *queueReader) warnMissing(w *dlq.Walk, looking bool) bool {
	missing := q.inQueue - (w.Read - w.Late)
	switch {
	case q.inQueue >= 0 && missing > 0:
		q.console.say("worker: %s messages are leased by another process or not yet available, or were removed meanwhile; they are not counted here", command.Comma(missing))
		return true
	case w.Read == 0 && looking:
		q.console.say("worker: the queue gave nothing: it is empty, or its messages are not yet available")
	case w.Read == 0:
		q.console.say("worker: the queue gave nothing: it is empty, or its messages are leased by another process or not yet available (a command that was killed keeps its leases for about a minute)")
	}
	return false
}

// warnFaults says which faults of the filter no message has: the id may be mistyped.
func (q *queueReader) warnFaults(w *dlq.Walk) {
	for _, id := range w.Filter.Faults {
		if _, ok := w.Faults[id]; !ok && !w.Cut && !q.warned[id] {
			if q.warned == nil {
				q.warned = map[string]bool{}
			}
			q.warned[id] = true
			q.console.say("worker: no message that was read has the fault %s; `worker dlq stats` lists the faults", id)
		}
	}
}

// atLeast formats a count of the last walk for a sentence.
func (q *queueReader) atLeast(n int) string {
	if q.complete {
		return command.Comma(n)
	}
	return "at least " + command.Comma(n)
}

// explain adds the remedy to an error of Pub/Sub.
func (q *queueReader) explain(ctx context.Context, err error) error {
	name := q.cfg.DeadLetterSubscriptionName()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.Join(errors.New("interrupted; every message that was not changed is back in the queue"), withoutCancel(err))
	case notOurs(err):
		return err
	case status.Code(err) == codes.NotFound:
		return fmt.Errorf("DLQ_SUBSCRIPTION: %s does not exist; expected a subscription of the topic %s (DLQ_TOPIC) for on-call: %w", name, q.cfg.DeadLetterTopicName(), err)
	case status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.Unauthenticated:
		return fmt.Errorf("DLQ_SUBSCRIPTION: you may not read %s; expected roles/pubsub.subscriber on it, and to be logged in (gcloud auth application-default login): %w", name, err)
	case status.Code(err) != codes.Unknown:
		return fmt.Errorf("DLQ_SUBSCRIPTION: %s cannot be read: %w", name, err)
	}
	return err
}

// withoutCancel drops the error of an interrupted request.
func withoutCancel(err error) error {
	if errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		return nil
	}
	return err
}

// notOurs reports whether an error is one of the main topic, not of the queue.
func notOurs(err error) bool {
	_, ok := errors.AsType[*dlq.PublishError](err)
	return ok
}
