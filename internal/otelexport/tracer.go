package otelexport

import (
	"context"
	"iter"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// Tracer makes the spans of batches and of writes to the dead-letter topic:
//
//	batch                 until each of its events is settled; linked to the
//	├─ submit             publishers' traces
//	└─ submit             again, with the events that were left out
//	dead-letter write     linked to the batches that its messages come from
//
// A span has publishers and counts, and no other data of events.
type Tracer struct {
	tracer trace.Tracer
}

// NewTracer returns a tracer that makes its spans with the provider.
func NewTracer(provider trace.TracerProvider) *Tracer {
	return &Tracer{tracer: provider.Tracer("github.com/sourcegraph/telemetry-relay")}
}

// maxLinks is how many publishers' traces a batch is linked to at most, which is
// also OpenTelemetry's default limit.
const maxLinks = 128

// Batch begins the span of a batch.
func (t *Tracer) Batch(publisher event.Publisher, n int, messages iter.Seq[*consume.Message]) relay.BatchTrace {
	ctx, span := t.tracer.Start(context.Background(), "batch", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer))
	if !span.IsRecording() {
		return nil
	}
	span.SetAttributes(
		semconv.MessagingSystemGCPPubSub,
		semconv.MessagingOperationTypeProcess,
		semconv.MessagingOperationName("batch"),
		semconv.MessagingBatchMessageCount(n),
		attribute.String("service_id", publisher.ServiceID),
		attribute.String("service_environment", publisher.Environment),
	)
	links := map[string]bool{}
	for m := range messages {
		if len(links) == maxLinks {
			break
		}
		addLink(span, links, m.Attributes)
	}
	return &batch{tracer: t.tracer, ctx: ctx, span: span}
}

// batch is the span of one batch. The relay's loop owns it; the spans of its
// submissions end elsewhere.
type batch struct {
	tracer trace.Tracer
	ctx    context.Context // has the span, and no deadline
	span   trace.Span
}

// Submission begins the span of one try.
func (b *batch) Submission(ctx context.Context, s relay.SubmissionInfo) (context.Context, func(submit.Result)) {
	//nolint:spancheck // The function that is returned ends it.
	ctx, span := b.tracer.Start(trace.ContextWithSpan(ctx, b.span), "submit", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("request_id", s.RequestID),
		attribute.Int("events", s.Events),
		attribute.Int("bytes", s.Bytes),
		attribute.Int("try", s.Try),
		attribute.Bool("suspect", s.Suspect),
		semconv.RPCSystemNameGRPC,
		semconv.RPCMethod("telemetrygateway.v1.TelemeteryGatewayService/RecordEvents"),
	))
	//nolint:spancheck // As above.
	return ctx, func(r submit.Result) {
		listed := 0
		for _, ok := range r.Listed {
			if ok {
				listed++
			}
		}
		span.SetAttributes(attribute.Int("recorded", listed), semconv.RPCResponseStatusCode(r.Code().String()))
		if r.Failure != nil {
			// The gateway's error message may quote an event.
			span.SetAttributes(attribute.String("failure", r.Failure.Class.String()))
			span.SetStatus(codes.Error, r.Code().String())
		}
		span.End()
	}
}

// Retry adds an event to the batch's span.
func (b *batch) Retry(cause string, events int, after time.Duration) {
	b.span.AddEvent("retry", trace.WithAttributes(
		attribute.String("cause", cause), attribute.Int("events", events), attribute.Float64("after_seconds", after.Seconds())))
}

// End ends the span.
func (b *batch) End(recorded, rejected, released int) {
	b.span.SetAttributes(attribute.Int("recorded", recorded), attribute.Int("rejected", rejected), attribute.Int("released", released))
	b.span.End()
}

// DeadLetters begins the span of a request to the dead-letter topic.
func (t *Tracer) DeadLetters(ctx context.Context, letters []*dlq.DeadLetter, batches []relay.BatchTrace) (context.Context, func([]error)) {
	ctx, span := t.tracer.Start(ctx, "dead-letter write", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindProducer))
	if !span.IsRecording() {
		return ctx, func([]error) { span.End() }
	}
	span.SetAttributes(semconv.MessagingSystemGCPPubSub, semconv.MessagingOperationTypeSend,
		semconv.MessagingOperationName("publish"), semconv.MessagingBatchMessageCount(len(letters)))
	for _, b := range batches {
		if b, ok := b.(*batch); ok {
			span.AddLink(trace.Link{SpanContext: b.span.SpanContext()})
		}
	}
	reasons := map[event.Reason]int{}
	links := map[string]bool{}
	for _, l := range letters {
		reasons[l.Rejection.Reason]++
		// An event that was rejected before it was sent belongs to no batch.
		if l.Attempts == 0 && len(links)+len(batches) < maxLinks {
			addLink(span, links, l.Attributes)
		}
	}
	for reason, n := range reasons {
		span.SetAttributes(attribute.Int("rejected."+string(reason), n))
	}
	return ctx, func(results []error) {
		failed := 0
		for _, err := range results {
			if err != nil {
				failed++
			}
		}
		span.SetAttributes(attribute.Int("failed", failed))
		if failed > 0 {
			span.SetStatus(codes.Error, "messages were not written")
		}
		span.End()
	}
}

var (
	w3c          = propagation.TraceContext{}
	traceparents = []string{event.AttrTraceparent, event.AttrGoogleTraceparent}
)

// addLink links a span to the trace in which a message was published, once.
func addLink(span trace.Span, links map[string]bool, attributes map[string]string) {
	for _, name := range traceparents {
		parent := attributes[name]
		if links[parent] {
			return
		}
		if parent == "" {
			continue
		}
		from := trace.SpanContextFromContext(w3c.Extract(context.Background(), propagation.MapCarrier{"traceparent": parent}))
		if from.IsValid() {
			links[parent] = true
			span.AddLink(trace.Link{SpanContext: from})
			return
		}
	}
}
