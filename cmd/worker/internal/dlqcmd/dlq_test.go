package dlqcmd

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/publishcmd"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
)

const (
	dlqProject  = "projects/p/"
	dlqMain     = dlqProject + "topics/telemetry-events"
	dlqLedger   = dlqProject + "subscriptions/ledger"
	dlqTopic    = dlqProject + "topics/telemetry-events-dlq"
	dlqSub      = dlqProject + "subscriptions/telemetry-events-dlq-oncall"
	secretValue = "S3CRET"
)

// testOptions are short waits.
var testOptions = Options{
	Queue: dlq.QueueOptions{
		WaitingPull: 50 * time.Millisecond, Patience: 2 * time.Second, RefusalPatience: 300 * time.Millisecond,
	},
	RefusalPatience: 300 * time.Millisecond,
	CanaryLook:      50 * time.Millisecond,
	LookAgain:       50 * time.Millisecond,
	ReceiptsLook:    10 * time.Millisecond,
}

// run runs a command line and returns the exit status.
func run(ctx context.Context, env command.Env) int {
	return command.Main(ctx, env, func(env command.Env) *cli.Command {
		return &cli.Command{Name: "worker", Commands: []*cli.Command{New(env, testOptions), publishcmd.New(env)}, Writer: env.Stdout, ErrWriter: env.Stderr}
	})
}

// testQueue is a Pub/Sub with a dead-letter queue.
type testQueue struct {
	*pubsubserver.Server
	t *testing.T
}

