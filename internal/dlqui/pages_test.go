package dlqui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.uber.org/goleak"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func recorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

// queueOf returns messages with a detail.
func queueOf(n int, detail string) []*pubsubpb.PubsubMessage {
	var all []*pubsubpb.PubsubMessage
	for i := range n {
		all = append(all, rejected(i, detail, userData(fmt.Sprint(i))))
	}
	return all
}

func TestFaultsPage(t *testing.T) {
	messages := append(queueOf(5, userDetail), rejected(100, typoDetail, `{"typo":1}`, "service_id", "pings", "dlq_replays", "1"))
	b := open(t, &fakeQueue{messages: messages, reading: Reading{Complete: true, Running: dlq.Worker{ServicesDigest: "abc"}}})
	page := b.get("/")
	b.want(page, "project p", "environment dev", "as the running worker has it", "6 messages, read just now", "worker dlq stats",
		"2 faults of 2, 6 messages", faultID(userDetail), userDetail, "core-services", "1.85.0 × 5", "growing")
	if !strings.Contains(page, `href="https://example.com/sams"`) {
		t.Error("no link to the runbook")
	}
	b.want(b.get("/?service=pings"), "1 fault of 2, 1 message", "worker dlq stats --service pings", "100%")
	b.want(b.get("/?text=USERID&fold=owner"), "1 fault of 2", "core-services: 1 fault, 5 messages")
	b.want(b.get("/?reason=malformed_payload"), "No fault matches")
}

// TestServicesDiffer: a check with another list than the worker's is no proof, and the
// pages say so.
func TestServicesDiffer(t *testing.T) {
	b := open(t, &fakeQueue{reading: Reading{Running: dlq.Worker{ServicesDigest: "other"}, Said: []string{"somebody else has leased 3 messages"}}})
	b.want(b.get("/"), "The running worker has another services list, other", "at least 0 messages", "somebody else has leased 3 messages", "No dead-lettered messages.")
}

func TestReadingFails(t *testing.T) {
	queue := &fakeQueue{readErr: errors.New("DLQ_SUBSCRIPTION: it does not exist")}
	b := open(t, queue)
	b.want(b.get("/"), "The queue cannot be read: DLQ_SUBSCRIPTION: it does not exist", "Try again")
	queue.readErr = nil
	if w := b.post("/read"); w.Code != http.StatusSeeOther {
		t.Errorf("status %d", w.Code)
	}
	b.until(b.read)
	b.want(b.get("/"), "No dead-lettered messages.")
}

func TestFaultPage(t *testing.T) {
	b := open(t, &fakeQueue{messages: queueOf(30, userDetail)})
	page := b.get("/faults/" + faultID(userDetail))
	b.want(page, "The newest 20 of 30 messages", "019a0000-0000-7000-8000-000000000000", "1.85.0", "Replay with --jq", "worker dlq list --fault "+faultID(userDetail))
	if strings.Contains(page, secret) {
		t.Error("private data is shown")
	}
}

func TestEventPage(t *testing.T) {
	queue := &fakeQueue{messages: queueOf(2, userDetail)}
	b := open(t, queue)
	page := b.get("/events/q1")
	b.want(page, userDetail, "← here", "service_id = sams", "worker dlq show 019a0000-0000-7000-8000-000000000001", "hidden: private, or may be")
	if strings.Contains(page, secret) {
		t.Fatal("private data is shown")
	}
	if w := b.do(http.MethodGet, "/find?id=m1", nil); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/events/q1" {
		t.Errorf("find: %d %s", w.Code, w.Header())
	}
	if w := b.do(http.MethodGet, "/events/q1/reveal", nil); w.Code != http.StatusNotFound || len(queue.revealed) > 0 {
		t.Errorf("revealed by a link: %d", w.Code)
	}
	w := b.post("/events/q1/reveal")
	b.want(w.Body.String(), secret, "The audit file has a record of it", "--reveal")
	if !slices.Equal(queue.revealed, []string{"q1"}) {
		t.Errorf("recorded %v", queue.revealed)
	}
	queue.revealErr = errors.New("the disk is full")
	w = b.post("/events/q1/reveal")
	if b.want(w.Body.String(), "is not shown, because that cannot be recorded: the disk is full"); strings.Contains(w.Body.String(), secret) {
		t.Error("private data is shown without a record")
	}
}

