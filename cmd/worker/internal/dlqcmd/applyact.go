package dlqcmd

import (
	"context"
	"errors"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// leaseOfKilled is longer than the leases that a killed command leaves behind: a minute.
const leaseOfKilled = 2 * time.Minute

// stages publishes the canaries, waits for them, and does the rest.
func (a *applying) stages(ctx context.Context) error {
	if a.canaries > 0 && !a.journal.state().Passed {
		if err := a.canaryStage(ctx); err != nil {
			return err
		}
	}
	began := time.Now()
	err := a.session.queue.pass(ctx, a.filter, new(counts), func(w *dlq.Walk) error {
		a.session.console.showBar("applying the plan", float64(a.plan.Messages()), "messages")
		return a.act(ctx, w, false, func(*dlq.Stored) bool { return true })
	})
	if err != nil {
		return err
	}
	// A message that an earlier run has published and that does not come was removed, unless
	// that run was killed so recently that it still has the lease.
	if gone := a.journal.state().InQueue(began.Add(-leaseOfKilled)); len(gone) > 0 {
		return a.journal.record(plan.Record{Kind: plan.Removed, IDs: gone})
	}
	return nil
}

// canaryStage publishes the canaries, and waits for them unless no other message is left to
// publish.
func (a *applying) canaryStage(ctx context.Context) error {
	ahead := map[string]int{} // canaries of each fault
	for _, id := range a.journal.state().Canaries() {
		ahead[a.journal.state().Group(id).Fault]++
	}
	err := a.session.queue.pass(ctx, a.filter, new(counts), func(w *dlq.Walk) error {
		return a.act(ctx, w, true, func(s *dlq.Stored) bool {
			g := a.journal.state().Group(s.ID)
			if !g.Action.Publishes() || ahead[g.Fault] >= a.canaries && !a.journal.state().Done(s.ID) {
				return false
			}
			if !a.journal.state().Done(s.ID) {
				ahead[g.Fault]++
			}
			return true
		})
	})
	if err != nil {
		return err
	}
	switch {
	case a.journal.publishes() == 0:
		return nil
	case a.journal.state().CanaryCounts().Published == 0:
		return errors.New("no message of the plan came: another process has leased or removed them. Apply the plan again later")
	}
	return a.awaitCanaries(ctx)
}

// act does what the plan says with the messages that take selects.
func (a *applying) act(ctx context.Context, w *dlq.Walk, canary bool, take func(*dlq.Stored) bool) error {
	w.Ours, w.OnLate = a.journal.ours, a.journal.late
	report := a.journal.leave
	if canary {
		report = func(*dlq.Stored, error) {} // the pass after the canaries tries it again
	}
	replayer := a.publisher.replayer(&planSink{sink: a.publisher.sink(w), journal: a.journal, canary: canary}, report)
	replayer.FixOf = func(s *dlq.Stored) *dlq.Fix { return a.fixes[a.journal.state().Group(s.ID).Fault] }
	replayer.OnReplayed = func(*dlq.Stored, *pubsubpb.PubsubMessage) { a.session.console.advance(1) }
	var part messages
	err := w.Each(ctx, func(s *dlq.Stored) error {
		if !take(s) {
			return nil
		}
		return a.sort(ctx, s, replayer, &part)
	}, func() error {
		err := replayer.Flush(ctx)
		if err == nil {
			err = a.remove(ctx, w.Queue, &part)
		}
		return errors.Join(err, a.journal.recordLeft(), a.journal.stop(a.stopAfter))
	})
	if err == nil {
		err = a.journal.stop(a.stopAfter) // the last pulls may have brought some
	}
	return errors.Join(err, a.journal.recordLeft())
}

// messages are ids of a part of the queue.
type messages struct {
	purge []string
	// done were published by an earlier run, which ended before it removed them.
	done []string
}

// sort decides what happens to one message.
func (a *applying) sort(ctx context.Context, s *dlq.Stored, replayer *dlq.Replayer, part *messages) error {
	if a.journal.state().Done(s.ID) {
		part.done = append(part.done, s.ID)
		return nil
	}
	if a.journal.state().Group(s.ID).Action == plan.Purge {
		part.purge = append(part.purge, s.ID)
		return a.publisher.keep(s)
	}
	if err := a.journal.stop(a.stopAfter); err != nil {
		return err
	}
	return a.publisher.add(ctx, replayer, s)
}

// remove removes the messages of a part that are not published now.
func (a *applying) remove(ctx context.Context, queue *dlq.Queue, part *messages) error {
	now := *part
	*part = messages{}
	if len(now.done) > 0 {
		if err := a.journal.removed(now.done, queue.Remove(ctx, now.done)); err != nil {
			return err
		}
	}
	if len(now.purge) > 0 {
		return a.purge(ctx, queue, now.purge)
	}
	return nil
}

// purge removes messages for good, after their lines are in the backup.
func (a *applying) purge(ctx context.Context, queue *dlq.Queue, ids []string) error {
	if a.publisher.backup != nil {
		if err := a.publisher.backup.write(ids); err != nil {
			return err
		}
	}
	if err := a.journal.purged(ids); err != nil {
		return err
	}
	a.session.console.advance(len(ids))
	return a.journal.removed(ids, queue.Remove(ctx, ids))
}

// planSink publishes to the topic. It records each message that the topic has confirmed
// before it acknowledges it, because a message in the journal is never published again.
type planSink struct {
	sink    dlq.Sink
	journal *planJournal
	canary  bool
}

func (s *planSink) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	return s.sink.Publish(ctx, messages)
}

func (s *planSink) Remove(ctx context.Context, ids []string) error {
	if err := s.journal.published(ids, s.canary); err != nil {
		return err
	}
	return s.journal.removed(ids, s.sink.Remove(ctx, ids))
}
