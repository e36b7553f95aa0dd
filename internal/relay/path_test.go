package relay

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"syscall"
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

// endless is a subscription that delivers a backlog as fast as it is taken, as far
// as so much may be unacknowledged, and a gateway that records everything at once:
// so the rest is the worker's own part of an event's path.
type endless struct {
	maker *load.Maker
	plan  load.Plan
	done  func() // all is acknowledged

	mu      sync.Mutex
	changed sync.Cond // something was acknowledged, or a stream is to end
	next    int       // event
	acked   int
}

const (
	// perResponse is how many messages a response has.
	perResponse = 100
	// maxUnacked is how many may be unacknowledged.
	maxUnacked = 20_000
)

func (e *endless) Stream(ctx context.Context, _ consume.Flow) (consume.Stream, error) {
	context.AfterFunc(ctx, func() {
		e.mu.Lock() // or it comes between a look at ctx and the wait, unheard
		defer e.mu.Unlock()
		e.changed.Broadcast()
	})
	return &endlessStream{endless: e, ctx: ctx}, nil
}

type endlessStream struct {
	*endless
	ctx context.Context
	b   []byte
}

// Ping is not answered: this stream is never quiet.
func (s *endlessStream) Ping() error { return nil }

func (s *endlessStream) Recv() (consume.Response, error) {
	first, end, err := s.take()
	if err != nil {
		return nil, err
	}
	s.b = s.b[:0]
	for i := first; i < end; i++ {
		s.b = s.maker.Append(s.b, i, time.Now())
	}
	return consume.NewResponse(s.b), nil
}

// take waits until a response may be sent.
func (s *endlessStream) take() (first, end int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ctx.Err() == nil && (s.next == s.plan.Events || s.next-s.acked+perResponse > maxUnacked) {
		s.changed.Wait()
	}
	first = s.next
	s.next = min(first+perResponse, s.plan.Events)
	return first, s.next, s.ctx.Err()
}

func (e *endless) Pull(context.Context, int, bool) (consume.Response, error) {
	return consume.NewResponse(nil), nil
}

func (e *endless) Acknowledge(_ context.Context, ackIDs []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.acked += len(ackIDs)
	e.changed.Broadcast()
	if e.acked == e.plan.Events {
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

func (e *endless) Tokenless() bool { return false }

// relayAll relays so many events and returns how many allocations that took.
func relayAll(tb testing.TB, events, publishers int, limits batch.Limits) (allocations uint64) {
	plan := load.Plan{Events: events, Publishers: publishers}
	ctx, cancel := context.WithCancel(tb.Context())
	defer cancel()
	e := &endless{maker: load.NewMaker(plan), plan: plan, done: cancel}
	e.changed.L = &e.mu
	services, err := policy.NewSet(nil, true)
	if err != nil {
		tb.Fatal(err)
	}
	r := New(e, e, nil, Options{
		Batch:           limits,
		Streams:         8,
		RejectAfter:     5,
		Consume:         consume.Options{MaxEvents: maxUnacked, MaxBytes: 128 << 20},
		ShutdownTimeout: 10 * time.Second,
		Services:        services,
		Environment:     load.Environment,
		Metrics:         metrics.New(),
		Logger:          slog.New(slog.DiscardHandler),
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

// maxAllocations of one event on its whole path: its message, the message's texts,
// the message's data, the event and its encoding; and a share of what its batch and
// its response need.
const maxAllocations = 5.5

// TestPathAllocations guards the memory that an event takes.
func TestPathAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector empties sync.Pool at random")
	}
	const events = 200_000
	got := float64(relayAll(t, events, 10, batch.Limits{Events: 1000, Bytes: 3 << 20, Delay: 5 * time.Millisecond})) / events
	t.Logf("%.2f allocations an event", got)
	if got > maxAllocations {
		t.Errorf("%.2f allocations an event, want at most %.1f", got, maxAllocations)
	}
}

// BenchmarkPath is an event's whole path but for the network: read, decode, batch,
// settle, acknowledge. CPU is what counts: the last batch waits in vain to fill.
//
// Streams are free here. More publishers cost more because of their batches, and because
// events are in flight until their batch is full.
func BenchmarkPath(b *testing.B) {
	for _, c := range []struct {
		name               string
		publishers, events int // events of a batch at most
	}{
		{"1 publisher, batches of 1,000", 1, 1000},
		{"1 publisher, batches of 57", 1, 57},
		{"1 publisher, as many in flight as may be", 1, maxUnacked},
		{"10 publishers", 10, 1000},
		{"500 publishers, as many in flight as may be", 500, 1000},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpuTime(b)
			relayAll(b, b.N, c.publishers, batch.Limits{Events: c.events, Bytes: 30 << 20, Delay: 100 * time.Millisecond})
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what this process has used so far.
func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