// TestHostile: texts of publishers are shown as texts, and none is too long.
func TestHostile(t *testing.T) {
	const script = `<script>alert(1)</script>`
	big := `{"feature":"` + script + `","action":"` + strings.Repeat("x", 3<<20) + `"}`
	messages := []*pubsubpb.PubsubMessage{
		rejected(1, script+": \x1b[31m\u202e"+script, big, "service_id", script, "service_version", script, "dlq_message_id", "../"+script, "dlq_event_id", script, script, script),
		{MessageId: `"><img src=x>`, Data: []byte(script)},
		rejected(2, userDetail, "x", "dlq_encoding", "gzip"),
	}
	b := open(t, &fakeQueue{messages: messages})
	targets := []string{"/", "/?text=" + url.QueryEscape(script) + "&reason=" + url.QueryEscape(script), "/plan"}
	for _, f := range b.server.reader.spool.Faults() {
		targets = append(targets, "/faults/"+f.ID, "/faults/"+f.ID+"/fix?all=1&jq="+url.QueryEscape(`"`+script+`"`))
	}
	for _, m := range messages {
		targets = append(targets, eventPath(m.GetMessageId()))
	}
	for _, target := range targets {
		page := b.get(target)
		if strings.Contains(page, script) || strings.Contains(page, "<img") || strings.ContainsAny(page, "\x1b\u202e") {
			t.Errorf("%s: a text of a publisher is not escaped", target)
		}
		if len(page) > 200<<10 {
			t.Errorf("%s has %d bytes", target, len(page))
		}
	}
	if page := b.post("/events/q1/reveal").Body.String(); strings.Contains(page, script) || len(page) > 600<<10 {
		t.Errorf("the revealed event is not escaped or clipped: %d bytes", len(page))
	}
}

func TestFixPage(t *testing.T) {
	messages := append(queueOf(3, userDetail), rejected(3, userDetail, userData("x")), rejected(4, userDetail, userData("5"), "dlq_replays", "3"))
	b := open(t, &fakeQueue{messages: messages})
	id := faultID(userDetail)
	page := b.get("/faults/" + id + "/fix")
	b.want(page, "Suggested from the detail: .user.userId |= tonumber", `"userId": "0" "userId": 0`, "passes", "stays", "tonumber cannot be applied",
		"worker dlq replay --fault "+id+" --jq '.user.userId |= tonumber' --dry-run")
	if strings.Contains(page, secret) {
		t.Error("private data is shown")
	}
	all := b.get("/faults/" + id + "/fix?all=1&jq=" + url.QueryEscape(".user.userId |= tonumber | del(.privateMetadata)"))
	b.want(all, "3 would pass", "1 would be rejected again", "1 were replayed too often", "3 lose data", "user.userId string → number 3", "privateMetadata object removed · data disappears 3")
	// The samples follow the expression as it is typed.
	part := b.get("/faults/" + id + "/fix/samples?jq=" + url.QueryEscape("del(.user)"))
	if b.want(part, "passes", "disappears"); strings.Contains(part, "<html") {
		t.Error("the part is a whole page")
	}
	b.want(b.get("/faults/"+id+"/fix/samples?jq="+url.QueryEscape(".[")), "Expected a jq expression")
	b.want(b.get("/faults/"+id+"/fix/samples?jq="+url.QueryEscape(strings.Repeat("x", maxExpression+1))), "longer than 16 KiB")
}

// TestCheckIsLive: the numbers of a check are sent until it is done.
func TestCheckIsLive(t *testing.T) {
	b := open(t, &fakeQueue{messages: queueOf(5, userDetail)})
	id := faultID(userDetail)
	b.get("/faults/" + id + "/fix?all=1&jq=.")
	stream := b.get("/faults/" + id + "/fix/live?jq=.")
	if b.want(stream, "5 would be rejected again"); !strings.HasPrefix(stream, "event: part\ndata: ") || !strings.HasSuffix(stream, "event: done\ndata: \n\n") {
		t.Errorf("stream %q", stream)
	}
	b.want(b.get("/faults/"+id+"/fix/live?jq=other"), "load the page again")
}

// TestPlan: the plan is made by the command, from a file that it can read.
func TestPlan(t *testing.T) {
	user, typo := faultID(userDetail), faultID(typoDetail)
	queue := &fakeQueue{messages: append(queueOf(3, userDetail), rejected(10, typoDetail, `{}`))}
	queue.runs = func(_ context.Context, args []string, _, stderr io.Writer) int {
		fmt.Fprintln(stderr, "worker: events are checked with the services list abc")
		return status(makePlan(args[4], user, plan.Step{Action: plan.Fix, JQ: "."}, "q0", "q1", "q2"))
	}
	b := open(t, queue)
	for _, form := range [][]string{{"fault", user, "action", "jq", "jq", "del(.x) # it's"}, {"fault", typo, "action", "purge"}} {
		if w := b.post("/plan", form...); w.Code != http.StatusSeeOther {
			t.Fatalf("%v: %d %s", form, w.Code, text(w.Body.String()))
		}
	}
	b.want(b.get("/plan"), "3 to replay", "1 to purge", "correct and replay del(.x) # it's", "purge, with a backup", "Plan (2)")
	if w := b.post("/plan", "fault", typo, "action", "drop"); w.Code != http.StatusSeeOther {
		t.Fatal(w.Code)
	}
	w := b.post("/plan/make")
	to := w.Header().Get("Location")
	if !strings.HasPrefix(to, "/operations/") {
		t.Fatalf("%d %s", w.Code, text(w.Body.String()))
	}
	stream := b.get(to + "/live")
	b.want(stream, "worker dlq plan --fix", "events are checked with the services list abc")
	b.want(b.get(to), "planned", "3 to replay", "0 to purge", "Type the number of messages, 3, to confirm")
	ran := queue.commands()
	if len(ran) != 1 {
		t.Fatalf("ran %v", ran)
	}
	text, err := os.ReadFile(ran[0][2])
	if err != nil {
		t.Fatal(err)
	}
	fixes, err := plan.ParseFixes(text, func(string) error { return nil })
	if want := (plan.Fixes{user: {Action: plan.Fix, JQ: "del(.x) # it's"}}); err != nil || len(fixes) != 1 || fixes[user] != want[user] {
		t.Errorf("%s: %v, %v", text, fixes, err)
	}
}

