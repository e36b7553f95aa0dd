package recorder

import (
	"context"
	"log/slog"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

// typical is an event as services record it: with a few numbers, a user, a client, private
// metadata, and a trace.
func typical(ctx context.Context, r *Recorder) error {
	return r.Record(ctx, "cody.hover", "shown",
		Metadata{"tier": 1, "durationMs": 12.5},
		PrivateMetadata{"repository": "github.com/sourcegraph/example"},
		User{SAMSExternalID: "f0bbe9cf-42f2-4c05-873f-9bd066080f17"},
		Client{Name: "VSCode.Cody", Version: "1.84.0"})
}

func tracedContext() context.Context {
	return trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{4, 5},
	}))
}

// settled is a result that is ready at once.
type settled struct{ err error }

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (settled) Ready() <-chan struct{}                { return closedChannel }
func (s settled) Get(context.Context) (string, error) { return "", s.err }
func (s settled) send(context.Context, []byte) result { return s }

func newFast(tb testing.TB, cfg Config) *Recorder {
	tb.Helper()
	return newWith(tb, cfg, settled{})
}

// newWith returns a recorder that publishes to a sender of the test.
func newWith(tb testing.TB, cfg Config, to sender) *Recorder {
	tb.Helper()
	cfg.Service = Service{ID: "cody-gateway", Environment: "prod", Version: "2026.46.1"}
	cfg.Topic = "projects/p/topics/t"
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg, err := cfg.complete()
	if err != nil {
		tb.Fatal(err)
	}
	v, err := newValidator(cfg.Service)
	if err != nil {
		tb.Fatal(err)
	}
	b := newAccounting(cfg.Logger, target(cfg)...)
	b.perMessage = v.attributeBytes
	r := &Recorder{validator: v, accounting: b, outlet: newPipeline(cfg, to, b, new(cause))}
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx) // what the test has left is of no interest
	})
	return r
}

// BenchmarkRecord measures what a typical event costs its caller, options and all.
func BenchmarkRecord(b *testing.B) {
	ctx := tracedContext()
	r := newFast(b, Config{BufferEvents: 1 << 20, BufferBytes: 1 << 40})
	b.ReportAllocs()
	for b.Loop() {
		if err := typical(ctx, r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRecordFull is BenchmarkRecord with a full buffer, during an outage of Pub/Sub.
func BenchmarkRecordFull(b *testing.B) {
	ctx := tracedContext()
	r := newWith(b, Config{BufferEvents: 1}, stuck{})
	_ = typical(ctx, r)
	b.ReportAllocs()
	for b.Loop() {
		_ = typical(ctx, r)
	}
}

// BenchmarkRecordNil measures the cost where telemetry is switched off.
func BenchmarkRecordNil(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = typical(context.Background(), nil)
	}
}

// stuck is a sender, and a result that never comes.
type stuck struct{}

func (stuck) Ready() <-chan struct{}              { return nil }
func (stuck) Get(context.Context) (string, error) { return "", nil }
func (stuck) send(context.Context, []byte) result { return stuck{} }
