package relay

import (
	"context"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/bench/load"
	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/race"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// endless is a subscription that delivers a backlog as fast as it is taken, and a
// gateway that records everything at once: what is left is the worker's own part
// of an event's path.
type endless struct {
	maker *load.Maker
	plan  load.Plan
	next  atomic.Int64 // event
	acked atomic.Int64
	done  func() // all is acknowledged
}

// perResponse is how many messages a response has.
const perResponse = 500

func (e *endless) Stream(ctx context.Context, _ consume.Flow) (consume.Stream, error) {
	return &endlessStream{endless: e, ctx: ctx}, nil
}

type endlessStream struct {
	*endless
	ctx context.Context
	b   []byte
}

func (s *endlessStream) Recv() (consume.Response, error) {
	first := int(s.next.Add(perResponse)) - perResponse
	if first >= s.plan.Events {
		<-s.ctx.Done()
	}
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	s.b = s.b[:0]
	for i := first; i < min(first+perResponse, s.plan.Events); i++ {
		s.b = s.maker.Append(s.b, i, time.Now())
	}
	return consume.NewResponse(s.b), nil
}

func (e *endless) Pull(context.Context, int) (consume.Response, error) {
	return consume.NewResponse(nil), nil
}

func (e *endless) Acknowledge(_ context.Context, ackIDs []string) error {
	if e.acked.Add(int64(len(ackIDs))) == int64(e.plan.Events) {
		e.done()
	}
	return nil
}

func (e *endless) ModifyAckDeadline(context.Context, []string, time.Duration) error { return nil }

func (e *endless) Submit(_ context.Context, b submit.Batch) submit.Result {
	listed := make([]bool, len(b.Events))
	for i := range listed {
		listed[i] = true
	}
	return submit.Result{Listed: listed}
}

func (e *endless) Probe(context.Context, string) error { return nil }

// relayAll relays so many events and returns how many allocations that took.
func relayAll(tb testing.TB, events, publishers int) (allocations uint64) {
	plan := load.Plan{Events: events, Publishers: publishers}
	ctx, cancel := context.WithCancel(tb.Context())
	defer cancel()
	e := &endless{maker: load.NewMaker(plan), plan: plan, done: cancel}
	services, err := policy.NewSet(nil, true)
	if err != nil {
		tb.Fatal(err)
	}
	r := New(e, e, nil, Options{
		Batch:             batch.Limits{Events: 1000, Bytes: 3 << 20, Delay: 5 * time.Millisecond},
		SubmitConcurrency: 8,
		RejectAfter:       5,
		Consume:           consume.Options{MaxEvents: 20_000, MaxBytes: 128 << 20},
		ShutdownTimeout:   10 * time.Second,
		Services:          services,
		Environment:       load.Environment,
		Metrics:           metrics.New(),
		Logger:            slog.New(slog.DiscardHandler),
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	summary, err := r.Run(ctx)
	runtime.ReadMemStats(&after)
	if err != nil {
		tb.Fatal(err)
	}
	if summary.Submitted != events || summary.Received != events {
		tb.Fatalf("%+v, want %d events to be recorded", summary, events)
	}
	return after.Mallocs - before.Mallocs
}

// mostAllocations of one event on its whole path, with what its batch and its
// response need, and until there is memory to be used again.
const mostAllocations = 0.5

// TestPathAllocations guards that the memory of recorded events is used again.
func TestPathAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector empties sync.Pool at random")
	}
	const events = 200_000
	got := float64(relayAll(t, events, 10)) / events
	t.Logf("%.2f allocations an event", got)
	if got > mostAllocations {
		t.Errorf("%.2f allocations an event, want at most %.1f", got, mostAllocations)
	}
}

// BenchmarkPath is an event's whole path but for the network: read, decode, batch,
// settle, acknowledge.
func BenchmarkPath(b *testing.B) {
	for name, publishers := range map[string]int{"1": 1, "10": 10, "500": 500} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			relayAll(b, max(b.N, 1), publishers)
		})
	}
}