func newTestQueue(t *testing.T) *testQueue {
	t.Helper()
	s, err := pubsubserver.Start(t.Context(), pubsubserver.Options{PullWait: 40 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h := &testQueue{s, t}
	for _, err := range []error{
		s.CreateTopic(dlqMain), s.CreateTopic(dlqTopic),
		s.CreateSubscription(dlqLedger, dlqMain), s.CreateSubscription(dlqSub, dlqTopic),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// deadLettered makes a message as the worker writes it to the queue.
func deadLettered(i int, data string, attributes ...string) *pubsubpb.PubsubMessage {
	m := &pubsubpb.PubsubMessage{Data: []byte(data), Attributes: map[string]string{
		"service_id": "sams", "dlq_reason": "invalid_event", "dlq_detail": "typo: unknown field; expected none",
		"dlq_message_id": fmt.Sprintf("m%d", i), "dlq_publish_time": "2026-11-20T09:00:00.123456789Z",
		"dlq_rejected_at": "2026-11-20T10:00:00Z", "dlq_attempts": "0",
	}}
	for i := 0; i < len(attributes); i += 2 {
		m.Attributes[attributes[i]] = attributes[i+1]
	}
	return m
}

func goodData(i int) string {
	return fmt.Sprintf(`{"feature":"sams.user","action":"created","metadata":{"n":%d},"privateMetadata":{"x":%q}}`, i, secretValue)
}

func typoData(i int) string {
	return fmt.Sprintf(`{"feature":"sams.user","action":"created","user":{"userId":9007199254740993},"typo":%d,"privateMetadata":{"x":%q}}`, i, secretValue)
}

func (h *testQueue) put(messages ...*pubsubpb.PubsubMessage) []string {
	h.t.Helper()
	ids, err := h.Publish(dlqTopic, messages...)
	if err != nil {
		h.t.Fatal(err)
	}
	return ids
}

type dlqResult struct {
	status         int
	stdout, stderr string
}

func (h *testQueue) dlq(ctx context.Context, args ...string) dlqResult {
	return h.dlqHearing(ctx, nil, args...)
}

// dlqHearing runs a command, and hands over what it writes to stderr before it
// goes on.
func (h *testQueue) dlqHearing(ctx context.Context, hear func(string), args ...string) dlqResult {
	var stdout bytes.Buffer
	stderr := listener{hear: hear}
	env := h.environment(args...)
	env.Stdout, env.Stderr = &stdout, &stderr
	return dlqResult{run(ctx, env), stdout.String(), stderr.String()}
}

// environment is that of a command without a terminal.
func (h *testQueue) environment(args ...string) command.Env {
	return command.Env{
		Args: append([]string{"worker", "dlq"}, args...),
		Vars: []string{
			"GOOGLE_CLOUD_PROJECT=p", "PUBSUB_EMULATOR_HOST=" + h.Addr(), "USER=oncall", "LOG_FORMAT=json", "LOG_LEVEL=error",
			"WORKER_SERVICES={services: [{id: sams, owner: team-sams, runbook: 'https://r'}]}",
		},
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard,
	}
}

// listener keeps what is written, and hands it over.
type listener struct {
	mu sync.Mutex
	bytes.Buffer
	hear func(string)
}

func (l *listener) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hear != nil {
		l.hear(string(p))
	}
	return l.Buffer.Write(p)
}

// expect runs a command and compares its status and, unless it is empty, its
// output.
func (h *testQueue) expect(code int, stdout string, args ...string) dlqResult {
	h.t.Helper()
	got := h.dlq(h.t.Context(), args...)
	if got.status != code || stdout != "" && got.stdout != stdout {
		h.t.Errorf("worker dlq %s: status %d, want %d; stdout %s, want %s; stderr %s", strings.Join(args, " "), got.status, code, got.stdout, stdout, got.stderr)
	}
	if strings.Contains(got.stdout+got.stderr, secretValue) && !strings.Contains(strings.Join(args, " "), "--reveal") && args[0] != "export" {
		h.t.Errorf("worker dlq %s: private metadata is shown", strings.Join(args, " "))
	}
	return got
}

// left fails the test unless the queue has `want` messages and none is leased.
func (h *testQueue) left(want int) {
	h.t.Helper()
	if got := h.Stats(dlqSub); got.Backlog != want || got.Leased != 0 {
		h.t.Errorf("the queue has %d messages and %d are leased, want %d and none", got.Backlog, got.Leased, want)
	}
}

func (h *testQueue) replayed(want int) []*pubsubpb.PubsubMessage {
	h.t.Helper()
	got := h.Messages(dlqLedger)
	if len(got) != want {
		h.t.Errorf("%d messages on the main topic, want %d", len(got), want)
	}
	return got
}

func TestReadingCommandsShowMessages(t *testing.T) {
	h := newTestQueue(t)
	h.expect(0, "no dead-lettered messages\n", "list")
	h.expect(0, "[]\n", "list", "--output", "json")
	h.expect(0, `{"count":0,"replayed_before":0,"oldest":null,"newest":null,"groups":[],"faults":[],"count_at_least":true}`+"\n", "stats", "--output", "json")
	ids := h.put(
		deadLettered(1, typoData(1)), deadLettered(2, typoData(2), "dlq_replays", "1"),
		deadLettered(3, "\xff\x1b[2J", "dlq_reason", "malformed_payload", "dlq_detail", "evil \x1b[2J"),
		&pubsubpb.PubsubMessage{Data: []byte("{ nonsense")},
		deadLettered(5, "not gzip", "dlq_encoding", "gzip"),
	)
	var stats struct {
		Count  int
		Groups []*dlq.GroupCount
	}
	got := h.expect(0, "", "stats", "--output", "json")
	if err := json.Unmarshal([]byte(got.stdout), &stats); err != nil || stats.Count != 5 || len(stats.Groups) != 4 {
		t.Fatalf("%v %s", err, got.stdout)
	}
	if g := stats.Groups[0]; g.Count != 2 || g.ReplayedBefore != 1 || g.Owner != "team-sams" || g.Runbook != "https://r" || g.Feature != "sams.user" {
		t.Errorf("%+v", g)
	}
	if got := h.expect(0, "", "stats"); !strings.Contains(got.stdout, "5 messages") {
		t.Error(got.stdout)
	}
	if got := h.expect(0, "", "list"); strings.Count(got.stdout, "\n") != 6 || strings.Contains(got.stdout, "\x1b") {
		t.Error(got.stdout)
	}
	for format, least := range map[string]int{"json": 6, "ndjson": 5} {
		if got := h.expect(0, "", "list", "--output", format); strings.Count(got.stdout, "\n") != least {
			t.Errorf("%s: %s", format, got.stdout)
		}
	}
	for _, id := range []string{"m1", ids[0]} {
		got := h.expect(0, "", "show", id)
		for _, want := range []string{`"typo": "[hidden]",   <── here`, "[hidden]", "--jq", "team-sams", "service_id = sams"} {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("want %q in %s", want, got.stdout)
			}
		}
	}
	if got := h.expect(0, "", "show", "--reveal", "m1"); !strings.Contains(got.stdout, secretValue) {
		t.Error(got.stdout)
	}
	for _, id := range []string{"m3", ids[3], "m5"} {
		h.expect(0, "", "show", id)
		h.expect(0, "", "show", "--output", "json", id)
	}
	h.expect(1, "", "show", "nobody")
	h.left(5)
}

func TestReplayPublishesAndRemoves(t *testing.T) {
	h := newTestQueue(t)
	for i := range 1100 {
		h.put(deadLettered(i, goodData(i)))
	}
	h.put(deadLettered(2000, typoData(1)), deadLettered(2001, "{}", "dlq_replays", "3"), deadLettered(2002, goodData(1), "service_id", "other"))
	h.expect(0, `{"matched":1103,"replayed":0,"failed":2,"left":1103,"over_max_replays":1}`+"\n", "replay", "--dry-run", "--output", "json")
	h.expect(2, "", "replay")
	h.left(1103)
	got := h.expect(1, `{"matched":1103,"replayed":1100,"failed":2,"left":3,"over_max_replays":1}`+"\n", "replay", "--yes", "--output", "json")
	for _, want := range []string{`"who":"unknown"`, `"replayed":1100`, `"audit":true`, "typo: unknown field", "replayed 3 times before"} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("want %s in %s", want, got.stderr)
		}
	}
	h.left(3)
	want := fmt.Sprint(map[string]string{
		"service_id": "sams", "replay_count": "1", "origin_message_id": "m7", "origin_publish_time": "2026-11-20T09:00:00.123456789Z", "origin_rejected_at": "2026-11-20T10:00:00Z",
	})
	if !slices.ContainsFunc(h.replayed(1100), func(m *pubsubpb.PubsubMessage) bool {
		a := maps.Clone(m.GetAttributes())
		id := a["replay_id"]
		delete(a, "replay_id")
		return len(id) > 20 && fmt.Sprint(a) == want && string(m.GetData()) == goodData(7)
	}) {
		t.Errorf("none is %s", want)
	}
	// Fixed events are replayed, and large numbers keep all their digits.
	h.expect(1, `{"matched":1,"replayed":0,"failed":1,"left":3}`+"\n", "replay", "--yes", "--output", "json", "--message-id", "m2000", "--jq", `error(.privateMetadata.x)`)
	h.expect(0, `{"matched":1,"replayed":1,"failed":0,"left":2}`+"\n", "replay", "--yes", "--output", "json", "--message-id", "m2000", "--jq", "del(.typo)")
	all := h.replayed(1101)
	if data := string(all[1100].GetData()); !strings.Contains(data, "9007199254740993") || strings.Contains(data, "typo") {
		t.Error(data)
	}
	h.expect(0, `{"matched":2,"replayed":2,"failed":0,"left":0}`+"\n", "replay", "--yes", "--output", "json", "--no-check", "--max-replays", "9")
	h.left(0)
}

