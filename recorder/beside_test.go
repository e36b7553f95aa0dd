package recorder

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// BenchmarkBeside measures, in one run, other records of the same event that services
// already make: a log line, and a span with its attributes. None of them passes its data
// on.
func BenchmarkBeside(b *testing.B) {
	ctx := tracedContext()
	b.Run("recorder", func(b *testing.B) {
		r := newFast(b, Config{BufferEvents: 1 << 20, BufferBytes: 1 << 40})
		b.ReportAllocs()
		for b.Loop() {
			if err := typical(ctx, r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("slog", func(b *testing.B) {
		log := slog.New(slog.NewJSONHandler(io.Discard, nil)) //nolint:sloglint // The rendering is what is measured.
		b.ReportAllocs()
		for b.Loop() {
			log.LogAttrs(ctx, slog.LevelInfo, "hover shown",
				slog.Float64("tier", 1), slog.Float64("duration_ms", 12.5),
				slog.String("repository", "github.com/sourcegraph/example"),
				slog.String("sams_external_id", "f0bbe9cf-42f2-4c05-873f-9bd066080f17"),
				slog.String("client", "VSCode.Cody"), slog.String("client_version", "1.84.0"))
		}
	})
	b.Run("otel-span", func(b *testing.B) {
		provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithSpanProcessor(nowhere{}))
		tracer := provider.Tracer("bench")
		b.ReportAllocs()
		for b.Loop() {
			_, span := tracer.Start(ctx, "cody.hover shown")
			span.SetAttributes(
				attribute.Float64("tier", 1), attribute.Float64("durationMs", 12.5),
				attribute.String("repository", "github.com/sourcegraph/example"),
				attribute.String("samsExternalId", "f0bbe9cf-42f2-4c05-873f-9bd066080f17"),
				attribute.String("client", "VSCode.Cody"), attribute.String("clientVersion", "1.84.0"))
			span.End()
		}
	})
}

// nowhere is a span processor that drops spans, so that no exporter is measured.
type nowhere struct{}

func (nowhere) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (nowhere) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (nowhere) Shutdown(context.Context) error                  { return nil }
func (nowhere) ForceFlush(context.Context) error                { return nil }
