package dlqcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/provision"
	"github.com/sourcegraph/telemetry-relay/internal/receipts"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
	"github.com/sourcegraph/telemetry-relay/internal/trace"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
)

const (
	receiptsTopic = dlqProject + "topics/telemetry-receipts"
	receiptsSub   = dlqProject + "subscriptions/telemetry-receipts-oncall"
	tracedID      = "019a0000-0000-7000-8000-000000000001"
)

// traceRun runs `worker trace` with a home folder of its own.
func traceRun(ctx context.Context, addr, home string, args ...string) dlqResult {
	var stdout, stderr bytes.Buffer
	env := command.Env{
		Args: append([]string{"worker", "trace"}, args...),
		Vars: []string{
			"GOOGLE_CLOUD_PROJECT=p", "PUBSUB_EMULATOR_HOST=" + addr, "HOME=" + home, "LOG_LEVEL=error",
			"RECEIPTS_SUBSCRIPTION=telemetry-receipts-oncall", "DLQ_VIEW_SUBSCRIPTION=telemetry-events-dlq-view",
		},
		Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
	}
	status := command.Main(ctx, env, func(env command.Env) *cli.Command {
		return &cli.Command{Name: "worker", Commands: []*cli.Command{NewTrace(env, testOptions), New(env, testOptions)}, Writer: env.Stdout, ErrWriter: env.Stderr}
	})
	return dlqResult{status, stdout.String(), stderr.String()}
}