func status(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

// planned makes an operation with a plan of three messages.
func (b *browser) planned() string {
	b.Helper()
	name := newName()
	if err := makePlan(b.path(name), faultID(userDetail), plan.Step{Action: plan.Replay}, "q0", "q1", "q2"); err != nil {
		b.Fatal(err)
	}
	return name
}

// TestApply: a plan is applied when its number of messages is typed, and the pages show
// its journal.
func TestApply(t *testing.T) {
	queue := &fakeQueue{messages: queueOf(3, userDetail)}
	going := make(chan struct{})
	queue.runs = func(ctx context.Context, args []string, _, stderr io.Writer) int {
		if args[0] != "apply" {
			return 0
		}
		p, j := openJournal(t, args[1])
		err := errors.Join(
			j.Append(plan.Record{Kind: plan.Begun, Plan: p.ID, Checksum: p.Checksum}, plan.Record{Kind: plan.Published, IDs: []string{"q0"}}))
		fmt.Fprintln(stderr, "worker: 1 canary went ahead")
		fmt.Fprintln(stderr, `{"audit":true}`)
		select {
		case <-going:
		case <-ctx.Done():
			return status(errors.Join(j.Append(plan.Record{Kind: plan.Ended, Why: "interrupted"}), j.Close(), errors.New("x")))
		}
		return status(errors.Join(err, j.Append(plan.Record{Kind: plan.Published, IDs: []string{"q1", "q2"}}, plan.Record{Kind: plan.Removed, IDs: []string{"q0", "q1", "q2"}}, plan.Record{Kind: plan.Ended, Why: "the plan is applied"}), j.Close()))
	}
	b := open(t, queue)
	name := b.planned()
	to := "/operations/" + name
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
		w := b.post(to+"/apply", c.form...)
		if b.want(w.Body.String(), c.why, "Nothing was changed"); w.Code != 400 || len(queue.commands()) > 0 {
			t.Errorf("%v: status %d, ran %v", c.form, w.Code, queue.commands())
		}
	}
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
	// A second page meanwhile.
	if w := b.post(to+"/apply", "count", "2"); !strings.HasSuffix(w.Header().Get("Location"), "?notice=busy") {
		t.Errorf("a second apply: %d %s", w.Code, w.Header())
	}
	b.want(b.get(to+"?notice=busy"), "Something else runs for this operation already")
	// It is stopped, and goes on.
	b.post(to + "/stop")
	b.until(func() bool { return strings.Contains(text(b.get(to)), "applying: stopped") })
	b.want(b.get(to), "Go on with the plan", "Type the number of messages, 2, to confirm")
	close(going)
	b.post(to+"/apply", "count", "2")
	b.want(b.get(to+"/live"), "3 published", "0 not done yet")
	b.want(b.get("/operations"), name, "done", "not known")
	want := []string{"apply", b.path(name), "--yes", "--output", "json", "--canary", "0", "--rate", "100"}
	if got := queue.commands()[0]; !slices.Equal(got, want) {
		t.Errorf("ran %v, want %v", got, want)
	}
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

// TestReceipts: while a page shows an operation that waits for receipts, they are asked
// for.
func TestReceipts(t *testing.T) {
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

// TestRestore: what an operation has removed is put back by the command, once the number
// is typed.
func TestRestore(t *testing.T) {
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

// TestBadPlans: a plan that cannot be read is named, and cannot be applied.
func TestBadPlans(t *testing.T) {
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

// TestClose stops what runs as an interrupt does, and leaves no file of the queue.
func TestClose(t *testing.T) {
	queue := &fakeQueue{messages: queueOf(3, userDetail)}
	stopped := false
	queue.runs = func(ctx context.Context, _ []string, _, _ io.Writer) int {
		<-ctx.Done()
		stopped = true
		return 1
	}
	folder := t.TempDir()
	b := open(t, queue, func(o *Options) { o.Spool = folder })
	b.post("/operations/"+b.planned()+"/apply", "count", "3")
	b.server.Close()
	if left, err := filepath.Glob(folder + "/*"); !stopped || err != nil || len(left) > 0 {
		t.Errorf("stopped %v, left %v, %v", stopped, left, err)
	}
}
