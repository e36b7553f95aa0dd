package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
	"github.com/sourcegraph/telemetry-relay/recorder"
)

// docs/publishing.md is held to what it says: its commands are run, its tables are
// decoded, and its Go is that of the examples.

func publishing(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(runbookDir, "publishing.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section returns a part of the page, from its heading to the next of its level.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(page, heading+"\n")
	if !found {
		t.Fatalf("there is no %q", heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	if next := regexp.MustCompile(fmt.Sprintf(`(?m)^#{1,%d} `, len(level))).FindStringIndex(rest); next != nil {
		return rest[:next[0]]
	}
	return rest
}

// cells returns the code in the columns of the rows that have some in the first.
func cells(part string) [][]string {
	var rows [][]string
	code := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(part) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		var row []string
		for column := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			var all []string
			for _, found := range code.FindAllStringSubmatch(column, -1) {
				all = append(all, found[1])
			}
			row = append(row, strings.Join(all, " "))
		}
		rows = append(rows, row)
	}
	return rows
}

// TestPublishingChecklist: the entry is one that services.yaml takes, with what the
// page's own service records, and the links lead to sections.
func TestPublishingChecklist(t *testing.T) {
	page := publishing(t)
	list := section(t, page, "## Checklist")
	_, entry, _ := strings.Cut(list, "```yaml\n")
	entry, _, _ = strings.Cut(entry, "```")
	set, err := servicesyaml.Parse([]byte("services:\n" + entry))
	if err != nil {
		t.Fatal(err)
	}
	service, ok := set.Lookup("cody-analytics")
	if !ok || !service.AllowsFeature("cody.hover") || !service.AllowsEnvironment("dev") || service.Owner == "" {
		t.Errorf("%+v", service)
	}
	anchor := func(heading string) string {
		return strings.ReplaceAll(strings.ToLower(strings.TrimLeft(heading, "# ")), " ", "-")
	}
	var anchors []string
	for _, heading := range regexp.MustCompile(`(?m)^#+ .*$`).FindAllString(page, -1) {
		anchors = append(anchors, anchor(heading))
	}
	links := regexp.MustCompile(`\]\(#([a-z-]+)\)`).FindAllStringSubmatch(list, -1)
	for _, link := range links {
		if !slices.Contains(anchors, link[1]) {
			t.Errorf("no section #%s", link[1])
		}
	}
	if len(links) < 5 || !strings.Contains(list, "roles/pubsub.publisher") {
		t.Errorf("%d links", len(links))
	}
}

func TestPublishingNames(t *testing.T) {
	names, refused, taken := section(t, publishing(t), "### Names"), 0, 0
	parts := strings.Split(names, "| good | bad")
	if len(parts) != 4 {
		t.Fatalf("%d tables", len(parts)-1)
	}
	for _, row := range cells(parts[1]) {
		refused++
		if err := recorder.Feature(row[0]).Check(); err != nil {
			t.Errorf("a good name: %v", err)
		}
		if err := recorder.Feature(row[1]).Check(); err == nil {
			t.Errorf("the worker takes %s", row[1])
		}
	}
	for _, row := range cells(parts[2]) {
		for _, both := range row[:2] {
			taken++
			feature, action, _ := strings.Cut(both, " ")
			if recorder.Feature(feature).Check() != nil || recorder.Action(action).Check() != nil {
				t.Errorf("the worker does not take %s", both)
			}
		}
	}
	for _, row := range cells(parts[3]) {
		refused++
		for i, good := range []bool{true, false} {
			data := fmt.Sprintf(`{"feature":"ab","action":"cd","metadata":%s}`, row[i])
			if rejection := decodeAs("sams", data); (rejection == nil) != good {
				t.Errorf("%s: %v", row[i], rejection)
			}
		}
	}
	if refused != 9 || taken != 10 {
		t.Errorf("%d and %d names", refused, taken)
	}
}

func decodeAs(service, data string) *event.Rejection {
	cfg, err := config.Load(nil, config.ForCheck)
	if err != nil {
		panic(err)
	}
	_, rejection := event.NewDecoder(cfg.Services, "dev").Decode(event.Message{
		ID: "1", PublishTime: time.Now(), Data: []byte(data), Attributes: map[string]string{"service_id": service},
	})
	return rejection
}

func TestPublishingMistakes(t *testing.T) {
	rows := regexp.MustCompile("(?m)^\\| `([{\\[].*?)` \\| `(\\w+)`: (.*) \\|$").FindAllStringSubmatch(publishing(t), -1)
	for _, row := range rows {
		rejection := decodeAs("sams", row[1])
		if rejection == nil || string(rejection.Reason) != row[2] || !strings.HasPrefix(rejection.Detail, row[3]) {
			t.Errorf("%s: the page says %s: %s; the worker says %v", row[1], row[2], row[3], rejection)
		}
	}
	if len(rows) != 11 {
		t.Errorf("%d mistakes", len(rows))
	}
}

// TestPublishingGo makes sure that what the page shows of Go is compiled and run
// somewhere.
func TestPublishingGo(t *testing.T) {
	var sources []string
	for _, pattern := range []string{"../../recorder/*_test.go", "../../recorder/recordertest/*_test.go", "../../examples/go/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, string(text))
		}
	}
	found := blocks.FindAllStringSubmatch(publishing(t), -1)
	shown := 0
	for _, block := range found {
		if block[1] != "go" {
			continue
		}
		shown++
		if !slices.ContainsFunc(sources, func(source string) bool { return strings.Contains(source, block[2]) }) {
			t.Errorf("this is in no example:\n%s", block[2])
		}
	}
	if shown != 3 {
		t.Errorf("%d blocks", shown)
	}
}

