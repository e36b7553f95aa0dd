package relay

import (
	"context"
	"errors"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/turns"
)

// deadLetterQueue has the rejected events until the dead-letter topic has confirmed
// them. It writes one request at a time, while valid events flow on. The loop owns it.
type deadLetterQueue struct {
	run        *run
	inflight   *inflightSet
	settlement *settlement
	writer     DeadLetters
	written    chan deadLetterResult // to the loop

	pending     turns.Queue[*service, string, *inflight]
	writing     int       // events of the request that has no answer yet
	failures    int       // requests that failed in a row
	next        time.Time // when the next request may be made
	unavailable string    // why the topic takes no messages; empty: it takes them
	lastLogged  time.Time // when the log last said so
}

// deadLetterResult is the dead-letter topic's answer to a request.
type deadLetterResult struct {
	events []*inflight
	errs   []error // of each event; nil: it is confirmed
	ctx    context.Context
}

const (
	// A request takes so many messages at most, and ends with the one that has it
	// exceed so many bytes: compression may double them.
	maxDeadLetters     = 1000
	maxDeadLetterBytes = 8 << 20
	// The delay after a request that failed.
	deadLetterBackoff    = 250 * time.Millisecond
	maxDeadLetterBackoff = 10 * time.Second
)

func newDeadLetterQueue(r *run, set *inflightSet, s *settlement, to DeadLetters) *deadLetterQueue {
	return &deadLetterQueue{run: r, inflight: set, settlement: s, writer: to, written: make(chan deadLetterResult, 1)}
}

// reject decides that an event that was valid on arrival is dead-lettered.
func (q *deadLetterQueue) reject(e *inflight, reason event.Reason, why string) {
	q.inflight.clear(e) // a drain does not wait for it as for an undecided event
	e.rejection = &event.Rejection{Reason: reason, Detail: why, EventID: string(e.event.ID())}
	if q.run.stopping && q.unavailable != "" {
		q.settlement.releaseUnsettled(e)
		return
	}
	q.add(e, e.publisher.service)
}

// add has a rejected event of a service wait for its turn.
func (q *deadLetterQueue) add(e *inflight, of *service) {
	q.pending.Push(of, e.message.Attributes[event.AttrServiceEnvironment], e)
}

// due is when the next request may be made, if an event waits for it.
func (q *deadLetterQueue) due() (at time.Time, ok bool) {
	return q.next, q.writing == 0 && q.pending.Len() > 0
}

// write makes a request if it is time to. Services take turns.
func (q *deadLetterQueue) write(now time.Time) {
	if at, ok := q.due(); !ok || now.Before(at) {
		return
	}
	var events []*inflight
	for bytes := int64(0); len(events) < maxDeadLetters && bytes < maxDeadLetterBytes; {
		e, ok := q.pending.Next(turns.Busy[*service, string]{})
		if !ok {
			break
		}
		events = append(events, e)
		bytes += e.message.Size()
	}
	q.writing = len(events)
	messages := make([]*dlq.DeadLetter, len(events))
	for i, e := range events {
		messages[i] = &dlq.DeadLetter{
			MessageID:   e.message.ID,
			PublishTime: e.message.PublishTime,
			Data:        e.message.Data,
			Attributes:  e.message.Attributes,
			OrderingKey: e.message.OrderingKey,
			Rejection:   *e.rejection,
			RejectedAt:  now,
			Attempts:    int(e.submissions),
		}
	}
	ctx, ended := traceDeadLetters(q.run.work, q.run.opts.Tracer, events, messages)
	q.run.spawn(func() {
		errs := q.writer.Write(ctx, messages)
		if ended != nil {
			ended(errs)
		}
		q.written <- deadLetterResult{events: events, errs: errs, ctx: ctx}
	})
}

// take takes an answer: the confirmed events are settled, and the others are written
// again for as long as it takes.
func (q *deadLetterQueue) take(r deadLetterResult, now time.Time) {
	q.writing = 0
	var again []*inflight
	var failure error
	for i, e := range r.events {
		switch err := r.errs[i]; {
		case err == nil:
			q.run.metrics.DeadLetterPublishes.WithLabelValues("ok").Inc()
			q.run.log.DebugContext(r.ctx, "Dead-lettered a message", "message_id", e.message.ID, "reason", string(e.rejection.Reason), "detail", e.rejection.Detail)
			q.settlement.eventDeadLettered(e, now)
		case errors.Is(err, dlq.ErrTooLarge):
			q.run.metrics.DeadLetterPublishes.WithLabelValues("too_large").Inc()
			q.run.log.ErrorContext(r.ctx, "A rejected message does not fit into a dead-lettered message; it stays unacknowledged",
				"message_id", e.message.ID, "bytes", e.message.Size(), "reason", string(e.rejection.Reason), "detail", e.rejection.Detail)
			q.settlement.letExpire(e)
		case errors.Is(err, dlq.ErrBroken):
			q.run.metrics.DeadLetterPublishes.WithLabelValues("error").Inc()
			q.run.log.ErrorContext(r.ctx, "A message could not be made into a dead-lettered one; it is left to expire", "message_id", e.message.ID, "error", err)
			q.settlement.letExpire(e)
		default:
			q.run.metrics.DeadLetterPublishes.WithLabelValues("error").Inc()
			again, failure = append(again, e), err
		}
	}
	if failure == nil {
		q.available()
	} else {
		q.failed(again, failure, now)
	}
	q.settlement.flush()
}

// available notes that the topic took a request.
func (q *deadLetterQueue) available() {
	if q.unavailable != "" {
		q.run.log.Info("The dead-letter topic takes messages again", "in_flight", q.pending.Len())
	}
	q.failures, q.unavailable = 0, ""
}

// failed notes that the topic did not take these events.
func (q *deadLetterQueue) failed(events []*inflight, err error, now time.Time) {
	if q.run.stopping {
		q.unavailable = err.Error()
		q.settlement.releaseRest(events, true)
		return
	}
	if q.unavailable == "" || now.Sub(q.lastLogged) >= remindEvery {
		q.lastLogged = now
		q.run.log.Error("The dead-letter topic does not take messages; rejected events stay in flight", "error", err, "in_flight", len(events)+q.pending.Len())
	}
	q.unavailable = err.Error()
	q.next = now.Add(q.run.backoff(q.failures, deadLetterBackoff, maxDeadLetterBackoff, 0))
	q.failures++
	for _, e := range events {
		q.add(e, q.inflight.serviceOfMessage(e.message))
	}
}
