package dlqcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// The faults of planQueue.
var (
	typoFault     = fault.Of("invalid_event", "sams", "typo: unknown field; expected none").ID()
	rejectedFault = fault.Of("gateway_rejected", "sams", "left out").ID()
	largeFault    = fault.Of("oversized", "sams", "large").ID()
	otherFault    = fault.Of("malformed_payload", "sams", "no JSON").ID()
)

// planned is a queue of 20 messages to correct, 10 to replay, 5 to purge, and 3 to leave,
// with a folder for a plan.
type planned struct {
	*testQueue
	dir string
	ids []string // of the messages, in the queue
}

func newPlanned(t *testing.T) *planned {
	t.Helper()
	t.Parallel()
	h := &planned{testQueue: newTestQueue(t), dir: t.TempDir()}
	// A snapshot shows only messages that came after the view was made.
	if err := errors.Join(h.CreateTopic(receiptsTopic), h.CreateSubscription(receiptsSub, receiptsTopic), h.CreateSubscription(dlqView, dlqTopic)); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		h.ids = append(h.ids, h.put(deadLettered(i, typoData(i)))...)
	}
	for i := range 10 {
		h.ids = append(h.ids, h.put(deadLettered(100+i, goodData(i), "dlq_reason", "gateway_rejected", "dlq_detail", "left out"))...)
	}
	for i := range 5 {
		h.ids = append(h.ids, h.put(deadLettered(200+i, goodData(i), "dlq_reason", "oversized", "dlq_detail", "large"))...)
	}
	for i := range 3 {
		h.ids = append(h.ids, h.put(deadLettered(300+i, "{", "dlq_reason", "malformed_payload", "dlq_detail", "no JSON"))...)
	}
	return h
}

func (h *planned) path(name string) string { return filepath.Join(h.dir, name) }