// tracing is a queue with a view and with receipts.
func newTraceQueue(t *testing.T) *testQueue {
	t.Helper()
	h := newTestQueue(t)
	for _, err := range []error{
		h.CreateSubscription(dlqView, dlqTopic), h.CreateTopic(receiptsTopic), h.CreateSubscription(receiptsSub, receiptsTopic),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func receiptOf(replay, origin, event string, v receipts.Verdict, reason string) *pubsubpb.PubsubMessage {
	return &pubsubpb.PubsubMessage{Attributes: receipts.Receipt{
		ReplayID: replay, OriginMessageID: origin, EventID: event, Verdict: v, Reason: reason, At: time.Date(2026, 11, 20, 11, 0, 0, 0, time.UTC), ServicesDigest: "a87bd7cb9d9a",
	}.Attributes()}
}

type traceAnswer struct {
	ID string `json:"id"`
	trace.Answer
}

// TestTraceFollowsEvent follows one event from its rejection over a replay to its verdict.
// It takes nothing, and says what it cannot prove.
func TestTraceFollowsEvent(t *testing.T) {
	h, home := newTraceQueue(t), t.TempDir()
	trace := func(id string) traceAnswer {
		t.Helper()
		queue, receipts := h.Stats(dlqSub), h.Messages(receiptsSub)
		got := traceRun(t.Context(), h.Addr(), home, "--output", "json", id)
		var a traceAnswer
		if err := json.Unmarshal([]byte(got.stdout), &a); err != nil || got.status != 0 || a.ID != id {
			t.Fatalf("status %d, %v: %s%s", got.status, err, got.stdout, got.stderr)
		}
		if after := h.Stats(dlqSub); after != queue {
			t.Errorf("the queue is %+v, was %+v", after, queue)
		}
		if after := h.Stats(receiptsSub); after.Leased != 0 || after.Backlog != len(receipts) {
			t.Errorf("the receipts are %+v, were %d", after, len(receipts))
		}
		if strings.Contains(got.stdout, secretValue) {
			t.Errorf("private metadata is shown: %s", got.stdout)
		}
		return a
	}
	nothing := trace(tracedID)
	if nothing.State != "not_rejected" || len(nothing.Unproven) != 5 {
		t.Errorf("%+v", nothing)
	}

	ids := h.put(deadLettered(1, `{"feature":"sams.user","action":"created","id":"`+tracedID+`","privateMetadata":{"x":"`+secretValue+`"}}`, "dlq_event_id", tracedID, "service_version", "1.85.0"))
	for _, id := range []string{tracedID, "m1", ids[0]} { // by any of its ids
		got := trace(id)
		if got.State != "in_queue" || len(got.Rejections) != 1 || got.Rejections[0].Reason != "invalid_event" || got.Rejections[0].Release != "1.85.0" || got.Rejections[0].Fault == "" || len(got.Replays) != 0 {
			t.Errorf("%s: %+v", id, got)
		}
	}

	replay := traceRunDLQ(t, h, home, "replay", "--event-id", tracedID, "--yes", "--no-check")
	sent := trace(tracedID)
	if sent.State != "replayed" || len(sent.Replays) != 1 || sent.Replays[0].Action == nil || sent.Replays[0].Action.What != "dlq replay" || sent.Replays[0].Verdict != receipts.Unknown {
		t.Fatalf("after %s: %+v", replay, sent)
	}
	id := sent.Replays[0].ID
	if want := h.Messages(dlqLedger)[0].GetAttributes()["replay_id"]; id != want {
		t.Errorf("replay %s, want %s", id, want)
	}

	// It comes back, is replayed once more, and is recorded.
	h.publishReceipts(receiptOf(id, "m1", tracedID, receipts.Rejected, "oversized"), receiptOf("other", "m9", "019a0000-0000-7000-8000-000000000009", receipts.Recorded, ""))
	if got := trace(tracedID); got.State != "rejected_again" || got.Replays[0].Verdict != receipts.Rejected || got.Replays[0].Reason != "oversized" {
		t.Errorf("%+v", got)
	}
	h.publishReceipts(receiptOf(id, "m1", tracedID, receipts.Recorded, ""))
	if got := trace(tracedID); got.State != "recorded" || got.Replays[0].Action == nil || !strings.Contains(got.Summary, id) {
		t.Errorf("%+v", got)
	}
	if got := trace("m1"); got.State != "recorded" {
		t.Errorf("by the first message's id: %+v", got)
	}
}

func traceRunDLQ(t *testing.T, h *testQueue, home string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	env := h.environment(args...)
	env.Vars = append(env.Vars, "HOME="+home)
	env.Stdout, env.Stderr = &stdout, &stderr
	if status := run(t.Context(), env); status != 0 {
		t.Fatalf("worker dlq %q: status %d, %s", args, status, stderr.String())
	}
	return stdout.String()
}

func (h *testQueue) publishReceipts(messages ...*pubsubpb.PubsubMessage) {
	h.t.Helper()
	if _, err := h.Publish(receiptsTopic, messages...); err != nil {
		h.t.Fatal(err)
	}
}

// TestTracePrintsText: the text of an event that came back.
func TestTracePrintsText(t *testing.T) {
	h := newTraceQueue(t)
	ids := h.put(deadLettered(1, goodData(1), "dlq_event_id", tracedID, "service_version", "1.85.0", "dlq_replays", "1", "dlq_first_rejected_at", "2026-11-19T10:00:00Z",
		"replay_count", "1", "origin_message_id", "m0", "origin_publish_time", "2026-11-19T09:00:00Z", "replay_id", "20261120T093000Z-abc234"))
	got := traceRun(t.Context(), h.Addr(), "", tracedID)
	want := `It is in the dead-letter queue: invalid_event of sams, fault F-be055b.

In the queue
  reason         invalid_event
  fault          F-be055b
  detail         typo: unknown field; expected none
  rejected       2026-11-20T10:00:00Z
  first          2026-11-19T10:00:00Z, before it was replayed
  release        1.85.0
  dead-letter id ` + ids[0] + `
  next           worker dlq show ` + ids[0] + `

Replayed
  replay         20261120T093000Z-abc234
  verdict        rejected (invalid_event), 2026-11-20T10:00:00Z

Not proven
  Who has replayed or removed it: there is no audit file, because you have no home folder.
`
	if diff := cmp.Diff(want, got.stdout); diff != "" || got.status != 0 {
		t.Errorf("status %d, stderr %s (-want +got):\n%s", got.status, got.stderr, diff)
	}
}

// TestTraceRefusesMistakes: mistakes and sources that cannot be read are errors.
func TestTraceRefusesMistakes(t *testing.T) {
	h := newTestQueue(t) // without receipts
	if got := traceRun(t.Context(), h.Addr(), ""); got.status != 2 || !strings.Contains(got.stderr, "takes one EVENT-ID") {
		t.Errorf("no id: %+v", got)
	}
	if got := traceRun(t.Context(), h.Addr(), "", "--output", "xml", tracedID); got.status != 2 {
		t.Errorf("an unknown format: %+v", got)
	}
	got := traceRun(t.Context(), h.Addr(), "", "\x1b[31mevil")
	if got.status != 0 || !strings.Contains(got.stdout, "the receipts in "+receiptsSub+" cannot be read (NotFound)") || strings.Contains(got.stdout+got.stderr, "\x1b") {
		t.Errorf("no receipts: %+v", got)
	}
	if help := traceRun(t.Context(), h.Addr(), "", "--help"); !strings.Contains(help.stdout, "Example") || help.status != 0 {
		t.Errorf("help: %+v", help)
	}
}

// TestTraceOnEmulator runs on Google's own Pub/Sub emulator.
func TestTraceOnEmulator(t *testing.T) {
	e := emulator.New(t)
	cfg := &config.Config{EmulatorHost: e.Host}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	admin, err := provision.Connect(t.Context(), app.PubSubOptions(cfg)...)
	must(err)
	defer admin.Close()
	for name, subs := range map[string][]string{dlqMain: {dlqLedger}, dlqTopic: {dlqSub, dlqView}, receiptsTopic: {receiptsSub}} {
		must(admin.CreateTopic(t.Context(), name))
		for _, sub := range subs {
			must(admin.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: sub, Topic: name, AckDeadlineSeconds: 60}))
		}
	}
	publish := func(name string, m *pubsubpb.PubsubMessage) {
		t.Helper()
		client, err := topic.NewClient(t.Context(), name, app.PubSubOptions(cfg)...)
		must(err)
		defer client.Close()
		must(client.Publish(t.Context(), []*pubsubpb.PubsubMessage{m}))
	}
	publish(dlqTopic, deadLettered(1, goodData(1), "dlq_event_id", tracedID))
	const recorded = "019a0000-0000-7000-8000-000000000002"
	publish(receiptsTopic, receiptOf("R1", "m2", recorded, receipts.Recorded, ""))
	for range 2 { // nothing was taken
		for id, want := range map[string]trace.State{tracedID: trace.InQueue, recorded: trace.Recorded, "019a0000-0000-7000-8000-000000000003": trace.NotRejected} {
			got := traceRun(t.Context(), e.Host, "", "--output", "json", id)
			var a traceAnswer
			if err := json.Unmarshal([]byte(got.stdout), &a); err != nil || got.status != 0 || a.State != want {
				t.Errorf("%s: status %d, %s, want %s; %s", id, got.status, a.State, want, got.stderr)
			}
			if strings.Contains(got.stderr, "leased while") {
				t.Errorf("it could not look: %s", got.stderr)
			}
		}
	}
}

