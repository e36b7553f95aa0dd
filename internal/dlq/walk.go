package dlq

import (
	"context"
	"errors"
	"io"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// Walk is one way through the queue.
type Walk struct {
	Queue  *Queue
	Filter *Filter
	// Environment is that of events that do not name theirs.
	Environment string
	// Stop ends the walk at the filter's limit. Without it the rest is read, too,
	// so that it is counted.
	Stop bool
	// FromStart leaves letters that came after the start: of this walk, unless the
	// filter has a time already.
	FromStart bool
	// Ours, if set, reports letters that the command itself has caused; they count
	// as having come after the start, whatever their time says.
	Ours func(*Stored) bool
	// OnProgress, if set, is called after each part with how many letters it had.
	OnProgress func(read int)
	// OnLate, if set, is given the letters that came after the start; they are
	// not visited.
	OnLate func(*Stored)

	// Read and Matched count letters; Late is how many came after the start.
	Read, Matched, Late int
	// Cut says that the walk ended at the limit, and has not seen the rest.
	Cut bool

	own bool // the time of the start is this walk's own
}

// errEnough ends a walk in good order.
var errEnough = errors.New("enough")

// Each gives the letters that match to visit, one by one, and calls flush, if
// there is one, after each part of the queue: nobody should hold a letter's data
// longer than that. It ends with the first error.
func (w *Walk) Each(ctx context.Context, visit func(*Stored) error, flush func() error) error {
	for {
		before := w.Read
		err := w.part(ctx, visit)
		enough := errors.Is(err, errEnough)
		if errors.Is(err, io.EOF) {
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
		messages[i] = nil // so that it can go
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

// widen moves the time of the start behind messages that are from the future by
// the local clock. What comes of the command itself is known by Ours.
func (w *Walk) widen(messages []*pubsubpb.PubsubMessage) {
	for _, m := range messages {
		if at := m.GetPublishTime().AsTime(); fromTheFuture(m) && w.Filter.late(at) {
			w.Filter.PublishedBefore = at.Add(1)
		}
	}
}

func (w *Walk) full() bool { return w.Filter.Limit > 0 && w.Matched >= w.Filter.Limit }
