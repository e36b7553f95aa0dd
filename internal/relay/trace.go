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

// Tracer traces batches and dead-letter requests. The loop calls it once per batch and
// per request. Without a tracer, tracing costs nothing.
type Tracer interface {
	// Batch begins the trace of a batch of n events, which were published with these
	// messages. It may return nil, for one that is not to be traced.
	Batch(publisher event.Publisher, n int, messages iter.Seq[*consume.Message]) BatchTrace
	// DeadLetters begins the trace of a request that writes these messages. Some of
	// them come from the given batches. The function that it returns is called
	// with the results, from another goroutine.
	DeadLetters(ctx context.Context, messages []*dlq.DeadLetter, batches []BatchTrace) (context.Context, func(results []error))
}

// BatchTrace traces one batch until each of its events is settled. The loop calls it.
type BatchTrace interface {
	// Submission begins the trace of one try to submit events of the batch. The
	// function that it returns is called with the result, from another goroutine.
	Submission(ctx context.Context, s SubmissionInfo) (context.Context, func(submit.Result))
	// Retry notes that events are to be submitted again after a delay.
	Retry(cause string, events int, after time.Duration)
	// End says what became of the batch.
	End(recorded, rejected, released int)
}

// SubmissionInfo describes one try to submit events of a batch.
type SubmissionInfo struct {
	RequestID string
	Events    int
	Bytes     int
	Try       int // 1 is the first
	Suspect   bool
}

// batchTrace is a batch with a trace. The loop owns it.
type batchTrace struct {
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

// trace begins the trace of a submission, and that of its batch with the first.
func (s *submission) trace(ctx context.Context, tracer Tracer, info SubmissionInfo) (_ context.Context, ended func(submit.Result)) {
	if tracer == nil {
		return ctx, nil
	}
	first := s.events[0]
	if info.Try == 1 && first.trace == nil {
		t := tracer.Batch(s.publisher.id, len(s.events), func(yield func(*consume.Message) bool) {
			for _, e := range s.events {
				if !yield(e.message) {
					return
				}
			}
		})
		if t == nil {
			return ctx, nil
		}
		b := &batchTrace{BatchTrace: t, left: len(s.events)}
		for _, e := range s.events {
			e.trace = b
		}
	}
	if first.trace == nil {
		return ctx, nil
	}
	return first.trace.Submission(ctx, info)
}

// traceRetry notes a retry in the batch's trace.
func (s *submission) traceRetry(cause string, now time.Time) {
	if b := s.events[0].trace; b != nil {
		b.Retry(cause, len(s.events), s.due.Sub(now))
	}
}

// traceDeadLetters begins the trace of a request to the dead-letter topic.
func traceDeadLetters(ctx context.Context, tracer Tracer, events []*inflight, messages []*dlq.DeadLetter) (_ context.Context, ended func([]error)) {
	if tracer == nil {
		return ctx, nil
	}
	var batches []BatchTrace
	seen := map[*batchTrace]bool{}
	for _, e := range events {
		if b := e.trace; b != nil && !seen[b] {
			seen[b] = true
			batches = append(batches, b.BatchTrace)
		}
	}
	return tracer.DeadLetters(ctx, messages, batches)
}

// settled ends the trace of the batch with the last of its events.
func (b *batchTrace) settled(as fate) {
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
