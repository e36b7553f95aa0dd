package relay

import (
	"context"
	"errors"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/turns"
)

// graveyard is what is to be dead-lettered. The loop owns it.
type graveyard struct {
	graves  turns.Queue[*service, string, *held]
	digging int // on their way to the topic
	level   int // requests that failed in a row
	next    time.Time
	away    string // why the dead-letter topic is away; empty: it is not
	told    time.Time
}

// burial is the answer of the dead-letter topic.
type burial struct {
	graves  []*held
	results []error
	ctx     context.Context // of the request
}

const (
	// One request takes so many messages at most, and ends with the one that has it
	// exceed so many bytes: compression may double them.
	lettersAtOnce = 1000
	bytesAtOnce   = 8 << 20
	buryFirst     = 250 * time.Millisecond
	buryMost      = 10 * time.Second
)

// bury rejects an event that was valid on arrival.
func (r *Relay) bury(h *held, reason event.Reason, why string) {
	r.unsuspect(h) // a drain does not wait for it as for an undecided one
	h.rejection = &event.Rejection{Reason: reason, Detail: why, EventID: string(h.event.ID())}
	if r.stopping.on && r.graveyard.away != "" {
		r.unsettled++
		r.release(h)
		return
	}
	r.bound(h, h.publisher.service)
}

// bound has a rejected event of a service wait for its turn to be written to the
// dead-letter topic.
func (r *Relay) bound(h *held, s *service) {
	r.graves.Push(s, h.message.Attributes[event.AttrServiceEnvironment], h)
}

// sendLetters writes what was rejected, in turns by service and environment, one
// request at a time; healthy events flow on meanwhile.
func (r *Relay) sendLetters(now time.Time) {
	if r.digging > 0 || r.graves.Len() == 0 || now.Before(r.graveyard.next) {
		return
	}
	var graves []*held
	for bytes := int64(0); len(graves) < lettersAtOnce && bytes < bytesAtOnce; {
		h, ok := r.graves.Next(turns.Busy[*service, string]{})
		if !ok {
			break
		}
		graves = append(graves, h)
		bytes += h.message.Size()
	}
	r.digging = len(graves)
	letters := make([]*dlq.DeadLetter, len(graves))
	for i, h := range graves {
		letters[i] = &dlq.DeadLetter{
			MessageID:   h.message.ID,
			PublishTime: h.message.PublishTime,
			Data:        h.message.Data,
			Attributes:  h.message.Attributes,
			OrderingKey: h.message.OrderingKey,
			Rejection:   *h.rejection,
			RejectedAt:  now,
			Attempts:    int(h.sent),
		}
	}
	ctx, ended := r.followLetters(graves, letters)
	r.spawn(func() {
		results := r.letters.Write(ctx, letters)
		if ended != nil {
			ended(results)
		}
		r.buried <- burial{graves: graves, results: results, ctx: ctx}
	})
}

// interment takes the answer: what is confirmed is settled, the rest is tried
// again for as long as it takes.
func (r *Relay) interment(b burial, now time.Time) {
	g := &r.graveyard
	g.digging = 0
	var again []*held
	var failure error
	for i, h := range b.graves {
		switch err := b.results[i]; {
		case err == nil:
			r.m.DeadLetterPublishes.WithLabelValues("ok").Inc()
			r.log.DebugContext(b.ctx, "Dead-lettered a message", "message_id", h.message.ID, "reason", string(h.rejection.Reason), "detail", h.rejection.Detail)
			r.interred(h)
		case errors.Is(err, dlq.ErrTooLarge):
			r.m.DeadLetterPublishes.WithLabelValues("too_large").Inc()
			r.log.ErrorContext(b.ctx, "A rejected message does not fit into a dead letter; it stays unacknowledged",
				"message_id", h.message.ID, "bytes", h.message.Size(), "reason", string(h.rejection.Reason), "detail", h.rejection.Detail)
			r.expire(h)
		case errors.Is(err, dlq.ErrBroken):
			r.m.DeadLetterPublishes.WithLabelValues("error").Inc()
			r.log.ErrorContext(b.ctx, "A dead letter could not be made; the message is left to expire", "message_id", h.message.ID, "error", err)
			r.expire(h)
		default:
			r.m.DeadLetterPublishes.WithLabelValues("error").Inc()
			again, failure = append(again, h), err
		}
	}
	switch {
	case failure == nil:
		if g.away != "" {
			r.log.Info("The dead-letter topic takes messages again", "in_flight", r.graves.Len())
		}
		g.level, g.away = 0, ""
	case r.stopping.on:
		g.away = failure.Error()
		r.unsettled += len(again)
		for _, h := range again {
			r.release(h)
		}
	default:
		if g.away == "" || now.Sub(g.told) >= remindEvery {
			g.told = now
			r.log.ErrorContext(b.ctx, "The dead-letter topic does not take messages; rejected events stay in flight", "error", failure, "in_flight", len(again)+r.graves.Len())
		}
		g.away = failure.Error()
		g.next = now.Add(delay(r.rng, g.level, buryFirst, buryMost, 0))
		g.level++
		for _, h := range again {
			r.bound(h, r.serviceOfMessage(h.message))
		}
	}
	r.flushSettled()
}