// TestTraceReadsJournals: trace finds the receipts that dlq status has moved into a plan's
// journal, by the audit file or by --plan.
func TestTraceReadsJournals(t *testing.T) {
	h := newPlanned(t)
	h.make()
	home := t.TempDir()
	variables := append([]string{"HOME=" + home}, withReceipts...)
	if got := h.with(variables, nil, "apply", h.path("plan.json"), "--yes", "--canary", "0"); got.status != 0 {
		t.Fatalf("apply: %+v", got)
	}
	published := h.Messages(dlqLedger)
	h.receipt(published[0], "recorded", "event_id", tracedID)
	origin := published[0].GetAttributes()["origin_message_id"]
	if got := h.with(variables, nil, "status", h.path("plan.json")); got.status != 0 {
		t.Fatalf("status: %+v", got)
	}
	if left := h.Messages(receiptsSub); len(left) != 0 {
		t.Fatalf("%d receipts are left", len(left))
	}
	for name, c := range map[string]struct {
		home, id string
		args     []string
		state    trace.State
		by       bool
	}{
		"by the audit file":    {home: home, id: tracedID, state: trace.Recorded, by: true},
		"by the first message": {home: home, id: origin, state: trace.Recorded, by: true},
		"by --plan":            {home: t.TempDir(), id: tracedID, args: []string{"--plan", h.path("plan.json")}, state: trace.Recorded, by: true},
		"another event":        {home: home, id: "019a0000-0000-7000-8000-000000000002", state: trace.NotRejected},
		"published, and not more": {
			home: home, id: published[1].GetAttributes()["origin_message_id"], state: trace.Replayed, by: true,
		},
		"purged":     {home: home, id: h.ids[30], state: trace.Removed},
		"no journal": {home: t.TempDir(), id: tracedID, state: trace.NotRejected},
	} {
		got := traceRun(t.Context(), h.Addr(), c.home, append(c.args, "--output", "json", c.id)...)
		var a traceAnswer
		if err := json.Unmarshal([]byte(got.stdout), &a); err != nil || got.status != 0 || a.State != c.state {
			t.Errorf("%s: status %d, %s, want %s; %s%s", name, got.status, a.State, c.state, got.stdout, got.stderr)
			continue
		}
		if by := len(a.Replays) == 1 && a.Replays[0].Action != nil && a.Replays[0].Action.What == "dlq apply"; by != c.by {
			t.Errorf("%s: replays %+v", name, a.Replays)
		}
	}
	if got := traceRun(t.Context(), h.Addr(), "", "--plan", h.path("none.json"), tracedID); got.status != 2 || !strings.Contains(got.stderr, "none.json") {
		t.Errorf("no plan: %+v", got)
	}
	if err := os.WriteFile(h.path("plan.json.journal"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := traceRun(t.Context(), h.Addr(), home, tracedID); got.status != 0 || !strings.Contains(got.stderr, "1 plan that you have applied cannot be read") {
		t.Errorf("a journal of nonsense: %+v", got)
	}
}

// TestTraceSaysHowLongEventsWait: if nothing is known of an event, trace says how long the
// oldest event has waited for the worker.
func TestTraceSaysHowLongEventsWait(t *testing.T) {
	h := newTraceQueue(t)
	for name, c := range map[string]struct {
		age  int // seconds; negative: Cloud Monitoring refuses
		id   string
		want string
	}{
		"a while":        {40, tracedID, "The oldest event has waited for 40s. This one is older, by its id of "},
		"no time in it":  {40, "m1", "or was never published. The oldest event has waited for 40s.\n"},
		"nothing":        {0, tracedID, "By the newest sample of Cloud Monitoring no event waits."},
		"not to be read": {-1, tracedID, "Whether it still waits: the age of the oldest event in " + dlqProject + "subscriptions/telemetry-events-relay is not known: you may not read Cloud Monitoring"},
	} {
		monitoring := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if c.age < 0 {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			fmt.Fprintf(w, `{"timeSeries":[{"points":[{"interval":{"endTime":"2026-11-27T10:04:00Z"},"value":{"int64Value":"%d"}}]}]}`, c.age)
		}))
		options := testOptions
		options.MonitoringEndpoint = monitoring.URL
		var stdout, stderr bytes.Buffer
		env := h.environment()
		env.Args, env.Stdout, env.Stderr = []string{"worker", "trace", c.id}, &stdout, &stderr
		status := command.Main(t.Context(), env, func(env command.Env) *cli.Command {
			return &cli.Command{Name: "worker", Commands: []*cli.Command{NewTrace(env, options)}, Writer: env.Stdout, ErrWriter: env.Stderr}
		})
		monitoring.Close()
		if status != 0 || !strings.Contains(stdout.String(), c.want) {
			t.Errorf("%s: status %d, %s%s", name, status, stdout.String(), stderr.String())
		}
	}
}
