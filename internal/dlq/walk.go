package dlq

import (
	"context"
	"errors"
	"io"
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
	// OnProgress, if set, is called after each part with how many letters it had.
	OnProgress func(read int)
	// OnLate, if set, is given the letters that came after the start; they are
	// not visited.
	OnLate func(*Stored)

	// Read and Matched count letters; Late is how many came after the start.
	Read, Matched, Late int
	// Cut says that the walk ended at the limit, and has not seen the rest.
	Cut bool
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
	for i, m := range messages {
		messages[i] = nil // so that it can go
		if w.Filter.late(m.GetPublishTime().AsTime()) {
			w.Late++
			if w.OnLate != nil {
				w.OnLate(Read(m, w.Environment))
			}
			continue
		}
		if w.full() {
			continue
		}
		s := Read(m, w.Environment)
		if !w.Filter.Match(s) {
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

func (w *Walk) full() bool { return w.Filter.Limit > 0 && w.Matched >= w.Filter.Limit }