func TestReplayLimitAndRate(t *testing.T) {
	h := newTestQueue(t)
	for i := range 20 {
		h.put(deadLettered(i, goodData(i), "dlq_ordering_key", fmt.Sprint("k", i%3)))
	}
	began := time.Now()
	h.expect(0, `{"matched":11,"replayed":11,"failed":0,"left":9}`+"\n", "replay", "--yes", "--output", "json", "--limit", "11", "--rate", "100")
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	for _, m := range h.replayed(11) {
		if m.GetOrderingKey() == "" {
			t.Error("an ordering key is lost")
		}
	}
	h.left(9)
}

// One that has no room for the attributes of a replay, and one whose data is no
// JSON for --jq.
func TestReplayLeavesFailingMessages(t *testing.T) {
	h := newTestQueue(t)
	attributes := map[string]string{"service_id": "sams"}
	for i := range 99 {
		attributes[fmt.Sprint("a", i)] = "x"
	}
	text, err := ndjson.Append(nil, ndjson.Message{Attributes: attributes, Data: []byte(goodData(1))})
	if err != nil {
		t.Fatal(err)
	}
	h.put(deadLettered(1, gzipped(t, text), "dlq_encoding", "envelope+gzip"), deadLettered(2, "\xff"))
	for _, expression := range []string{".", "empty", ".,.", "1"} {
		h.expect(1, `{"matched":2,"replayed":0,"failed":2,"left":2}`+"\n", "replay", "--yes", "--output", "json", "--no-check", "--jq", expression)
	}
	h.expect(2, "", "replay", "--yes", "--jq", "{")
	h.left(2)
}