// newDesk is where a developer's commands run, without any Pub/Sub so far.
func newDesk(t *testing.T, vars ...string) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("it runs programs of its own")
	}
	for _, tool := range []string{"bash", "jq"} {
		switch _, err := exec.LookPath(tool); {
		case err != nil && os.Getenv(emulator.RequireVariable) == "1":
			t.Fatalf("the page's commands need %s: %v", tool, err)
		case err != nil:
			t.Skipf("the page's commands need %s: %v", tool, err)
		}
	}
	w := &world{t: t, dir: t.TempDir(), names: strings.NewReplacer()}
	self, err := os.Executable()
	w.must(err)
	bin := t.TempDir()
	w.must(os.Symlink(self, filepath.Join(bin, "worker")))
	w.environ = append([]string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + w.dir, "USER=kim", "LC_ALL=C.UTF-8", actAsWorker + "=1",
	}, vars...)
	return w
}

// consoles returns the blocks of a kind.
func consoles(part, kind string) []string {
	var all []string
	for _, block := range blocks.FindAllStringSubmatch(part, -1) {
		if block[1] == kind {
			all = append(all, block[2])
		}
	}
	return all
}

// TestPublishingTry walks through the page's visit to `worker local`.
func TestPublishingTry(t *testing.T) {
	t.Parallel()
	w := newDesk(t)
	part := section(t, publishing(t), "## Try a service")
	terminals := consoles(part, "console")
	if len(terminals) != 3 {
		t.Fatalf("%d blocks", len(terminals))
	}
	command, prints, _ := strings.Cut(strings.TrimPrefix(terminals[0], "$ "), "\n")
	// Any free port, lest somebody else has the page's.
	const port = "127.0.0.1:8085"
	if !strings.Contains(command, port) {
		t.Fatalf("another command: %s", command)
	}
	first := w.background(strings.Replace(command, port, "127.0.0.1:0", 1))
	w.eventually("the first terminal is ready", func() bool { return strings.Contains(first.String(), "Stop with Ctrl-C.\n") })
	if got := strings.TrimSuffix(first.String(), "\n"); same(got) != same(prints) {
		t.Errorf("prints\n%s\nwhere the page has\n%s", got, prints)
	}
	exports := regexp.MustCompile(`(?m)^ +export (\S+)$`).FindAllStringSubmatch(first.String(), -1)
	if len(exports) != 3 {
		t.Fatalf("%d exports in\n%s", len(exports), first)
	}
	for _, export := range exports {
		w.environ = append(w.environ, export[1])
	}
	w.session(terminals[1])
	for line := range strings.Lines(consoles(part, "text")[0]) {
		w.eventually("the first terminal prints "+line, func() bool { return strings.Contains(first.String(), line) })
	}
	w.session(terminals[2])
}

