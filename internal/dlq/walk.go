package dlq

import (
	"context"
	"errors"
	"io"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// Walk reads the queue once and visits the messages that match a filter.
type Walk struct {
	Queue  *Queue
	Filter *Filter
	// Environment is the environment of events that do not name theirs.
	Environment string
	// Stop ends the walk at the filter's limit. Without it the walk reads the rest, to
	// count it.
	Stop bool
	// FromStart excludes messages that came after the filter's PublishedBefore, which
	// is the start of this walk if it is not set.
	FromStart bool
	// Ours, if set, reports whether the command itself has caused a message. Such a
	// message counts as newer than the start, even if its publish time is older.
	Ours func(*Stored) bool
	// OnProgress, if set, is called after each part of the queue with its number of
	// messages.
	OnProgress func(read int)
	// OnLate, if set, is called for each message that is newer than the start. The walk
	// does not visit it.
	OnLate func(*Stored)

	// OnMessage, if set, is called for each message as it is in the queue.
	OnMessage func(*pubsubpb.PubsubMessage)

	// Read, Matched and Late count messages; Late are newer than the start.
	Read, Matched, Late int
	// Newest is the worker that rejected the newest of all messages, including those that
	// do not match. It is the best guess of the worker that runs now.
	Newest Worker
	// Ended is set when the walk has read to the end of the queue.
	Ended bool
	// Faults are the faults of the messages that matched, if the filter selects by fault.
	Faults map[string]struct{}
	// Cut is set when the walk ended at the limit and has not read the rest.
	Cut bool

	own bool // this walk has set the filter's PublishedBefore
}

// Worker is a worker as a dead-lettered message describes it.
type Worker struct {
	RejectedAt     time.Time
	ServicesDigest string // see policy.Set; empty if no message says it
}

// newest returns the worker of m if it rejected m after w rejected another message.
func (w Worker) newest(m *pubsubpb.PubsubMessage) Worker {
	a := m.GetAttributes()
	if a[AttrReason] == "" || a[AttrServicesDigest] == "" {
		return w
	}
	// A message is rejected before it is published to the queue. A later time is wrong,
	// and must not make its worker look like the newest.
	published := m.GetPublishTime().AsTime()
	at := instant(a[AttrRejectedAt], published)
	if at.After(published) {
		at = published
	}
	if !at.After(w.RejectedAt) {
		return w
	}
	return Worker{at, Word(fit(a[AttrServicesDigest]))}
}

// errEnough ends a walk without an error.
var errEnough = errors.New("enough")

// Each calls visit for each message that matches. It calls flush, if there is one,
// after each part of the queue; the caller should keep no message longer than that, to
// bound the memory. Each ends with the first error.
func (w *Walk) Each(ctx context.Context, visit func(*Stored) error, flush func() error) error {
	for {
		before := w.Read
		err := w.part(ctx, visit)
		enough := errors.Is(err, errEnough)
		if errors.Is(err, io.EOF) {
			w.Ended = true
			return nil
		}
		if err != nil && !enough {
			return err
		}
		if flush != nil {
			if err := flush(); err != nil {
				return err
			}
		}
		if w.OnProgress != nil {
			w.OnProgress(w.Read - before)
		}
		if enough {
			return nil
		}
	}
}

func (w *Walk) part(ctx context.Context, visit func(*Stored) error) error {
	messages, err := w.Queue.Next(ctx)
	if err != nil {
		return err
	}
	w.Read += len(messages)
	if w.FromStart && w.Filter.PublishedBefore.IsZero() {
		w.Filter.PublishedBefore = w.Queue.Started()
		w.own = true
	}
	if w.own {
		w.widen(messages)
	}
	for i, m := range messages {
		w.Newest = w.Newest.newest(m)
		if w.OnMessage != nil {
			w.OnMessage(m)
		}
		messages[i] = nil // so that its memory can be freed
		late := w.Filter.late(m.GetPublishTime().AsTime())
		if !late && w.full() && w.Ours == nil {
			continue
		}
		s := Read(m, w.Environment)
		if late || w.Ours != nil && w.Ours(s) {
			w.Late++
			if w.OnLate != nil {
				w.OnLate(s)
			}
			continue
		}
		if w.full() || !w.Filter.Match(s) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		w.Matched++
		if len(w.Filter.Faults) > 0 {
			w.addFault(FaultOf(s).ID())
		}
		if err := visit(s); err != nil {
			return err
		}
		if w.Stop && w.full() {
			w.Cut = true
			return errEnough
		}
	}
	return nil
}

// widen moves the start behind messages whose publish times are in the future by the
// local clock. Ours still excludes the messages that the command itself has caused.
func (w *Walk) widen(messages []*pubsubpb.PubsubMessage) {
	for _, m := range messages {
		if at := m.GetPublishTime().AsTime(); fromTheFuture(m) && w.Filter.late(at) {
			w.Filter.PublishedBefore = at.Add(1)
		}
	}
}

func (w *Walk) addFault(id string) {
	if w.Faults == nil {
		w.Faults = map[string]struct{}{}
	}
	w.Faults[id] = struct{}{}
}

func (w *Walk) full() bool { return w.Filter.Limit > 0 && w.Matched >= w.Filter.Limit }
