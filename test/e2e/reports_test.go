package e2e_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/otelexport/otlptest"
	"github.com/sourcegraph/telemetry-relay/internal/sentry/sentrytest"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

const (
	privateMark      = "pr1vate-mark"
	privateData      = `"privateMetadata":{"` + privateMark + `":"` + privateMark + `"}`
	diagnosticsMark  = "d1agnostics-secret"
	tokenMark        = "sams_at_" // begins every access token
	publishersTrace  = "0af7651916cd43dd8448eb211c80319c"
	publishersParent = "00-" + publishersTrace + "-b7ad6b7169203331-01"
)

// reports has everything that the worker may report to other services.
type reports struct {
	otlp   *otlptest.Receiver
	sentry *sentrytest.Server
}

func newReports(t *testing.T) reports {
	t.Helper()
	return reports{otlptest.Start(t), sentrytest.Start(t)}
}

// environ returns the variables with which a job reports.
func (r reports) environ() []string {
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.otlp.URL, "SENTRY_DSN=" + r.sentry.DSN, "JOB_EXECUTION_CRON_SCHEDULE=*/15 * * * *",
		"CLOUD_RUN_JOB=telemetry-relay", "CLOUD_RUN_EXECUTION=telemetry-relay-x7", "CLOUD_RUN_TASK_INDEX=0", "CLOUD_RUN_TASK_ATTEMPT=0",
		"DIAGNOSTICS_SECRET=" + diagnosticsMark,
	}
}

// omit requires that no output or report has a secret.
func (r reports) omit(t *testing.T, got result) {
	t.Helper()
	sent := r.otlp.Bodies()
	sent = append(sent, r.sentry.Bodies()...)
	if len(sent) == 0 {
		t.Error("nothing was reported")
	}
	secrets := []string{privateMark, clientSecret, diagnosticsMark, tokenMark, "Bearer "}
	for _, secret := range secrets {
		for _, body := range sent {
			if strings.Contains(string(body), secret) {
				t.Errorf("a report holds %s: %q", secret, clip(string(body)))
			}
		}
	}
	omits(t, got.stdout+got.stderr, append(secrets, r.sentry.DSN)...)
}

// checkIns are the states in which the job reported itself.
func (r reports) checkIns() (states []string) {
	for _, c := range r.sentry.Items("check_in") {
		states = append(states, fmt.Sprint(c["monitor_slug"], " ", c["status"]))
	}
	return states
}

// TestReportsAgree runs a job at debug level with events of all kinds, and compares its
// reports.
func TestReportsAgree(t *testing.T) {
	h := newEnv(t)
	r := newReports(t)
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		if has(events, 7) {
			// The gateway quotes the events that it refuses.
			return gatewayserver.Fault{Err: status.Errorf(codes.InvalidArgument, "bad: %s", privateMark)}
		}
		return gatewayserver.Fault{}
	})
	for i := range 20 {
		h.publish(named(with(`"id":"`+eventID(i)+`",`+privateData), "service_id", "cody-gateway", "traceparent", publishersParent))
	}
	h.publish(message(with(privateData + `,"unknown":"` + privateMark + `"`)))
	got := h.run(r.environ()...).exits(0)
	got.sums(summary{Received: 21, Submitted: 19, Rejected: map[string]int{"invalid_event": 1, "gateway_refused": 1}, Ended: "drained"})
	r.omit(t, got)

	if states := fmt.Sprint(r.checkIns()); states != "[telemetry-relay-dev in_progress telemetry-relay-dev ok]" {
		t.Errorf("check-ins: %s", states)
	}
	if events := r.sentry.Items("event"); len(events) > 0 {
		t.Errorf("errors in a good run: %v", events)
	}

	pushes := r.otlp.Pushes()
	last := pushes[len(pushes)-1]
	for name, want := range map[string]float64{"events_received_total": 21, "events_submitted_total": 19, "events_rejected_total": 2, "run_ended_total": 1, "books_difference_events": 0} {
		if got := last.Sums["telemetry_relay_"+name]; got != want {
			t.Errorf("%s was pushed last as %v, want %v", name, got, want)
		}
	}
	if id := last.Resource["service.instance.id"]; id != "telemetry-relay-x7/0/0" || last.Resource["service.version"] != buildVersion {
		t.Errorf("pushed by %v", last.Resource)
	}

	batches := r.otlp.Spans("batch")
	if len(batches) == 0 || len(r.otlp.Spans("submit")) < len(batches) || len(r.otlp.Spans("dead-letter write")) == 0 {
		t.Fatalf("%d batches, %d submissions", len(batches), len(r.otlp.Spans("submit")))
	}
	traces := map[string]bool{}
	for _, b := range batches {
		traces[hex.EncodeToString(b.GetTraceId())] = true
		if len(b.GetLinks()) != 1 || hex.EncodeToString(b.GetLinks()[0].GetTraceId()) != publishersTrace {
			t.Errorf("a batch has the links %v", b.GetLinks())
		}
	}
	// Each batch is logged with its trace, at debug level only.
	submitted := 0
	for line := range strings.Lines(got.stderr) {
		if !strings.Contains(line, `"Submitting a batch"`) {
			continue
		}
		submitted++
		prefix := `"logging.googleapis.com/trace":"projects/` + h.project + `/traces/`
		_, rest, ok := strings.Cut(line, prefix)
		if !ok || !traces[rest[:32]] || !strings.Contains(line, `"severity":"DEBUG"`) {
			t.Errorf("no trace of a batch, or not at debug level: %s", line)
		}
	}
	if submitted == 0 {
		t.Error("no batch was logged")
	}
}

// TestReportsNameAFailure has the dead-letter topic vanish while an event with
// private metadata waits to be rejected.
func TestReportsNameAFailure(t *testing.T) {
	h := newEnv(t)
	r := newReports(t)
	p := h.startReadyAs("Bearer "+diagnosticsMark, append(r.environ(), continuous)...)
	h.deleteTopic(dlqID)
	h.publish(message(with(privateData + `,"unknown":"` + privateMark + `"`)))
	testenv.Eventually(t, "the error is reported", func() bool { return len(r.sentry.Items("event")) > 0 })
	contains(t, fmt.Sprint(r.sentry.Items("event")[0]), "The dead-letter topic does not take messages")
	got := p.stop(syscall.SIGTERM).exits(1)
	r.omit(t, got)
	if states := fmt.Sprint(r.checkIns()); states != "[telemetry-relay-dev in_progress telemetry-relay-dev error]" {
		t.Errorf("check-ins: %s", states)
	}
}

// TestReportsNameARefusal has SAMS refuse the client at the start.
func TestReportsNameARefusal(t *testing.T) {
	h := newEnv(t)
	r := newReports(t)
	const wrong = "wr0ng-secret"
	got := h.run(append(r.environ(), "SAMS_CLIENT_SECRET="+wrong)...).exits(1)
	r.omit(t, got)
	omits(t, got.stderr+fmt.Sprint(r.sentry.Items("event")), wrong)
	events := r.sentry.Items("event")
	if len(events) != 1 || events[0]["message"] != "The run failed" || events[0]["release"] != "telemetry-relay@"+buildVersion {
		t.Fatalf("got %v", events)
	}
	contains(t, fmt.Sprint(events[0]), "SAMS refuses the client")
	if pushes := r.otlp.Pushes(); pushes[len(pushes)-1].Sums["telemetry_relay_run_ended_total"] != 1 {
		t.Error("the end of the run was not pushed")
	}
}
