package relay

import (
	"context"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// untraced is what a batch meets of tracing on its way, when it is off.
func untraced(sub *submission, messages []*dlq.DeadLetter, now time.Time) {
	_, submitted := sub.trace(context.Background(), nil, SubmissionInfo{RequestID: "id", Events: len(sub.events), Bytes: 1, Try: 1})
	if submitted != nil {
		submitted(submit.Result{})
	}
	sub.traceRetry("failed", now)
	_, written := traceDeadLetters(context.Background(), nil, sub.events, messages)
	if written != nil {
		written(nil)
	}
	for _, e := range sub.events {
		if e.trace != nil {
			e.trace.settled(wasRecorded)
		}
	}
}

func fixture() (*submission, []*dlq.DeadLetter) {
	sub := &submission{publisher: &publisher{}}
	for range 1000 {
		sub.events = append(sub.events, &inflight{message: &consume.Message{}})
	}
	return sub, make([]*dlq.DeadLetter, len(sub.events))
}

// TestTracingOffAllocatesNothing guards the promise that it costs nothing.
func TestTracingOffAllocatesNothing(t *testing.T) {
	sub, messages := fixture()
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() { untraced(sub, messages, now) }); n != 0 {
		t.Errorf("%v allocations for a batch, although nothing is traced", n)
	}
}

// BenchmarkTracingOff is for a batch of 1,000 events.
func BenchmarkTracingOff(b *testing.B) {
	sub, messages := fixture()
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		untraced(sub, messages, now)
	}
}
