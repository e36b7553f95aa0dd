package app_test

import (
	"log/slog"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/devstack"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/sample"
	"github.com/sourcegraph/telemetry-relay/internal/otelexport/otlptest"

	"github.com/sourcegraph/telemetry-relay/config"
)

// BenchmarkObserved relays 20,000 events in one process: without reports, with metrics
// pushed, and with every batch traced as well.
func BenchmarkObserved(b *testing.B) {
	const n = 20_000
	receiver := otlptest.Start(b)
	for name, vars := range map[string][]string{
		"off":     nil,
		"metrics": {"OTEL_EXPORTER_OTLP_ENDPOINT=" + receiver.URL, "OTEL_TRACES_EXPORTER=none"},
		"traces":  {"OTEL_EXPORTER_OTLP_ENDPOINT=" + receiver.URL},
	} {
		b.Run(name, func(b *testing.B) {
			events, err := sample.Events(n)
			if err != nil {
				b.Fatal(err)
			}
			for i := range events {
				events[i].Attributes["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				stack, err := devstack.Start(b.Context(), devstack.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if err := stack.Publish(events); err != nil {
					b.Fatal(err)
				}
				cfg, err := config.Load(append(append(stack.Environ(), "WORKER_MODE=drain", "WORKER_DRAIN_IDLE=100ms", "WORKER_BATCH_MAX_DELAY=100ms"), vars...), config.ForRun)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				s, err := app.Run(b.Context(), cfg, app.Options{Version: "bench", Logger: slog.New(slog.DiscardHandler)})
				b.StopTimer()
				if err != nil || s.Submitted != n {
					b.Fatalf("%+v, %v", s, err)
				}
				if err := stack.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/event")
		})
	}
}
