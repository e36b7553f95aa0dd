package dlqui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// planned makes an operation with a plan of three messages.
func (b *browser) planned() string {
	b.t.Helper()
	name := newName()
	if err := makePlan(b.path(name), faultID(userDetail), plan.Step{Action: plan.Replay}, "q0", "q1", "q2"); err != nil {
		b.t.Fatal(err)
	}
	return name
}

func openJournal(t *testing.T, path string) (*plan.Plan, *plan.Journal) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	p, err := plan.Parse(text, func(string) error { return nil })
	if err != nil {
		t.Error(err)
	}
	j, err := plan.OpenJournal(plan.JournalOf(path), p)
	if err != nil {
		t.Error(err)
	}
	return p, j
}

// applyUntil is `dlq apply`, which publishes a first message, and the others once it may go
// on. An interrupt ends it before.
func applyUntil(t *testing.T, goOn <-chan struct{}) func(context.Context, []string, io.Writer, io.Writer) int {
	return func(ctx context.Context, args []string, _, stderr io.Writer) int {
		if args[0] != "apply" {
			return 0
		}
		p, j := openJournal(t, args[1])
		err := errors.Join(
			j.Append(plan.Record{Kind: plan.Begun, Plan: p.ID, Checksum: p.Checksum}, plan.Record{Kind: plan.Published, IDs: []string{"q0"}}))
		fmt.Fprintln(stderr, "worker: 1 canary went ahead")
		fmt.Fprintln(stderr, `{"audit":true}`)
		select {
		case <-goOn:
		case <-ctx.Done():
			return status(errors.Join(j.Append(plan.Record{Kind: plan.Ended, Why: "interrupted"}), j.Close(), errors.New("x")))
		}
		return status(errors.Join(err, j.Append(plan.Record{Kind: plan.Published, IDs: []string{"q1", "q2"}}, plan.Record{Kind: plan.Removed, IDs: []string{"q0", "q1", "q2"}}, plan.Record{Kind: plan.Ended, Why: "the plan is applied"}), j.Close()))
	}
}

func TestApplyNeedsTheNumberOfMessages(t *testing.T) {
	b := open(t, &fakeQueue{messages: queueOf(3, userDetail)})
	for _, c := range []struct {
		form []string
		why  string
	}{
		{nil, "expected the number of messages, 3, to be typed"},
		{[]string{"count", "2"}, "the number typed is 2, and it is 3 messages"},
		{[]string{"count", "all"}, "count: expected a number"},
		{[]string{"count", "3", "rate", "-1"}, "rate: expected a number"},
		{[]string{"count", "3", "canary-wait", "soon"}, "canary-wait: expected a duration"},
	} {
		w := b.post("/operations/"+b.planned()+"/apply", c.form...)
		if b.want(w.Body.String(), c.why, "Nothing was changed"); w.Code != 400 || len(b.queue.commands()) > 0 {
			t.Errorf("%v: status %d, ran %v", c.form, w.Code, b.queue.commands())
		}
	}
}

// TestPlanIsAppliedStoppedAndContinued: the pages show the journal of the plan meanwhile.
func TestPlanIsAppliedStoppedAndContinued(t *testing.T) {
	goOn := make(chan struct{})
	queue := &fakeQueue{messages: queueOf(3, userDetail), runs: applyUntil(t, goOn)}
	b := open(t, queue)
	name := b.planned()
	to := "/operations/" + name
	form := []string{"count", "3", "rate", "100", "canary", "0", "stop-after", "10", "canary-wait", ""}
	if w := b.post(to+"/apply", form...); w.Header().Get("Location") != to {
		t.Fatalf("%d %s", w.Code, text(w.Body.String()))
	}
	b.until(func() bool {
		page := text(b.get(to))
		return strings.Contains(page, "1 published") && strings.Contains(page, "1 canary went ahead")
	})
	b.want(b.get(to), "applying", "2 not done yet", "Whether the published events were recorded is not known", "Stop")
	if strings.Contains(b.get(to), "audit&#34;") {
		t.Error("audit records are shown")
	}
	// A second page tries to apply the plan, too.
	if w := b.post(to+"/apply", "count", "2"); !strings.HasSuffix(w.Header().Get("Location"), "?notice=busy") {
		t.Errorf("a second apply: %d %s", w.Code, w.Header())
	}
	b.want(b.get(to+"?notice=busy"), "Something else runs for this operation already")
	b.post(to + "/stop")
	b.until(func() bool { return strings.Contains(text(b.get(to)), "applying: stopped") })
	b.want(b.get(to), "Go on with the plan", "Type the number of messages, 2, to confirm")
	close(goOn)
	b.post(to+"/apply", "count", "2")
	b.want(b.get(to+"/live"), "3 published", "0 not done yet")
	b.want(b.get("/operations"), name, "done", "not known")
	want := []string{"apply", b.path(name), "--yes", "--output", "json", "--canary", "0", "--rate", "100"}
	if got := queue.commands()[0]; !slices.Equal(got, want) {
		t.Errorf("ran %v, want %v", got, want)
	}
}

