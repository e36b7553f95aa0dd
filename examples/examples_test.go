// Package examples_test runs the examples against the Pub/Sub emulator, and has
// the worker's decoder and the JSON Schema read what they have published.
package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

func TestMain(m *testing.M) {
	status := m.Run()
	emulator.StopShared()
	os.Exit(status)
}

// patience bounds everything that an example does.
const patience = 2 * time.Minute

var projects atomic.Int64

// topic is a topic in the emulator, in a project of its own.
type topic struct {
	t       *testing.T
	host    string
	project string
	subs    pubsubpb.SubscriberClient
}

func newTopic(t *testing.T) *topic {
	t.Helper()
	e := emulator.Shared(t)
	conn, err := grpc.NewClient(e.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	tp := &topic{t: t, host: e.Host, project: fmt.Sprintf("examples-%d", projects.Add(1)), subs: pubsubpb.NewSubscriberClient(conn)}
	_, err = pubsubpb.NewPublisherClient(conn).CreateTopic(t.Context(), &pubsubpb.Topic{Name: tp.name()})
	if err == nil {
		_, err = tp.subs.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: tp.subscription(), Topic: tp.name()})
	}
	if err != nil {
		t.Fatal(err)
	}
	return tp
}

func (tp *topic) name() string         { return "projects/" + tp.project + "/topics/telemetry-events" }
func (tp *topic) subscription() string { return "projects/" + tp.project + "/subscriptions/examples" }

// command is an example's command, which knows the topic.
func (tp *topic) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PUBSUB_EMULATOR_HOST="+tp.host, "TELEMETRY_TOPIC="+tp.name())
	return cmd
}

// took makes sure that exactly one event has arrived, and that it is valid.
func (tp *topic) took(feature, action string) {
	tp.t.Helper()
	ctx, cancel := context.WithTimeout(tp.t.Context(), patience)
	defer cancel()
	// One message was confirmed, so it is there; yet an answer may be empty.
	var received []*pubsubpb.ReceivedMessage
	for len(received) == 0 {
		response, err := tp.subs.Pull(ctx, &pubsubpb.PullRequest{Subscription: tp.subscription(), MaxMessages: 10})
		if err != nil {
			tp.t.Fatal(err)
		}
		received = response.GetReceivedMessages()
	}
	if len(received) != 1 {
		tp.t.Fatalf("%d messages", len(received))
	}
	if _, err := tp.subs.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: tp.subscription(), AckIds: []string{received[0].GetAckId()}}); err != nil {
		tp.t.Fatal(err)
	}
	m := received[0].GetMessage()
	cfg, err := config.Load(nil, config.ForCheck)
	if err != nil {
		tp.t.Fatal(err)
	}
	_, rejection := event.NewDecoder(cfg.Services, "dev").Decode(event.Message{
		ID: m.GetMessageId(), PublishTime: m.GetPublishTime().AsTime(), Data: m.GetData(), Attributes: m.GetAttributes(),
	})
	if rejection != nil {
		tp.t.Errorf("the worker rejects %s: %v", m.GetData(), rejection)
	}
	schema, err := jsonschema.NewCompiler().Compile("../docs/event.schema.json")
	if err != nil {
		tp.t.Fatal(err)
	}
	tree, err := jsonschema.UnmarshalJSON(bytes.NewReader(m.GetData()))
	if err == nil {
		err = schema.Validate(tree)
	}
	if err != nil {
		tp.t.Errorf("%s: %v", m.GetData(), err)
	}
	object, _ := tree.(map[string]any)
	if object["feature"] != feature || object["action"] != action {
		tp.t.Errorf("another event: %s", m.GetData())
	}
	if id, given := object["id"].(string); given && !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		tp.t.Errorf("the id is no UUIDv7: %s", id)
	}
}

// TestExamplesPublish runs the examples that need nothing but their interpreter.
func TestExamplesPublish(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dir      string
		command  string
		programs []string
	}{
		{"curl", "./publish.sh", []string{"bash", "curl", "base64"}},
		{"python", "./publish.py", []string{"python3"}},
		{"node", "node publish-rest.mjs", []string{"node"}},
	} {
		t.Run(c.command, func(t *testing.T) {
			testenv.Needs(t, c.programs...)
			tp := newTopic(t)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			args := strings.Fields(c.command)
			output, err := tp.command(ctx, c.dir, args[0], args[1:]...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			tp.took("cody.hover", "shown")
			tp.failures(ctx, c.dir, args, `(?i)404(.|\n)*not found`, "TELEMETRY_TOPIC="+tp.name()+"-elsewhere")
			tp.failures(ctx, c.dir, args, `(?i)refused|connect`, "PUBSUB_EMULATOR_HOST="+nobody(t))
		})
	}
}

