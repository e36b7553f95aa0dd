package relay

import (
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// untraced is what a batch meets of tracing on its way, when it is off.
func untraced(r *Relay, f *flight, letters []*dlq.DeadLetter, now time.Time) {
	_, submitted := r.follow(f, Submission{RequestID: "id", Events: len(f.events), Bytes: 1, Try: 1})
	if submitted != nil {
		submitted(outcome{}.result)
	}
	f.followRetry("failed", now)
	_, written := r.followLetters(f.events, letters)
	if written != nil {
		written(nil)
	}
	for _, h := range f.events {
		if h.followed != nil {
			h.followed.settled(wasRecorded)
		}
	}
}

func fixture() (*Relay, *flight, []*dlq.DeadLetter) {
	f := &flight{publisher: &publisher{}}
	for range 1000 {
		f.events = append(f.events, &held{message: &consume.Message{}})
	}
	return &Relay{}, f, make([]*dlq.DeadLetter, len(f.events))
}

// TestTracingOffAllocatesNothing guards the promise that it costs nothing.
func TestTracingOffAllocatesNothing(t *testing.T) {
	r, f, letters := fixture()
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() { untraced(r, f, letters, now) }); n != 0 {
		t.Errorf("%v allocations for a batch, although nothing is traced", n)
	}
}

// BenchmarkTracingOff is for a batch of 1,000 events.
func BenchmarkTracingOff(b *testing.B) {
	r, f, letters := fixture()
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		untraced(r, f, letters, now)
	}
}
