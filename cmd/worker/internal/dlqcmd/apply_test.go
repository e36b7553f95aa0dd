package dlqcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

// TestPlanDescribesEveryChange: the plan has the events that the worker would accept. The command prints what
// changes in all events, and leaves the queue as it is.
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

// TestPlanThroughViewPinsMessages: a plan that was made without taking anything from the queue pins the
// messages of the queue.
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

// TestApplyDoesExactlyThePlan: exactly the plan's messages are published and purged, corrected, with the
// plan's id, and the backup has all of them. Applied again it does nothing.
func TestApplyDoesExactlyThePlan(t *testing.T) {
	h := newPlanned(t)
	h.make()
	h.put(deadLettered(60, typoData(60))) // of a fault of the plan, but later
	got := h.apply(t.Context())
	want := `"matched":35,"replayed":30,"purged":5,"failed":0,"todo":0,"rejected":0,"left":4}` + "\n"
	if got.status != 0 || !strings.HasSuffix(got.stdout, want) {
		t.Fatalf("%+v", got)
	}
	h.left(4)
	id := ""
	for _, m := range h.replayed(30) {
		if id = m.GetAttributes()["replay_id"]; !strings.Contains(got.stdout, id) || strings.Contains(string(m.GetData()), "typo") {
			t.Errorf("%s: %v", got.stdout, m)
		}
	}
	for _, want := range []string{`"audit":true`, `"plan":"` + id, "del(.typo)", `"published":30`} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("no %s in %s", want, got.stderr)
		}
	}
	backup, err := os.ReadFile(h.path("plan.json.backup"))
	if err != nil || bytes.Count(backup, []byte("\n")) != 35 || bytes.Count(backup, []byte(`"typo":`)) != 20 {
		t.Errorf("%v %s", err, backup)
	}
	for _, name := range []string{"plan.json.backup", "plan.json.journal"} {
		if info, err := os.Stat(h.path(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	again := h.apply(t.Context())
	if again.status != 0 || !strings.Contains(again.stderr, "nothing is left to do") {
		t.Errorf("%+v", again)
	}
	h.replayed(30)
	h.left(4)
}

func TestApplyAsksFirst(t *testing.T) {
	h := newPlanned(t)
	h.make()
	if got := h.dlq(t.Context(), "apply", h.path("plan.json")); got.status != 2 || !strings.Contains(got.stderr, "expected --yes") {
		t.Errorf("%+v", got)
	}
	for _, args := range [][]string{{"apply"}, {"apply", "a", "b"}, {"apply", h.path("none"), "--yes"}, {"apply", h.path("plan.json"), "--canary", "-1"}, {"status"}, {"status", h.path("none")}} {
		h.expect(2, "", args...)
	}
	h.left(38)
	if _, err := os.Stat(h.path("plan.json.backup")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a backup of nothing")
	}
}

// TestApplyRefusesPlanThatDoesNotFit: a plan of another queue, of another services list, edited by hand, or
// older than the queue keeps messages.
func TestApplyRefusesPlanThatDoesNotFit(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(change func(*plan.Plan)) {
		t.Helper()
		p, err := plan.Parse(whole, func(string) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		change(p)
		if err := p.Seal(); err != nil {
			t.Fatal(err)
		}
		text, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(old, with string) {
		t.Helper()
		if err := os.WriteFile(path, bytes.Replace(whole, []byte(old), []byte(with), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name      string
		prepare   func()
		variables []string
		status    int
		says      string
	}{
		{"another subscription", func() {}, []string{"DLQ_SUBSCRIPTION=other"}, 2, `DLQ_SUBSCRIPTION: the plan is for "projects/p/subscriptions/telemetry-events-dlq-oncall"`},
		{"another topic", func() {}, []string{"PUBSUB_TOPIC=other"}, 2, "PUBSUB_TOPIC: the plan is for"},
		{"another project", func() {}, []string{"GOOGLE_CLOUD_PROJECT=q"}, 2, "GOOGLE_CLOUD_PROJECT: the plan is for"},
		{"another services list", func() {}, []string{"WORKER_SERVICES={services: [{id: sams}, {id: cody}]}"}, 1, "checked with the services list"},
		{"another environment", func() {}, []string{"ENVIRONMENT_ID=dev"}, 1, "ENVIRONMENT_ID"},
		{"an edited message", func() { edit(h.ids[0], "4711") }, nil, 2, "the checksum differs"},
		{"an edited expression", func() { edit("del(.typo)", "{}") }, nil, 2, "the checksum differs"},
		{"nonsense", func() { edit(`"version": 1`, `"version": {}`) }, nil, 2, "it is not a plan"},
		{"half a file", func() { edit(string(whole[len(whole)/2:]), "") }, nil, 2, "it is not a plan"},
		{"older than the longest retention", func() { write(func(p *plan.Plan) { p.CreatedAt = p.CreatedAt.AddDate(0, 0, -32) }) }, nil, 1, "the plan's are gone; make a new one"},
	} {
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		c.prepare()
		got := h.with(c.variables, nil, "apply", path, "--yes", "--canary", "0")
		if got.status != c.status || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	h.replayed(0)
	h.left(38)
	// The running worker has another list than both.
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	h.put(deadLettered(400, "{", "dlq_services_digest", "0123456789ab", "dlq_rejected_at", "2026-11-21T10:00:00Z"))
	if got := h.apply(t.Context()); got.status != 1 || !strings.Contains(got.stderr, "the running worker has another services list, 0123456789ab") {
		t.Errorf("%+v", got)
	}
	h.replayed(0)
	if got := h.apply(t.Context(), "--services-anyway"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
	// A new plan beside an old journal.
	h.put(deadLettered(500, typoData(1)))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	h.expect(0, "", "plan", "--fix", h.fix(typoFault+": {jq: del(.typo)}"), "-o", path, "--services-anyway")
	if got := h.apply(t.Context(), "--services-anyway"); got.status != 1 || !strings.Contains(got.stderr, "it is the journal of another plan") {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
}

// TestInterruptedApplyGoesOn ends an apply at each step, and runs it again: each message is
// published once, unless the end came between its publication and its record.
func TestInterruptedApplyGoesOn(t *testing.T) {
	for _, method := range []string{"Pull", "ModifyAckDeadline", "Publish", "Acknowledge"} {
		for _, after := range []int{1, 2, 4} {
			for _, end := range []string{"interrupted", "lost"} {
				t.Run(fmt.Sprint(method, after, end), func(t *testing.T) {
					h := newPlanned(t)
					h.make()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					calls := make(chan struct{}, 1000)
					h.SetFault(func(m string, _ any) error {
						if m != method {
							return nil
						}
						if calls <- struct{}{}; len(calls) < after {
							return nil
						}
						if end == "interrupted" {
							cancel()
							return nil
						}
						return status.Error(codes.Unavailable, "away")
					})
					first := h.apply(ctx, "--rate", "100")
					if len(calls) >= after && first.status == 0 && end == "interrupted" && ctx.Err() == nil {
						t.Errorf("%+v", first)
					}
					h.SetFault(nil)
					h.ExpireLeases(dlqSub)
					second := h.apply(t.Context())
					if second.status != 0 {
						t.Errorf("after %+v: %+v", first, second)
					}
					h.left(3)
					origins := h.origins()
					for _, origin := range slices.Sorted(maps.Keys(origins)) {
						if n := origins[origin]; n != 1 {
							t.Errorf("%s was published %d times", origin, n)
						}
					}
					if len(origins) != 30 {
						t.Errorf("%d events were published, want 30", len(origins))
					}
				})
			}
		}
	}
}

// TestApplyAfterCrashPublishesNothingTwice: a run that was killed after the record of a publication, and
// before the acknowledgement, does not publish again; it only removes.
func TestApplyAfterCrashPublishesNothingTwice(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Parse(text, func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	j, err := plan.OpenJournal(plan.JournalOf(path), p)
	if err != nil {
		t.Fatal(err)
	}
	published := h.ids[:7]
	if err := j.Append(plan.Record{Kind: plan.Begun, Plan: p.ID, Checksum: p.Checksum}, plan.Record{Kind: plan.Published, IDs: published}); err != nil {
		t.Fatal(err)
	}
	// While that process lives, a second one does nothing.
	if got := h.apply(t.Context()); got.status != 1 || !strings.Contains(got.stderr, "another process is at this plan") {
		t.Errorf("%+v", got)
	}
	h.left(38)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	// The crash has cut a record, and a line of the backup.
	for name, torn := range map[string]string{"plan.json.journal": `{"at":"2026-11-2`, "plan.json.backup": `{"attributes":{`} {
		f, err := os.OpenFile(h.path(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(torn)
		f.Close()
	}
	if got := h.expect(0, "", "status", path); !strings.Contains(got.stdout, "It is being applied, or that was killed") {
		t.Error(got.stdout)
	}
	got := h.apply(t.Context())
	if got.status != 0 || !strings.Contains(got.stdout, `"replayed":23,"purged":5,"failed":0,"todo":0`) {
		t.Errorf("%+v", got)
	}
	h.replayed(23)
	h.left(3)
	if backup, err := os.ReadFile(h.path("plan.json.backup")); err != nil || bytes.Count(backup, []byte("\n")) != 28 || bytes.Contains(backup, []byte(torn)) {
		t.Errorf("%v %s", err, backup)
	}
}

const torn = `{"attributes":{{`

// TestApplyAfterKillWaitsForLeases: a run that was killed may still have leases on messages that it has
// published. The next run does not count them as removed; a later one does.
func TestApplyAfterKillWaitsForLeases(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Parse(text, func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	begin := func(at time.Time) {
		t.Helper()
		os.Remove(plan.JournalOf(path))
		j, err := plan.OpenJournal(plan.JournalOf(path), p)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Append(plan.Record{Kind: plan.Begun, Plan: p.ID, Checksum: p.Checksum}, plan.Record{At: at, Kind: plan.Published, IDs: h.ids[:20]}); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	begin(time.Now())
	// The killed run has leased all messages, so that the next run gets none.
	release := h.lease(38)
	if got := h.apply(t.Context()); got.status != 1 || !strings.Contains(got.stderr, "15 messages of the plan did not come") {
		t.Errorf("%+v", got)
	}
	release()
	if got := h.apply(t.Context()); got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(10)
	h.left(3)

	// The run ended between the acknowledgement and its record: the queue is empty.
	begin(time.Now())
	h.put(deadLettered(1, "x"))
	got := h.dlq(t.Context(), "apply", path, "--yes", "--canary", "0")
	if got.status != 1 || !strings.Contains(got.stderr, "15 messages of the plan did not come") {
		t.Errorf("%+v", got)
	}
	begin(time.Now().Add(-time.Hour))
	if got := h.apply(t.Context()); !strings.Contains(got.stderr, "15 messages of the plan did not come") || strings.Contains(got.stderr, "keeps them") {
		t.Errorf("%+v", got)
	}
}

// TestApplyReportsLeasedMessages: a run reports the messages that another reader has leased, and the next
// run does them.
func TestApplyReportsLeasedMessages(t *testing.T) {
	h := newPlanned(t)
	h.make()
	release := h.lease(8)
	got := h.apply(t.Context())
	if got.status != 1 || !strings.Contains(got.stderr, " messages of the plan did not come") || strings.Contains(got.stdout, `"todo":0`) {
		t.Errorf("%+v", got)
	}
	release()
	if got := h.apply(t.Context()); got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
	h.left(3)
}

// TestApplyStopsWhenEventsComeBack: a run ends when its events are rejected again.
func TestApplyStopsWhenEventsComeBack(t *testing.T) {
	h := newPlanned(t)
	h.make()
	h.rejecting(5)
	got := h.apply(t.Context(), "--stop-after", "3", "--rate", "2")
	if got.status != 1 || !strings.Contains(got.stderr, "stopped: ") || !strings.Contains(got.stderr, "of the plan were rejected again (--stop-after 3)") {
		t.Errorf("%+v", got)
	}
	if n := len(h.Messages(dlqLedger)); n < 3 || n >= 30 {
		t.Errorf("%d were published", n)
	}
	if got := h.expect(0, "", "status", h.path("plan.json")); !strings.Contains(got.stdout, "rejected") || !strings.Contains(got.stdout, "The last run ended: stopped: ") {
		t.Error(got.stdout)
	}
}

// rejecting has a worker reject the next n published messages at once.
func (h *planned) rejecting(n int) {
	var rejected []*pubsubpb.PubsubMessage
	h.SetFault(func(method string, req any) error {
		r, ok := req.(*pubsubpb.PublishRequest)
		if !ok || method != "Publish" || r.GetTopic() != dlqMain {
			return nil
		}
		for _, m := range r.GetMessages() {
			if len(rejected) == n {
				break
			}
			again := deadLettered(len(rejected), string(m.GetData()), "dlq_reason", "oversized", "dlq_replays", m.GetAttributes()["replay_count"])
			maps.Copy(again.GetAttributes(), m.GetAttributes())
			rejected = append(rejected, again)
			if _, err := h.Publish(dlqTopic, again); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestApplyGoesOnAfterCanaries: some events of each fault go ahead; the rest follows if none of them is
// rejected again.
func TestApplyGoesOnAfterCanaries(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	waits := 0
	got := h.dlqHearing(t.Context(), func(text string) {
		if strings.Contains(text, "went ahead") {
			waits++
			h.replayed(6)
			h.left(32)
		}
	}, "apply", path, "--yes", "--canary", "3", "--canary-wait", "1ms")
	if got.status != 0 || waits != 1 || !strings.Contains(got.stderr, "nothing says that they arrived: RECEIPTS_SUBSCRIPTION is not set") {
		t.Errorf("%d waits, %+v", waits, got)
	}
	h.replayed(30)
	h.left(3)
	if want := "30 published and 5 purged now; of 35 messages of the plan 30 are published, 5 purged, 0 failed and 0 not done yet\n"; !strings.Contains(got.stdout, want) {
		t.Error(got.stdout)
	}
}

// TestApplyStopsWhenCanaryComesBack: a canary that is rejected again ends the run, long before the
// wait is over; the same command does not publish the rest either.
func TestApplyStopsWhenCanaryComesBack(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	h.rejecting(1)
	for range 2 {
		got := h.dlq(t.Context(), "apply", path, "--yes", "--canary", "3", "--canary-wait", "1h")
		if got.status != 1 || !strings.Contains(got.stderr, "1 of 6 canaries were rejected again: the rest was not published") {
			t.Errorf("%+v", got)
		}
		h.replayed(6)
		h.left(33)
	}
	if got := h.apply(t.Context()); got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
}

// TestInterruptedApplyKeepsItsCanaries: after an interruption the same command waits for the same
// canaries.
func TestInterruptedApplyKeepsItsCanaries(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := h.dlqHearing(ctx, func(text string) {
		if strings.Contains(text, "went ahead") {
			cancel()
		}
	}, "apply", path, "--yes", "--canary", "2", "--canary-wait", "1h")
	if got.status != 1 || !strings.Contains(got.stderr, "interrupted while waiting for the canaries: 4 canaries published") {
		t.Errorf("%+v", got)
	}
	h.replayed(4)
	got = h.dlqHearing(t.Context(), func(text string) {
		if strings.Contains(text, "went ahead") {
			h.replayed(4)
		}
	}, "apply", path, "--yes", "--canary", "2", "--canary-wait", "1ms")
	if got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
}

// TestApplyBelievesReceipts: with receipts the rest follows as soon as the canaries are recorded.
func TestApplyBelievesReceipts(t *testing.T) {
	for _, c := range []struct {
		name      string
		verdicts  []string // of the canaries; fewer than these have none
		wait      string
		status    int
		published int
		says      string
	}{
		{"recorded", []string{"recorded", "recorded", "duplicate", "recorded"}, "1h", 0, 30, "4 canaries were recorded; going on with the rest"},
		{"one rejected", []string{"recorded", "rejected", "recorded", "recorded"}, "1h", 1, 4, "1 of 4 canaries were rejected again"},
		{"one without a receipt", []string{"recorded", "recorded", "recorded"}, "100ms", 0, 30, "3 of 4 canaries were recorded and none was rejected again; 1 have no receipt"},
		{"none", nil, "100ms", 1, 4, "no receipt came for 4 canaries"},
		{"of a later worker", []string{"postponed"}, "100ms", 1, 4, "no receipt came for 4 canaries"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newPlanned(t)
			path := h.make()
			h.receipt(&pubsubpb.PubsubMessage{Attributes: map[string]string{"replay_id": "another", "origin_message_id": "m1"}}, "rejected")
			got := h.with(withReceipts, func(text string) {
				if strings.Contains(text, "went ahead") {
					for i, m := range h.replayed(4) {
						if i < len(c.verdicts) {
							h.receipt(m, c.verdicts[i])
						}
					}
				}
			}, "apply", path, "--yes", "--canary", "2", "--canary-wait", c.wait)
			if got.status != c.status || !strings.Contains(got.stderr, c.says) {
				t.Errorf("%+v", got)
			}
			h.replayed(c.published)
			// The command releases the receipt of the other replay.
			if s := h.Stats(receiptsSub); s.Backlog != 1 || s.Leased != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestStatusFollowsPlan follows a plan from the beginning to the last receipt.
func TestStatusFollowsPlan(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	status := func(variables []string, want ...string) {
		t.Helper()
		got := h.with(variables, nil, "status", path)
		for _, part := range want {
			if got.status != 0 || !strings.Contains(got.stdout, part) {
				t.Errorf("no %q in %+v", part, got)
			}
		}
	}
	status(withReceipts, "In all: 0 published, 0 recorded, 0 rejected, 0 waiting, 35 not done yet\n", "It was not applied yet. Next: worker dlq apply ")
	if _, err := os.Stat(h.path("plan.json.journal")); !errors.Is(err, os.ErrNotExist) {
		t.Error("status has begun the journal")
	}
	if got := h.apply(t.Context()); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	status(nil, "In all: 30 published, 5 purged\n", "Whether the published events were recorded is not known: RECEIPTS_SUBSCRIPTION is not set.\n")
	h.receipt(&pubsubpb.PubsubMessage{Attributes: map[string]string{"replay_id": "another", "origin_message_id": "m1"}}, "rejected")
	published := h.replayed(30)
	for _, m := range published[:12] {
		h.receipt(m, "recorded")
	}
	h.receipt(published[0], "recorded") // twice
	h.receipt(published[12], "rejected", "reason", "oversized")
	h.receipt(published[13], "duplicate")
	h.receipt(published[14], "postponed")
	for range 2 { // the second time from the journal
		status(withReceipts, "In all: 30 published, 12 recorded, 1 recorded before (duplicates), 1 rejected, 16 waiting, 5 purged\n", "1 rejected again: oversized\n")
		if s := h.Stats(receiptsSub); s.Backlog != 1 || s.Leased != 0 {
			t.Errorf("%+v", s)
		}
	}
	got := h.with(withReceipts, nil, "status", path, "--output", "json")
	if !strings.Contains(got.stdout, `"planned":35,"published":30,"purged":5,"left":0,"todo":0,"recorded":12,"duplicates":1,"rejected":1,"waiting":16,"receipts":true`) {
		t.Error(got.stdout)
	}
	// Without the receipts' subscription the command still prints the journal.
	got = h.with([]string{"RECEIPTS_SUBSCRIPTION=nothing"}, nil, "status", path)
	if got.status != 1 || !strings.Contains(got.stdout, "30 published, 12 recorded") || !strings.Contains(got.stderr, "RECEIPTS_SUBSCRIPTION: projects/p/subscriptions/nothing does not exist") {
		t.Errorf("%+v", got)
	}
	h.left(3)
}

// TestInterruptedStatusCountsReceiptsOnce: a receipt is in the journal before it is acknowledged, and is
// counted once whenever the reading ends.
func TestInterruptedStatusCountsReceiptsOnce(t *testing.T) {
	for _, method := range []string{"Pull", "ModifyAckDeadline", "Acknowledge"} {
		t.Run(method, func(t *testing.T) {
			h := newPlanned(t)
			path := h.make()
			if got := h.apply(t.Context()); got.status != 0 {
				t.Fatalf("%+v", got)
			}
			for _, m := range h.replayed(30) {
				h.receipt(m, "recorded")
			}
			h.SetFault(func(m string, _ any) error {
				if m == method {
					return status.Error(codes.PermissionDenied, "no")
				}
				return nil
			})
			h.with(withReceipts, nil, "status", path)
			h.SetFault(nil)
			h.ExpireLeases(receiptsSub)
			began := time.Now()
			got := h.with(withReceipts, nil, "status", path)
			if !strings.Contains(got.stdout, "30 published, 30 recorded, 0 rejected, 0 waiting") || time.Since(began) > time.Minute {
				t.Errorf("%+v", got)
			}
			if s := h.Stats(receiptsSub); s.Backlog != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}