func TestOpenPageAsksForReceipts(t *testing.T) {
	queue := &fakeQueue{messages: queueOf(3, userDetail)}
	queue.runs = func(_ context.Context, args []string, _, _ io.Writer) int {
		p, j := openJournal(t, args[1])
		n := len(queue.commands())
		return status(errors.Join(j.Append(plan.Record{Kind: plan.Receipted, Receipts: []plan.Receipt{
			{Message: fmt.Sprint(n), Origin: p.Groups[0].Messages[fmt.Sprintf("q%d", n-1)], Verdict: []plan.Verdict{plan.Recorded, plan.Recorded, plan.Rejected}[n-1], Reason: "invalid_event"},
		}}), j.Close()))
	}
	b := open(t, queue, func(o *Options) { o.About.Receipts = true })
	name := b.planned()
	p, j := openJournal(t, b.path(name))
	if err := errors.Join(j.Append(plan.Record{Kind: plan.Begun, Plan: p.ID, Checksum: p.Checksum}, plan.Record{Kind: plan.Published, IDs: []string{"q0", "q1", "q2"}},
		plan.Record{Kind: plan.Ended, Why: "the plan is applied"}), j.Close()); err != nil {
		t.Fatal(err)
	}
	b.want(b.get("/operations"), "published", "3")
	stream := b.get("/operations/" + name + "/live")
	parts := strings.Split(stream, "event: part")
	b.want(parts[len(parts)-1], "2 recorded", "1 rejected again", "0 waiting", "invalid_event × 1")
	if ran := queue.commands(); len(ran) != 3 || ran[0][0] != "status" {
		t.Errorf("ran %v", ran)
	}
}

func TestRestoreNeedsTheNumberOfMessages(t *testing.T) {
	b := open(t, &fakeQueue{messages: queueOf(3, userDetail)})
	name := b.planned()
	to := "/operations/" + name
	b.want(b.post(to+"/restore", "count", "2").Body.String(), "has no backup")
	if err := os.WriteFile(plan.BackupOf(b.path(name)), []byte("{}\n{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.want(b.get(to), "Puts the 2 messages that this operation has removed", "Type the number of messages, 2, to confirm")
	b.want(b.post(to+"/restore", "count", "1").Body.String(), "the number typed is 1")
	b.post(to+"/restore", "count", "2")
	b.get(to + "/live")
	if ran := b.queue.commands(); len(ran) != 1 || !slices.Equal(ran[0], []string{"restore", plan.BackupOf(b.path(name)), "--yes", "--output", "json"}) {
		t.Errorf("ran %v", ran)
	}
}

// TestPlanThatCannotBeReadIsNotApplied: a plan that was edited has a wrong checksum.
func TestPlanThatCannotBeReadIsNotApplied(t *testing.T) {
	b := open(t, &fakeQueue{})
	name := b.planned()
	path := b.path(name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var edited map[string]any
	if err := json.Unmarshal(text, &edited); err != nil {
		t.Fatal(err)
	}
	edited["max_replays"] = 99
	text, _ = json.Marshal(edited)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	b.want(b.get("/operations"), "the checksum differs")
	b.want(b.get("/operations/"+name), "the checksum differs")
	b.want(b.post("/operations/"+name+"/apply", "count", "3").Body.String(), "There is no plan to apply")
	if len(b.queue.commands()) > 0 {
		t.Error("it was applied")
	}
}