func gzipped(t *testing.T, data []byte) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReplayWithoutTopic(t *testing.T) {
	h := newTestQueue(t)
	h.put(deadLettered(1, goodData(1)))
	h.SetFault(func(method string, _ any) error {
		if method == "Publish" {
			return status.Error(codes.NotFound, "no topic")
		}
		return nil
	})
	if got := h.expect(1, "", "replay", "--yes"); !strings.Contains(got.stderr, "PUBSUB_TOPIC") {
		t.Error(got.stderr)
	}
	h.left(1)
	h.SetFault(func(method string, _ any) error {
		if method == "Pull" {
			return status.Error(codes.PermissionDenied, "no")
		}
		return nil
	})
	if got := h.expect(1, "", "stats"); !strings.Contains(got.stderr, "DLQ_SUBSCRIPTION") {
		t.Error(got.stderr)
	}
}

func TestExportWritesOriginals(t *testing.T) {
	h := newTestQueue(t)
	for i := range 5 {
		h.put(deadLettered(i, goodData(i)))
	}
	h.put(deadLettered(5, "\xff"), deadLettered(6, "x", "dlq_encoding", "what"))
	file := filepath.Join(t.TempDir(), "lines")
	h.expect(1, `{"matched":7,"exported":6,"failed":1,"left":7}`+"\n", "export", "--output", "json", file)
	h.expect(2, "", "export", file)
	h.expect(2, "", "export", "--remove")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if got := h.dlq(t.Context(), "export"); len(got.stdout) != len(content) || !strings.Contains(got.stderr, "7 matched") {
		t.Errorf("%+v", got)
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	if len(lines) != 6 {
		t.Fatal(lines)
	}
	for _, text := range lines {
		if m, err := ndjson.Parse([]byte(text)); err != nil || len(m.Attributes) != 1 {
			t.Errorf("%v %s", err, text)
		}
	}
	h.left(7)
	h.expect(0, `{"matched":6,"exported":6,"failed":0,"left":1}`+"\n", "export", "--remove", "--yes", "--output", "json",
		"--reason", "invalid_event", "--message-id", "m0", "--message-id", "m1", "--message-id", "m2", "--message-id", "m3",
		"--message-id", "m4", "--message-id", "m5", filepath.Join(t.TempDir(), "lines"))
	h.left(1)
}

func TestPurgeNeedsFilterAndBackup(t *testing.T) {
	h := newTestQueue(t)
	for i := range 5 {
		h.put(deadLettered(i, goodData(i)))
	}
	h.put(deadLettered(6, "x", "dlq_encoding", "what", "dlq_reason", "oversized"))
	file := filepath.Join(t.TempDir(), "backup")
	for _, args := range [][]string{
		{"--yes"}, {"--yes", "--all"}, {"--all", "--no-backup"}, {"--yes", "--all", "--reason", "x", "--no-backup"},
		{"--yes", "--all", "--no-backup", "--backup", file}, {"--yes", "--no-backup"},
	} {
		h.expect(2, "", append([]string{"purge"}, args...)...)
	}
	h.left(6)
	h.expect(0, `{"matched":2,"purged":2,"failed":0,"left":4}`+"\n", "purge", "--yes", "--output", "json",
		"--backup", file, "--message-id", "m1", "--message-id", "m6")
	content, err := os.ReadFile(file)
	if err != nil || strings.Count(string(content), "\n") != 2 || !strings.Contains(string(content), `"dlq_encoding":"what"`) {
		t.Errorf("%v %s", err, content)
	}
	h.expect(2, "", "purge", "--yes", "--all", "--backup", file)
	h.left(4)
	h.expect(2, "", "purge", "--yes", "--all", "--backup", "/no/such/folder/x")
	h.left(4)
	h.expect(0, `{"matched":4,"purged":4,"failed":0,"left":0}`+"\n", "purge", "--yes", "--output", "json", "--all", "--no-backup")
	h.left(0)
}

// TestInterruptedCommandsLoseNothing ends each step of each command, and finds everything in the
// queue or on the topic.
func TestInterruptedCommandsLoseNothing(t *testing.T) {
	for _, args := range [][]string{
		{"stats"}, {"list"}, {"show", "x"}, {"export"}, {"replay", "--yes"},
		{"purge", "--all", "--yes", "--backup"}, {"export", "--remove", "--yes"},
	} {
		for _, method := range []string{"Pull", "ModifyAckDeadline", "Publish", "Acknowledge"} {
			for _, after := range []int{1, 2} {
				t.Run(fmt.Sprint(args, method, after), func(t *testing.T) {
					t.Parallel()
					h := newTestQueue(t)
					for i := range 1500 {
						h.put(deadLettered(i, goodData(i)))
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					calls := make(chan struct{}, 100)
					h.SetFault(func(m string, _ any) error {
						if m == method {
							if calls <- struct{}{}; len(calls) == after {
								cancel()
							}
						}
						return nil
					})
					args := slices.Clone(args)
					if args[len(args)-1] == "--backup" {
						args = append(args, filepath.Join(t.TempDir(), "backup"))
					}
					got := h.dlq(ctx, args...)
					switch {
					case ctx.Err() == nil: // the command never reached that step
					case got.status != 1:
						t.Errorf("status %d: %s", got.status, got.stderr)
					}
					removed := h.Stats(dlqSub).Acked
					h.left(1500 - removed)
					if args[0] == "replay" {
						if got := len(h.Messages(dlqLedger)); got != removed {
							t.Errorf("%d on the topic, and %d removed", got, removed)
						}
					}
				})
			}
		}
	}
}

// TestTwoReadersLoseNothing: two readers at once lose no message.
func TestTwoReadersLoseNothing(t *testing.T) {
	h := newTestQueue(t)
	for i := range 3000 {
		h.put(deadLettered(i, goodData(i)))
	}
	done := make(chan dlqResult)
	for range 2 {
		go func() { done <- h.dlq(t.Context(), "replay", "--yes", "--limit", "1000", "--no-check") }()
	}
	for range 2 {
		if got := <-done; got.status != 0 {
			t.Errorf("%+v", got)
		}
	}
	removed := h.Stats(dlqSub).Acked
	h.left(3000 - removed)
	h.replayed(removed)
}

func TestCommandsRefuseMistakes(t *testing.T) {
	h := newTestQueue(t)
	for _, args := range [][]string{
		{"bogus"}, {"stats", "x"}, {"stats", "--output", "ndjson"}, {"list", "--since", "soon"}, {"list", "--limit", "-1"},
		{"show"}, {"replay", "--yes", "--rate", "-1"}, {"replay", "--yes", "x"},
	} {
		h.expect(2, "", args...)
	}
	for _, args := range [][]string{{}, {"stats", "--help"}, {"list", "--help"}, {"show", "--help"}, {"export", "--help"}, {"replay", "--help"}, {"purge", "--help"}} {
		if got := h.dlq(t.Context(), args...); got.status != 0 || !strings.Contains(got.stdout, "Example") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}
