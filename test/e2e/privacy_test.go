package e2e_test

import (
	"strings"
	"syscall"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// TestPrivateValuesDoNotLeak looks for private values in all outputs. Only events may have
// them.
func TestPrivateValuesDoNotLeak(t *testing.T) {
	const marker = "pr1vate-mark"
	private := `"privateMetadata":{"` + marker + `":"` + marker + `","list":["` + marker + `"],"deep":{"` + marker + `":{"k":"` + marker + `"}}}`
	withID := func(i int, more string) *pubsubpb.PubsubMessage {
		return message(with(`"id":"` + eventID(i) + `",` + more))
	}
	good := []*pubsubpb.PubsubMessage{
		withID(0, private),
		message(with(private)),
		named(with(private), "service_id", "dropper"),
		withID(poison, private), // never recorded
		withID(99, private),     // refused
	}
	bad := []*pubsubpb.PubsubMessage{
		message(`{"feature":"Bad",` + private + `}`),
		message(with(private + `,"unknown":"` + marker + `"`)),
		message(with(private + `,"user":{"email":"` + marker + `"}`)),
		message(with(private + `,"metadata":{"n":"` + marker + `"}`)),
		message(with(private + `,"metadataVersion":"` + marker + `"`)),
		message(with(private + `,"user":"` + marker + `"`)),
		message(with(private + `,"user":{"userId":"` + marker + `"}`)),
		message(with(private + `,"featureFlags":["` + marker + `"]`)),
		message(with(`"privateMetadata":"` + marker + `"`)),
		message(with(`"privateMetadata":["` + marker + `"]`)),
		message(with(`"privateMetadata":{"k":"` + marker + `","k":"` + marker + `2"}`)),
		message(with(`"privateMetadata":{"` + marker + `":1,"` + marker + `":2}`)),
		message(with(`"privateMetadata":{"` + marker + `":1e999}`)),
		message(with(`"privateMetadata":{"k":"` + marker + "\xff" + `"}`)),
		message(with(`"privateMetadata":{"k":` + marker + `}`)),
		message(with(`"privateMetadata":{"k":"` + marker)),
		message(`["` + marker + `"]`),
		message(`"` + marker + `"`),
		message(marker),
		message(with(private) + marker),
		named(`{"feature":"strict.a","action":"sent",`+private+`}`, "service_id", "strict"),
		message(with(`"privateMetadata":{"k":"` + marker + strings.Repeat("<", 1_700_000) + `"}`)),
	}
	h := newEnv(t)
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		if has(events, 99) {
			// The gateway quotes the events that it refuses.
			return gatewayserver.Fault{Err: status.Errorf(codes.InvalidArgument, "bad: %s", marker)}
		}
		return gatewayserver.Fault{Omit: []string{eventID(poison)}}
	})
	h.publish(good...)
	h.publish(bad...)
	p := h.start(continuous, "LOG_LEVEL=debug", "WORKER_REJECT_AFTER=2", "WORKER_DIAGNOSTICS_ADDR="+freeAddr(t))
	// The verdict on an event that is left out needs other events that are recorded.
	next := 100
	testenv.Eventually(t, "everything is settled", func() bool {
		h.publish(event(next))
		next++
		return p.metric("telemetry_relay_events_rejected_total") == float64(len(bad)+2)
	})
	omits(t, p.get("/metrics", "").body, marker)
	got := p.stop(syscall.SIGTERM).exits(0)
	omits(t, got.stdout+got.stderr, marker)
	for _, m := range h.take(dlqSubID, len(bad)+2) {
		for key, value := range m.GetAttributes() {
			if strings.Contains(key+value, marker) {
				t.Errorf("attribute %s of a dead-lettered message says %q", key, value)
			}
		}
		if !strings.Contains(string(m.GetData()), marker) {
			t.Errorf("a dead-lettered message has lost its data: %v", m.GetAttributes())
		}
	}

	// `publish` reports the same lines to its caller.
	var lines []byte
	for _, m := range bad {
		lines = append(lines, line(t, m)...)
	}
	published := execute(t, h.environ(), strings.NewReader(string(lines)), "publish").exits(1)
	omits(t, published.stdout+published.stderr, marker)
	broken := execute(t, h.environ(), strings.NewReader(`{"data":{"privateMetadata":"`+marker+`"`+"\n"+`{"`+marker+`":1}`+"\n"), "publish").exits(1)
	contains(t, broken.stderr, "stdin:1", "stdin:2")
}

// TestLibrariesAreQuiet makes every library of the worker log as much as it can. Only the
// worker's own lines may appear.
func TestLibrariesAreQuiet(t *testing.T) {
	h := newEnv(t)
	r := newReports(t)
	h.publish(message(with(privateData)), message(with(privateData+`,"unknown":1`)))
	got := h.run(append(r.environ(), "LOG_LEVEL=debug", "LOG_FORMAT=json",
		"GOOGLE_SDK_GO_LOGGING_LEVEL=debug", "GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_GO_LOG_VERBOSITY_LEVEL=99",
		"GODEBUG=http2debug=2", "SENTRYGODEBUG=httpdump=1,httptrace=1", "OTEL_LOG_LEVEL=debug", "OTEL_EXPORTER_OTLP_HEADERS=api-key="+diagnosticsMark)...).exits(0)
	got.sums(summary{Received: 2, Submitted: 1, Rejected: map[string]int{"invalid_event": 1}, Ended: "drained"})
	r.omit(t, got)
	for line := range strings.Lines(got.stderr) {
		if !strings.HasPrefix(line, `{"time":`) || !strings.Contains(line, `"severity":`) {
			t.Errorf("not a line of the worker's: %s", clip(line))
		}
	}
}

// TestMalformedTelemetryVariables requires that the worker does not start, and does not
// show the value.
func TestMalformedTelemetryVariables(t *testing.T) {
	const marker = "s3cr3t-header"
	h := newEnv(t)
	got := h.run("OTEL_EXPORTER_OTLP_HEADERS=Authorization: Bearer "+marker, "OTEL_METRIC_EXPORT_INTERVAL=10s", "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:1").exits(2)
	contains(t, got.stderr, "OTEL_EXPORTER_OTLP_HEADERS: expected key=value pairs", "OTEL_METRIC_EXPORT_INTERVAL: expected a whole number of milliseconds")
	omits(t, got.stdout+got.stderr, marker, "10s")
}
