package relay

import (
	"context"
	"errors"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// graveyard is what is to be dead-lettered. The loop owns it.
type graveyard struct {
	graves  []*held // in the order in which they were rejected
	digging int     // on their way to the topic
	level   int     // requests that failed in a row
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
	// One turn of writing takes so much at most, since compression may double it.
	lettersAtOnce = 1000
	bytesAtOnce   = 16 << 20
	buryFirst     = 250 * time.Millisecond
	buryMost      = 10 * time.Second
)

// bury rejects an event that was valid on arrival.
func (r *Relay) bury(h *held, reason event.Reason, why string) {
	h.rejection = &event.Rejection{Reason: reason, Detail: why, EventID: string(h.event.ID())}
	if r.stopping.on && r.graveyard.away != "" {
		r.unsettled++
		r.release(h)
		return
	}
	r.graves = append(r.graves, h)
}

// sendLetters writes what was rejected, one request at a time; healthy events
// flow on meanwhile.
func (r *Relay) sendLetters(now time.Time) {
	if r.digging > 0 || len(r.graves) == 0 || now.Before(r.graveyard.next) {
		return
	}
	n, bytes := 0, int64(0)
	for n < len(r.graves) && n < lettersAtOnce && (n == 0 || bytes+r.graves[n].message.Size() <= bytesAtOnce) {
		bytes += r.graves[n].message.Size()
		n++
	}
	graves := r.graves[:n:n]
	r.graves = r.graves[n:]
	r.digging = n
	letters := make([]*dlq.DeadLetter, n)
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
			r.log.Info("The dead-letter topic takes messages again", "held", len(r.graves))
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
			r.log.ErrorContext(b.ctx, "The dead-letter topic does not take messages; rejected events are held", "error", failure, "held", len(again)+len(r.graves))
		}
		g.away = failure.Error()
		g.next = now.Add(delay(r.rng, g.level, buryFirst, buryMost, 0))
		g.level++
		r.graves = append(again, r.graves...)
	}
	r.flushSettled()
}