// background starts a command of the page's, and ends it with the test as Ctrl-C
// would.
func (w *world) background(command string) *output {
	w.t.Helper()
	out := &output{}
	cmd := exec.Command("bash", "-c", "exec env "+command)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, w.environ, out, out
	w.must(cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended
		select {
		case err := <-done:
			if err != nil {
				w.t.Errorf("%s: %v\n%s", command, err, out)
			}
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-done
			w.t.Errorf("%s does not end with SIGINT\n%s", command, out)
		}
	})
	return out
}

// TestPublishingCheck runs the commands about other projects' CI, where nothing is
// configured.
func TestPublishingCheck(t *testing.T) {
	t.Parallel()
	w := newDesk(t)
	for _, block := range consoles(section(t, publishing(t), "## Check events in your own CI"), "console") {
		w.session(block)
	}
}

// TestPublishingRejects makes the developers' subscription with the page's own
// command, on Google's emulator, which keeps the filter but does not apply it; and
// runs their commands on a Pub/Sub that does, with the filter that was kept.
func TestPublishingRejects(t *testing.T) {
	t.Parallel()
	w := newDesk(t)
	part := section(t, publishing(t), "## See your own rejects")
	commands := consoles(part, "sh")
	if len(commands) != 2 {
		t.Fatalf("%d blocks", len(commands))
	}
	e := emulator.New(t)
	conn, err := grpc.NewClient(e.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.must(err)
	defer conn.Close()
	const project = "projects/telemetry-relay-prod"
	_, err = pubsubpb.NewPublisherClient(conn).CreateTopic(t.Context(), &pubsubpb.Topic{Name: project + "/topics/telemetry-events-dlq"})
	w.must(err)
	create, grant, found := strings.Cut(commands[0], "gcloud pubsub subscriptions add-iam-policy-binding")
	if !found || !strings.Contains(grant, "roles/pubsub.subscriber") {
		t.Fatalf("other commands:\n%s", commands[0])
	}
	gcloud := *w
	gcloud.environ = append(slices.Clone(w.environ), "CLOUDSDK_CONFIG="+t.TempDir(), "CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true",
		"CLOUDSDK_CORE_DISABLE_PROMPTS=1", "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB=http://"+e.Host+"/")
	if got := gcloud.shell(create); !strings.Contains(got, "Created subscription [projects/telemetry-relay-prod/subscriptions/telemetry-dlq-sams]") {
		t.Fatalf("gcloud says: %s", got)
	}
	made, err := pubsubpb.NewSubscriberClient(conn).GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: project + "/subscriptions/telemetry-dlq-sams"})
	w.must(err)
	if made.GetExpirationPolicy() == nil || made.GetExpirationPolicy().GetTtl() != nil {
		t.Errorf("it expires: %v", made)
	}

	server := pstest.NewServer()
	defer server.Close()
	_, err = server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: made.GetTopic()})
	w.must(err)
	_, err = server.GServer.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: made.GetName(), Topic: made.GetTopic(), Filter: made.GetFilter(), AckDeadlineSeconds: made.GetAckDeadlineSeconds(),
	})
	w.must(err)
	for i, service := range []string{"cody-gateway", "sams", "smas"} {
		data := fmt.Sprintf(`{"feature":"ab","action":"cd","id":"019aa000-0000-7000-8000-00000000000%d","metdata":{"tier":1}}`, i+1)
		server.Publish(made.GetTopic(), []byte(data), map[string]string{
			"service_id": service, "dlq_reason": "invalid_event", "dlq_detail": "metdata: unknown field; did you mean metadata?",
			"dlq_rejected_at": "2026-11-20T01:47:16Z", "dlq_attempts": "0", "dlq_message_id": "1", "dlq_publish_time": "2026-11-20T01:47:15Z",
			"dlq_subscription": project + "/subscriptions/telemetry-events-relay", "dlq_event_id": fmt.Sprintf("019aa000-0000-7000-8000-00000000000%d", i+1),
			"dlq_worker_version": "1.2.3",
		})
	}
	w.environ = append(w.environ, strings.Fields(strings.TrimPrefix(commands[1], "export "))...)
	w.environ = append(w.environ, "PUBSUB_EMULATOR_HOST="+server.Addr)
	for _, block := range consoles(part, "console") {
		w.session(block)
	}
}

// TestPublishingSchema makes sure that the schema that the page leads to is JSON.
func TestPublishingSchema(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(runbookDir, "event.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Schema string `json:"$schema"`
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&schema); err != nil || !strings.Contains(schema.Schema, "2020-12") {
		t.Errorf("%q: %v", schema.Schema, err)
	}
}
