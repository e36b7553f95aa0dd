package relay

import (
	"context"
	"iter"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// Tracer follows batches and dead letters. It is asked once per batch and per
// request, by the loop; without one, nothing is done for it.
type Tracer interface {
	// Batch begins to follow a batch of n events, which were published with these
	// messages. It may return nil, for one that is not to be followed.
	Batch(publisher event.Publisher, n int, messages iter.Seq[*consume.Message]) BatchTrace
	// DeadLetters begins to follow a request that writes these letters. Some of
	// them come from the given batches. The function that it returns is called
	// with the results, from another goroutine.
	DeadLetters(ctx context.Context, letters []*dlq.DeadLetter, batches []BatchTrace) (context.Context, func(results []error))
}

// BatchTrace follows one batch until each of its events is settled. The loop
// calls it.
type BatchTrace interface {
	// Submission begins to follow one try to submit events of the batch. The
	// function that it returns is called with the result, from another goroutine.
	Submission(ctx context.Context, s Submission) (context.Context, func(submit.Result))
	// Retry notes that events are to be submitted again after a delay.
	Retry(cause string, events int, after time.Duration)
	// End says what became of the batch.
	End(recorded, rejected, released int)
}

// Submission is one try to submit events of a batch.
type Submission struct {
	RequestID string
	Events    int
	Bytes     int
	Try       int // 1 is the first
	Suspect   bool
}

// followed is a batch with a trace. The loop owns it.
type followed struct {
	BatchTrace
	left                         int // events that are not settled
	recorded, rejected, released int
}

// fate is what becomes of an event.
type fate int

const (
	wasReleased fate = iota
	wasRecorded
	wasRejected
)

// follow begins the trace of a submission, and that of its batch with the first.
func (r *Relay) follow(f *flight, s Submission) (ctx context.Context, ended func(submit.Result)) {
	if r.opts.Tracer == nil {
		return r.work, nil
	}
	first := f.events[0]
	if s.Try == 1 && first.followed == nil {
		t := r.opts.Tracer.Batch(f.publisher.id, len(f.events), func(yield func(*consume.Message) bool) {
			for _, h := range f.events {
				if !yield(h.message) {
					return
				}
			}
		})
		if t == nil {
			return r.work, nil
		}
		b := &followed{BatchTrace: t, left: len(f.events)}
		for _, h := range f.events {
			h.followed = b
		}
	}
	if first.followed == nil {
		return r.work, nil
	}
	return first.followed.Submission(r.work, s)
}

// followRetry notes a retry in the batch's trace.
func (f *flight) followRetry(cause string, now time.Time) {
	if b := f.events[0].followed; b != nil {
		b.Retry(cause, len(f.events), f.due.Sub(now))
	}
}

// followLetters begins the trace of a request to the dead-letter topic.
func (r *Relay) followLetters(graves []*held, letters []*dlq.DeadLetter) (ctx context.Context, ended func([]error)) {
	if r.opts.Tracer == nil {
		return r.work, nil
	}
	var batches []BatchTrace
	seen := map[*followed]bool{}
	for _, h := range graves {
		if b := h.followed; b != nil && !seen[b] {
			seen[b] = true
			batches = append(batches, b.BatchTrace)
		}
	}
	return r.opts.Tracer.DeadLetters(r.work, letters, batches)
}

// settled ends the trace of the batch with the last of its events.
func (b *followed) settled(as fate) {
	switch as {
	case wasRecorded:
		b.recorded++
	case wasRejected:
		b.rejected++
	case wasReleased:
		b.released++
	}
	b.left--
	if b.left == 0 {
		b.End(b.recorded, b.rejected, b.released)
	}
}
