package logging

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// Cloud Logging's fields for the trace that a record belongs to.
const (
	traceField   = "logging.googleapis.com/trace"
	spanField    = "logging.googleapis.com/spanId"
	sampledField = "logging.googleapis.com/trace_sampled"
)

// Correlate returns a handler that adds the context's trace in Cloud Logging's fields, so
// that Cloud Trace shows a span together with its log records.
func Correlate(next slog.Handler, project string) slog.Handler {
	return correlator{next: next, prefix: "projects/" + project + "/traces/"}
}

type correlator struct {
	next   slog.Handler
	prefix string
}

// Enabled is the next handler's.
func (c correlator) Enabled(ctx context.Context, level slog.Level) bool {
	return c.next.Enabled(ctx, level)
}

// Handle adds the trace, if there is one.
func (c correlator) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r = r.Clone()
		r.AddAttrs(
			attr(traceField, slog.StringValue(c.prefix+span.TraceID().String())),
			attr(spanField, slog.StringValue(span.SpanID().String())),
			attr(sampledField, slog.BoolValue(span.IsSampled())),
		)
	}
	return c.next.Handle(ctx, r)
}

func attr(key string, value slog.Value) slog.Attr { return slog.Attr{Key: key, Value: value} }

// WithAttrs and WithGroup derive a handler that adds the trace, too.
func (c correlator) WithAttrs(attrs []slog.Attr) slog.Handler {
	return correlator{next: c.next.WithAttrs(attrs), prefix: c.prefix}
}

// WithGroup returns a handler like WithAttrs.
func (c correlator) WithGroup(name string) slog.Handler {
	return correlator{next: c.next.WithGroup(name), prefix: c.prefix}
}
