package app_test

import (
	"encoding/hex"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/otelexport/otlptest"
)

// TestTraceLinksEveryTry follows a batch whose first stream fails, of which one event is
// always left out, and an event that is rejected on arrival.
func TestTraceLinksEveryTry(t *testing.T) {
	t.Parallel()
	const poison = 3
	h := newEnv(t)
	receiver := otlptest.Start(t)
	var streams atomic.Int32
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		if streams.Add(1) == 1 {
			return gatewayserver.Fault{Err: status.Error(codes.Unavailable, "passing")}
		}
		return gatewayserver.Fault{Omit: []string{eventID(poison)}}
	})
	parent := func(i int) string { return fmt.Sprintf("%031d1-%015d1", i, i) } // trace and span
	messages := numbered(30)                                                   // so many that others prove the poison's fault
	for i, m := range messages[:10] {
		name := "traceparent"
		if i%2 == 1 {
			name = "googclient_traceparent"
		}
		m.Attributes[name] = "00-" + parent(i/2) + "-01" // two of each trace
	}
	messages[9].Attributes["googclient_traceparent"] = "nonsense"
	h.publish(messages...)
	h.publish(message(`[]`, "traceparent", "00-"+parent(77)+"-00"))
	s, err := h.run(t.Context(), "WORKER_REJECT_AFTER=2", "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver.URL)
	h.drained(s, err, 29, none{event.MalformedPayload: 1, event.GatewayRejected: 1})

	batches, submits, writes := receiver.Spans("batch"), receiver.Spans("submit"), receiver.Spans("dead-letter write")
	if len(submits) != s.Batches {
		t.Errorf("%d spans of %d submissions", len(submits), s.Batches)
	}
	// Each event is in one batch, with its link, whatever the batches are.
	count := map[string]int{}
	links := map[string]bool{}
	retries := 0
	for _, b := range batches {
		attributes := otlptest.Attributes(b.GetAttributes())
		for _, key := range []string{"messaging.batch.message_count", "recorded", "rejected", "released"} {
			var n int
			fmt.Sscanf(attributes[key], "int_value:%d", &n)
			count[key] += n
		}
		if attributes["service_id"] != "cody-gateway" || attributes["service_environment"] != "test" {
			t.Errorf("a batch says %v", attributes)
		}
		for _, l := range b.GetLinks() {
			links[hex.EncodeToString(l.GetTraceId())+"-"+hex.EncodeToString(l.GetSpanId())] = true
		}
		for _, e := range b.GetEvents() {
			if e.GetName() == "retry" {
				retries++
			}
		}
		if b.GetEndTimeUnixNano() < b.GetStartTimeUnixNano() || len(b.GetParentSpanId()) > 0 {
			t.Errorf("a batch is no whole span of its own: %v", b)
		}
	}
	if count["messaging.batch.message_count"] != 30 || count["recorded"] != 29 || count["rejected"] != 1 || count["released"] != 0 {
		t.Errorf("the batches say %v", count)
	}
	for i := range 5 {
		if !links[parent(i)] {
			t.Errorf("no link to the publisher's trace %s, only %v", parent(i), links)
		}
	}
	if len(links) != 5 {
		t.Errorf("links %v", links)
	}
	// The first stream failed, and the events that were left out were submitted again.
	if retries < 2 {
		t.Errorf("%d retries", retries)
	}
	for _, span := range submits {
		if !slices.ContainsFunc(batches, func(b *tracev1.Span) bool {
			return string(b.GetSpanId()) == string(span.GetParentSpanId()) && string(b.GetTraceId()) == string(span.GetTraceId())
		}) {
			t.Errorf("a submission is of no batch: %v", span)
		}
	}
	if !slices.ContainsFunc(submits, func(s *tracev1.Span) bool {
		return s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR && s.GetStatus().GetMessage() == "Unavailable"
	}) {
		t.Error("no submission says that it failed")
	}
	written, toPublisher, toBatch := 0, false, false
	for _, l := range writes {
		var n int
		fmt.Sscanf(otlptest.Attributes(l.GetAttributes())["messaging.batch.message_count"], "int_value:%d", &n)
		written += n
		for _, link := range l.GetLinks() {
			toPublisher = toPublisher || hex.EncodeToString(link.GetTraceId()) == parent(77)[:32]
			toBatch = toBatch || slices.ContainsFunc(batches, func(b *tracev1.Span) bool { return string(b.GetSpanId()) == string(link.GetSpanId()) })
		}
	}
	if written != 2 || !toPublisher || !toBatch {
		t.Errorf("%d letters were written; link to the publisher: %v, to the batch: %v", written, toPublisher, toBatch)
	}
}

// TestTracesSampled asks the standard's sampler for nothing.
func TestTracesSampled(t *testing.T) {
	h := newEnv(t)
	receiver := otlptest.Start(t)
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	h.publish(numbered(10)...)
	s, err := h.run(t.Context(), "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver.URL)
	h.drained(s, err, 10, none{})
	if n := len(receiver.Spans("batch")) + len(receiver.Spans("submit")); n != 0 {
		t.Errorf("%d spans although none is sampled", n)
	}
	if len(receiver.Pushes()) == 0 {
		t.Error("metrics do not depend on the sampler")
	}
}
