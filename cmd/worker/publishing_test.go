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

// These tests check docs/publishing.md: they run its commands, decode the events in its
// tables, and look for its Go code in the examples.

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

// cells returns the code in each column of the table rows whose first column has code.
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

// TestPublishingChecklistIsValid: services.yaml accepts the entry, the entry allows the
// events of the page's service, and each link leads to a section.
func TestPublishingChecklistIsValid(t *testing.T) {
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

func TestPublishingNamesAreTakenOrRefusedAsShown(t *testing.T) {
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

func TestPublishingMistakesAreRejectedAsShown(t *testing.T) {
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

// TestPublishingGoIsPartOfAnExample: only the code of an example is compiled and run.
func TestPublishingGoIsPartOfAnExample(t *testing.T) {
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

// newDeveloperEnv returns an environment for a developer's commands, without a Pub/Sub.
func newDeveloperEnv(t *testing.T, vars ...string) *docEnv {
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
	env := &docEnv{t: t, dir: t.TempDir(), names: strings.NewReplacer()}
	self, err := os.Executable()
	env.must(err)
	bin := t.TempDir()
	env.must(os.Symlink(self, filepath.Join(bin, "worker")))
	env.environ = append([]string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + env.dir, "USER=kim", "LC_ALL=C.UTF-8", actAsWorker + "=1",
	}, vars...)
	return env
}

// blocksOf returns the code blocks of a kind.
func blocksOf(part, kind string) []string {
	var all []string
	for _, block := range blocks.FindAllStringSubmatch(part, -1) {
		if block[1] == kind {
			all = append(all, block[2])
		}
	}
	return all
}

// TestPublishingTryPrintsAsShown runs the commands of the section about `worker local`.
func TestPublishingTryPrintsAsShown(t *testing.T) {
	t.Parallel()
	env := newDeveloperEnv(t)
	part := section(t, publishing(t), "## Try a service")
	terminals := blocksOf(part, "console")
	if len(terminals) != 3 {
		t.Fatalf("%d blocks", len(terminals))
	}
	command, prints, _ := strings.Cut(strings.TrimPrefix(terminals[0], "$ "), "\n")
	// Another process may use the port on the page, so that the test takes any free one.
	const port = "127.0.0.1:8085"
	if !strings.Contains(command, port) {
		t.Fatalf("another command: %s", command)
	}
	first := env.background(strings.Replace(command, port, "127.0.0.1:0", 1))
	env.eventually("the first terminal is ready", func() bool { return strings.Contains(first.String(), "Stop with Ctrl-C.\n") })
	if got := strings.TrimSuffix(first.String(), "\n"); same(got) != same(prints) {
		t.Errorf("prints\n%s\nwhere the page has\n%s", got, prints)
	}
	exports := regexp.MustCompile(`(?m)^ +export (\S+)$`).FindAllStringSubmatch(first.String(), -1)
	if len(exports) != 3 {
		t.Fatalf("%d exports in\n%s", len(exports), first)
	}
	for _, export := range exports {
		env.environ = append(env.environ, export[1])
	}
	env.session(terminals[1])
	for line := range strings.Lines(blocksOf(part, "text")[0]) {
		env.eventually("the first terminal prints "+line, func() bool { return strings.Contains(first.String(), line) })
	}
	env.session(terminals[2])
}

// background starts a command of the page, and interrupts it at the end of the test, as
// Ctrl-C would.
func (env *docEnv) background(command string) *output {
	env.t.Helper()
	out := &output{}
	cmd := exec.Command("bash", "-c", "exec env "+command)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = env.dir, env.environ, out, out
	env.must(cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	env.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended
		select {
		case err := <-done:
			if err != nil {
				env.t.Errorf("%s: %v\n%s", command, err, out)
			}
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-done
			env.t.Errorf("%s does not end with SIGINT\n%s", command, out)
		}
	})
	return out
}

// TestPublishingCheckPrintsAsShown runs the commands for the CI of other projects, where
// nothing is configured.
func TestPublishingCheckPrintsAsShown(t *testing.T) {
	t.Parallel()
	env := newDeveloperEnv(t)
	for _, block := range blocksOf(section(t, publishing(t), "## Check events in your own CI"), "console") {
		env.session(block)
	}
}

// TestPublishingRejectsAreFilteredByService creates the developers' subscription with the
// page's command on Google's emulator, which stores the filter but does not apply it. The
// other commands run on a Pub/Sub that applies the stored filter.
func TestPublishingRejectsAreFilteredByService(t *testing.T) {
	t.Parallel()
	env := newDeveloperEnv(t)
	part := section(t, publishing(t), "## See your own rejects")
	commands := blocksOf(part, "sh")
	if len(commands) != 2 {
		t.Fatalf("%d blocks", len(commands))
	}
	e := emulator.New(t)
	conn, err := grpc.NewClient(e.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	env.must(err)
	defer conn.Close()
	const project = "projects/telemetry-relay-prod"
	_, err = pubsubpb.NewPublisherClient(conn).CreateTopic(t.Context(), &pubsubpb.Topic{Name: project + "/topics/telemetry-events-dlq"})
	env.must(err)
	create, grant, found := strings.Cut(commands[0], "gcloud pubsub subscriptions add-iam-policy-binding")
	if !found || !strings.Contains(grant, "roles/pubsub.subscriber") {
		t.Fatalf("other commands:\n%s", commands[0])
	}
	gcloud := *env
	gcloud.environ = append(slices.Clone(env.environ), "CLOUDSDK_CONFIG="+t.TempDir(), "CLOUDSDK_AUTH_DISABLE_CREDENTIALS=true",
		"CLOUDSDK_CORE_DISABLE_PROMPTS=1", "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB=http://"+e.Host+"/")
	if got := gcloud.shell(create); !strings.Contains(got, "Created subscription [projects/telemetry-relay-prod/subscriptions/telemetry-dlq-sams]") {
		t.Fatalf("gcloud says: %s", got)
	}
	made, err := pubsubpb.NewSubscriberClient(conn).GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: project + "/subscriptions/telemetry-dlq-sams"})
	env.must(err)
	if made.GetExpirationPolicy() == nil || made.GetExpirationPolicy().GetTtl() != nil {
		t.Errorf("it expires: %v", made)
	}

	server := pstest.NewServer()
	defer server.Close()
	_, err = server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: made.GetTopic()})
	env.must(err)
	_, err = server.GServer.CreateSubscription(t.Context(), &pubsubpb.Subscription{
		Name: made.GetName(), Topic: made.GetTopic(), Filter: made.GetFilter(), AckDeadlineSeconds: made.GetAckDeadlineSeconds(),
	})
	env.must(err)
	for i, service := range []string{"cody-gateway", "sams", "smas"} {
		data := fmt.Sprintf(`{"feature":"ab","action":"cd","id":"019aa000-0000-7000-8000-00000000000%d","metdata":{"tier":1}}`, i+1)
		server.Publish(made.GetTopic(), []byte(data), map[string]string{
			"service_id": service, "dlq_reason": "invalid_event", "dlq_detail": "metdata: unknown field; did you mean metadata?",
			"dlq_rejected_at": "2026-11-20T01:47:16Z", "dlq_attempts": "0", "dlq_message_id": "1", "dlq_publish_time": "2026-11-20T01:47:15Z",
			"dlq_subscription": project + "/subscriptions/telemetry-events-relay", "dlq_event_id": fmt.Sprintf("019aa000-0000-7000-8000-00000000000%d", i+1),
			"dlq_worker_version": "1.2.3",
		})
	}
	env.environ = append(env.environ, strings.Fields(strings.TrimPrefix(commands[1], "export "))...)
	env.environ = append(env.environ, "PUBSUB_EMULATOR_HOST="+server.Addr)
	for _, block := range blocksOf(part, "console") {
		env.session(block)
	}
}

func TestPublishingSchemaIsJSON(t *testing.T) {
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