// fix writes a file of fixes.
func (h *planned) fix(text string) string {
	h.t.Helper()
	file := h.path("fixes.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// make makes the plan of all faults but the one to leave.
func (h *planned) make() string {
	h.t.Helper()
	fixes := h.fix(fmt.Sprintf("%s: {jq: del(.typo)}\n%s: replay\n%s: purge\n", typoFault, rejectedFault, largeFault))
	h.expect(0, "", "plan", "--fix", fixes, "-o", h.path("plan.json"), "--output", "json")
	return h.path("plan.json")
}

// makeAndRead makes a plan and returns its path and what it says.
func (h *planned) makeAndRead() (string, *plan.Plan) {
	h.t.Helper()
	path := h.make()
	text, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	p, err := plan.Parse(text, func(string) error { return nil })
	if err != nil {
		h.t.Fatal(err)
	}
	return path, p
}

// apply applies a plan without canaries, unless args say so.
func (h *planned) apply(ctx context.Context, args ...string) dlqResult {
	return h.dlq(ctx, append([]string{"apply", h.path("plan.json"), "--yes", "--output", "json", "--canary", "0"}, args...)...)
}

// with runs a command with more variables.
func (h *testQueue) with(variables []string, hear func(string), args ...string) dlqResult {
	env := h.environment(args...)
	env.Vars = append(env.Vars, variables...)
	var stdout bytes.Buffer
	stderr := listener{hear: hear}
	env.Stdout, env.Stderr = &stdout, &stderr
	return dlqResult{run(h.t.Context(), env), stdout.String(), stderr.String()}
}

var withReceipts = []string{"RECEIPTS_SUBSCRIPTION=telemetry-receipts-oncall"}

// receipt publishes a receipt for a message that was published.
func (h *testQueue) receipt(m *pubsubpb.PubsubMessage, verdict string, attributes ...string) {
	h.t.Helper()
	a := map[string]string{
		"replay_id": m.GetAttributes()["replay_id"], "origin_message_id": m.GetAttributes()["origin_message_id"],
		"verdict": verdict, "at": "2026-11-27T10:00:00Z",
	}
	for i := 0; i < len(attributes); i += 2 {
		a[attributes[i]] = attributes[i+1]
	}
	if _, err := h.Publish(receiptsTopic, &pubsubpb.PubsubMessage{Attributes: a}); err != nil {
		h.t.Fatal(err)
	}
}

// origins counts the messages on the main topic by their origin.
func (h *testQueue) origins() map[string]int {
	seen := map[string]int{}
	for _, m := range h.Messages(dlqLedger) {
		seen[m.GetAttributes()["origin_message_id"]]++
	}
	return seen
}

// TestPlanDescribesEveryChange: the plan has the events that the worker would accept. The
// command prints what changes in all events, and leaves the queue as it is.
func TestPlanDescribesEveryChange(t *testing.T) {
	h := newPlanned(t)
	h.put(deadLettered(50, typoData(50), "dlq_replays", "3"), deadLettered(51, `{"typo":1}`))
	fixes := h.fix(fmt.Sprintf("%s: {jq: 'del(.typo) | .privateMetadata = null'}\n%s: replay\n%s: purge\n%s: keep\nF-000000: purge\n", typoFault, rejectedFault, largeFault, otherFault))
	got := h.expect(0, "", "plan", "--fix", fixes, "-o", h.path("plan.json"))
	for _, want := range []string{
		typoFault + "  correct and replay 20 of 22  invalid_event  sams\n          typo: unknown field; expected none\n          jq del(.typo) | .privateMetadata = null\n",
		"privateMetadata: object → null in 20   <── data disappears\n", "typo: number removed in 20   <── data disappears\n",
		"          1 stay: they would be rejected again\n          1 stay: they were replayed too often before (--max-replays)\n",
		rejectedFault + "  replay 10 of 10  ", largeFault + "  purge 5 of 5  ", otherFault + "  keep 3  ",
		"\n30 to replay, 5 to purge, 3 to keep; 1 would be rejected again, 1 were replayed too often. Nothing was changed.\n",
		"Next: worker dlq apply " + h.path("plan.json"),
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in %s", want, got.stdout)
		}
	}
	if !strings.Contains(got.stderr, "no message that was read has the fault F-000000") {
		t.Error(got.stderr)
	}
	h.left(40)
	if info, err := os.Stat(h.path("plan.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	got = h.expect(0, "", "plan", "--fix", fixes, "-o", h.path("other.json"), "--output", "json")
	var n map[string]any
	if err := json.Unmarshal([]byte(got.stdout), &n); err != nil || !strings.Contains(got.stderr, "object → null in 20") {
		t.Errorf("%v %+v", err, got)
	}
	delete(n, "plan")
	if got := fmt.Sprint(n); got != "map[failed:1 keep:3 left:40 matched:40 over_max_replays:1 purge:5 replay:30]" {
		t.Error(got)
	}
	if got := h.expect(0, "", "plan", "--fix", fixes, "-o", h.path("third.json"), "--reveal"); !strings.Contains(got.stderr, `"audit":true`) {
		t.Error(got.stderr)
	}
}

// TestPlanThroughViewPinsMessages: a plan that was made without taking anything from the
// queue pins the messages of the queue.
func TestPlanThroughViewPinsMessages(t *testing.T) {
	h := newPlanned(t)
	before := h.Stats(dlqSub)
	got := h.looking(t.Context(), "plan", "--fix", h.fix(typoFault+": {jq: del(.typo)}"), "-o", h.path("plan.json"), "--output", "json")
	if got.status != 0 || !strings.Contains(got.stdout, `"replay":20`) || h.Stats(dlqSub) != before {
		t.Errorf("%+v", got)
	}
	if got := h.apply(t.Context()); got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(20)
	h.left(18)
}

func TestPlanRefusesMistakes(t *testing.T) {
	h := newPlanned(t)
	good, out := h.fix(typoFault+": replay\n"), h.path("plan.json")
	bad := h.path("bad.yaml")
	if err := os.WriteFile(bad, []byte("x: y\n"+typoFault+": {jq: '{'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{}, {"--fix", good}, {"-o", out}, {"--fix", good, "-o", out, "x"}, {"--fix", h.path("none"), "-o", out}, {"--fix", good, "-o", good}, {"--fix", h.dir, "-o", out},
	} {
		h.expect(2, "", append([]string{"plan"}, args...)...)
	}
	got := h.expect(2, "", "plan", "--fix", bad, "-o", out)
	for _, want := range []string{bad, "line 1: expected the id of a fault", "line 2: " + typoFault + ": jq: expected a jq expression"} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("no %q in %s", want, got.stderr)
		}
	}
	// A plan without a message is an error, and leaves no file.
	for _, text := range []string{"F-000000: replay\n", otherFault + ": keep\n", typoFault + ": replay\n"} {
		h.expect(1, "", "plan", "--fix", h.fix(text), "-o", out)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