// nobody is an address at which nobody listens. (fetch refuses low ports by itself.)
func nobody(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// failures makes sure that the example says why it could not publish, in a line and not
// by a crash, and that its status is 1.
func (tp *topic) failures(ctx context.Context, dir string, args []string, want string, variables ...string) {
	tp.t.Helper()
	cmd := tp.command(ctx, dir, args[0], args[1:]...)
	cmd.Env = append(append(cmd.Env, "RETRY_FOR=1"), variables...)
	output, err := cmd.CombinedOutput()
	if err == nil {
		tp.t.Errorf("%s: publishes: %s", variables, output)
	}
	if !regexp.MustCompile(want).Match(output) || regexp.MustCompile(`Traceback|node:internal|Unhandled`).Match(output) {
		tp.t.Errorf("%s: want %s in:\n%s", variables, want, output)
	}
}

// TestPythonModule runs the tests of the module.
func TestPythonModule(t *testing.T) {
	t.Parallel()
	testenv.Needs(t, "python3")
	tp := newTopic(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	output, err := tp.command(ctx, "python", "python3", "-B", "-m", "unittest", "-v", "telemetry_test").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// TestTypeScript compiles the exporter for @sourcegraph/telemetry, runs its tests, and
// the example, which flushes when it ends and on SIGTERM.
func TestTypeScript(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	dir := testenv.NPM(ctx, t, "typescript")
	tp := newTopic(t)
	schema, err := os.ReadFile("../docs/event.schema.json")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "event.schema.json"), schema, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(to *topic, env string, args ...string) string {
		t.Helper()
		cmd := to.command(ctx, dir, args[0], args[1:]...)
		cmd.Env = append(cmd.Env, env)
		output, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", args, err, output)
		}
		return string(output)
	}
	run(tp, "", "npm", "run", "build")
	run(tp, "", "node", "--test", "--test-force-exit", "dist/exporter.test.js")

	other := newTopic(t)
	if got := run(other, "", "node", "dist/main.js"); !strings.Contains(got, `{"published":1,"failed":0,"dropped":0,"invalid":0,"waiting":0}`) {
		t.Errorf("prints %s", got)
	}
	other.took("cody.hover", "shown")
	got := run(other, "PUBSUB_EMULATOR_HOST="+nobody(t), "bash", "-c", "FLUSH_MS=500 RETRY_FOR_MS=1000 node dist/main.js")
	if !strings.Contains(got, `"published":0,"failed":1`) || !strings.Contains(got, "1 of 1 events were lost") {
		t.Errorf("without Pub/Sub it prints %s", got)
	}

	cmd := other.command(ctx, dir, "node", "dist/main.js", "--serve")
	var output bytes.Buffer
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(io.TeeReader(pipe, &output))
	if _, err := lines.ReadString('\n'); err != nil { // "serving"
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, lines)
	if err := errors.Join(err, cmd.Wait()); err != nil || !strings.Contains(output.String(), `"published":1`) {
		t.Errorf("%v\n%s", err, output.Bytes())
	}
	other.took("cody.hover", "shown")
}

// TestNodeClient runs the example with Google's client, installed as its first
// line says.
func TestNodeClient(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	dir := testenv.NPM(ctx, t, "node")
	tp := newTopic(t)
	output, err := tp.command(ctx, dir, "node", "publish.mjs").CombinedOutput()
	if err != nil || !strings.Contains(string(output), "published ") {
		t.Fatalf("%v\n%s", err, output)
	}
	tp.took("cody.hover", "shown")
	tp.failures(ctx, dir, []string{"node", "publish.mjs"}, "telemetry was lost", "FLUSH_MS=1000", "PUBSUB_EMULATOR_HOST="+nobody(t))
	tp.failures(ctx, dir, []string{"node", "publish.mjs"}, "telemetry was lost: 5 NOT_FOUND", "FLUSH_MS=60000", "TELEMETRY_TOPIC="+tp.name()+"-elsewhere")
}

// TestGoServicePublishes runs the service, asks it once, and stops it.
func TestGoServicePublishes(t *testing.T) {
	t.Parallel()
	testenv.Needs(t, "go")
	tp := newTopic(t)
	binary := filepath.Join(t.TempDir(), "service")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "./go").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	cmd := tp.command(t.Context(), ".", binary)
	cmd.Env = append(cmd.Env, "ADDR=127.0.0.1:0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The first line says where it listens; the rest is read for the pipe's sake.
	lines := bufio.NewReader(stderr)
	first, err := lines.ReadString('\n')
	_, addr, found := strings.Cut(strings.TrimSpace(first), "addr=")
	if err != nil || !found {
		t.Fatalf("says %q: %v", first, err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/some/path", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Sams-User", "018d21f2")
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lines)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		t.Fatalf("%v\n%s", err, rest)
	}
	tp.took("cody.hello", "said")
}
