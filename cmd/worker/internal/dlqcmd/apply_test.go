package dlqcmd

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// TestApplyDoesExactlyThePlan: exactly the plan's messages are published and purged,
// corrected, with the plan's id, and the backup has all of them. Applied again it does
// nothing.
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

// planFile is the file of a plan, which a test edits.
type planFile struct {
	t     *testing.T
	path  string
	whole []byte // as the command wrote it
}

func (h *planned) planFile() planFile {
	h.t.Helper()
	path := h.make()
	whole, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return planFile{h.t, path, whole}
}

func (f planFile) write(text []byte) {
	f.t.Helper()
	if err := os.WriteFile(f.path, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// edit replaces a text, as a person may do by hand.
func (f planFile) edit(old, with string) {
	f.t.Helper()
	f.write(bytes.Replace(f.whole, []byte(old), []byte(with), 1))
}

// change writes the plan with a change and a checksum that fits.
func (f planFile) change(change func(*plan.Plan)) {
	f.t.Helper()
	p, err := plan.Parse(f.whole, func(string) error { return nil })
	if err != nil {
		f.t.Fatal(err)
	}
	change(p)
	if err := p.Seal(); err != nil {
		f.t.Fatal(err)
	}
	text, err := p.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(text)
}

// TestApplyRefusesPlanThatDoesNotFit: a plan of another queue, of another services list,
// edited by hand, or older than the queue keeps messages.
func TestApplyRefusesPlanThatDoesNotFit(t *testing.T) {
	h := newPlanned(t)
	file := h.planFile()
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
		{"an edited message", func() { file.edit(h.ids[0], "4711") }, nil, 2, "the checksum differs"},
		{"an edited expression", func() { file.edit("del(.typo)", "{}") }, nil, 2, "the checksum differs"},
		{"nonsense", func() { file.edit(`"version": 1`, `"version": {}`) }, nil, 2, "it is not a plan"},
		{"half a file", func() { file.edit(string(file.whole[len(file.whole)/2:]), "") }, nil, 2, "it is not a plan"},
		{"older than the longest retention", func() { file.change(func(p *plan.Plan) { p.CreatedAt = p.CreatedAt.AddDate(0, 0, -32) }) }, nil, 1, "the plan's are gone; make a new one"},
	} {
		file.write(file.whole)
		c.prepare()
		got := h.with(c.variables, nil, "apply", file.path, "--yes", "--canary", "0")
		if got.status != c.status || !strings.Contains(got.stderr, c.says) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	h.replayed(0)
	h.left(38)
}

// TestApplyRefusesOtherListThanTheWorkers: the worker has had another services list since
// the plan was made.
func TestApplyRefusesOtherListThanTheWorkers(t *testing.T) {
	h := newPlanned(t)
	h.make()
	h.put(deadLettered(400, "{", "dlq_services_digest", "0123456789ab", "dlq_rejected_at", "2026-11-21T10:00:00Z"))
	if got := h.apply(t.Context()); got.status != 1 || !strings.Contains(got.stderr, "the running worker has another services list, 0123456789ab") {
		t.Errorf("%+v", got)
	}
	h.replayed(0)
	if got := h.apply(t.Context(), "--services-anyway"); got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
}

// TestApplyRefusesJournalOfAnotherPlan: a new plan has the path of one that was applied.
func TestApplyRefusesJournalOfAnotherPlan(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	if got := h.apply(t.Context()); got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
	h.put(deadLettered(500, typoData(1)))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	h.expect(0, "", "plan", "--fix", h.fix(typoFault+": {jq: del(.typo)}"), "-o", path)
	if got := h.apply(t.Context()); got.status != 1 || !strings.Contains(got.stderr, "it is the journal of another plan") {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
}

// TestApplyReportsLeasedMessages: a run reports the messages that another reader has
// leased, and the next run does them.
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
