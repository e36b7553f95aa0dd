package dlqcmd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// hostile are messages that any publisher may send. The worker rejects each of them.
func hostile() map[string]*pubsubpb.PubsubMessage {
	many := map[string]string{"service_id": "sams"}
	for i := range 94 {
		many[fmt.Sprint("key", i)] = strings.Repeat("v", 1024)
	}
	random := make([]byte, 9_900_000)
	rand.NewChaCha8([32]byte{7}).Read(random)
	return map[string]*pubsubpb.PubsubMessage{
		"no JSON":             {Data: []byte("{nonsense \x1b[2J"), Attributes: map[string]string{"service_id": "sams"}},
		"binary":              {Data: []byte("\xff\x00\x1f\x8b"), OrderingKey: "key"},
		"10 MB":               {Data: []byte("[" + strings.Repeat(" ", 9_999_000) + "]")},
		"10 MB of noise":      {Data: random},
		"95 attributes":       {Data: []byte(typoData(3)), Attributes: many, OrderingKey: "k\"1"},
		"names of ours":       {Data: []byte(goodData(2)), Attributes: map[string]string{"dlq_reason": "mine", "origin_x": "y"}},
		"a message":           {Data: []byte(typoData(1)), Attributes: deadLettered(1, "").GetAttributes()},
		"a message by itself": {Data: []byte(typoData(2)), Attributes: map[string]string{"service_id": "sams", "dlq_reason": "invalid_event", "dlq_encoding": "gzip"}},
		"controls":            {Data: []byte(`{"feature":"\u001b[31m"}`), Attributes: map[string]string{"service_id": "\x1b[31m\u202e"}},
		"escapes":             {Data: []byte(`{"feature":"\u009b31m\u009b2Jgone","action":"\u0085\u2028","client":{"name":"x\u202ey\u2066z","version":"` + "\u009b\u202e" + `"},"\u202e":1}`), Attributes: map[string]string{"service_id": "sams", "service_environment": "\x1b[2J\u009b31m", "k\u2066": "\u202e"}},
		"only attributes":     {Attributes: map[string]string{"service_id": "sams"}},
	}
}

// reject writes the messages to the queue as the worker does.
func (h *testQueue) reject(messages map[string]*pubsubpb.PubsubMessage) {
	h.t.Helper()
	client, err := topic.NewClient(h.t.Context(), dlqTopic, app.PubSubOptions(&config.Config{EmulatorHost: h.Addr()})...)
	if err != nil {
		h.t.Fatal(err)
	}
	defer client.Close()
	var rejected []*dlq.DeadLetter
	for name, m := range messages {
		rejected = append(rejected, &dlq.DeadLetter{
			MessageID: name, PublishTime: time.Now(), Data: m.GetData(), Attributes: m.GetAttributes(), OrderingKey: m.GetOrderingKey(),
			Rejection: event.Rejection{Reason: event.InvalidEvent, Detail: "typo: unknown field"}, RejectedAt: time.Now(),
		})
	}
	for i, err := range dlq.NewWriter(client, dlq.Origin{Subscription: "s", WorkerVersion: "v"}).Write(h.t.Context(), rejected) {
		if err != nil {
			h.t.Fatalf("%s: %v", rejected[i].MessageID, err)
		}
	}
}

// TestCommandsShowHostileMessages runs every command on every kind of message.
func TestCommandsShowHostileMessages(t *testing.T) {
	if testing.Short() {
		t.Skip("compresses megabytes")
	}
	t.Parallel()
	h := newTestQueue(t)
	messages := hostile()
	h.reject(messages)
	seen := func(args ...string) {
		got := h.expect(0, "", args...)
		for _, r := range got.stdout + got.stderr {
			if terminal.Unsafe(r) && r != '\n' && r != '\t' {
				t.Errorf("worker dlq %v: %q reaches the terminal: %.500q", args, r, got.stdout+got.stderr)
				break
			}
		}
	}
	seen("stats")
	seen("stats", "--output", "json")
	seen("list")
	seen("list", "--output", "json")
	seen("list", "--output", "ndjson", "--reveal")
	for _, name := range []string{"controls", "escapes"} {
		seen("show", "--output", "json", name)
		seen("show", "--output", "json", "--reveal", name)
	}
	seen("replay", "--dry-run", "--no-check", "--message-id", "escapes")
	seen("replay", "--dry-run", "--no-check", "--reveal", "--message-id", "escapes")
	seen("replay", "--dry-run")
	seen("export")
	for name := range messages {
		seen("show", name)
		seen("show", "--reveal", name)
	}
	h.left(len(messages))
}

// rejectHostile makes a test parallel, and a queue with hostile messages, which it returns.
func rejectHostile(t *testing.T) (*testQueue, map[string]*pubsubpb.PubsubMessage) {
	t.Helper()
	if testing.Short() {
		t.Skip("compresses megabytes")
	}
	t.Parallel()
	h := newTestQueue(t)
	messages := hostile()
	h.reject(messages)
	return h, messages
}

// TestExportOfHostileMessages: exported and published as they are, they are the same
// messages again, and a purge has the same backup.
func TestExportOfHostileMessages(t *testing.T) {
	h, messages := rejectHostile(t)
	n := len(messages)
	file := filepath.Join(t.TempDir(), "lines")
	h.expect(0, fmt.Sprintf(`{"matched":%d,"exported":%[1]d,"failed":0,"left":%[1]d}`+"\n", n), "export", "--output", "json", file)
	env := h.environment()
	var stderr bytes.Buffer
	env.Args, env.Stderr = []string{"worker", "publish", "--as-is", file}, &stderr
	if status := run(t.Context(), env); status != 0 {
		t.Errorf("publish: status %d, %s", status, stderr.String())
	}
	h.same("exported", messages, func(attributes map[string]string) {
		for _, name := range []string{"replay_count", "origin_message_id", "origin_publish_time", "origin_rejected_at"} {
			if attributes[name] == "" {
				t.Errorf("no %s in %v", name, attributes) // they identify the event
			}
			delete(attributes, name)
		}
	})

	backup := filepath.Join(t.TempDir(), "backup")
	h.expect(0, fmt.Sprintf(`{"matched":%d,"purged":%[1]d,"failed":0,"left":0}`+"\n", n), "purge", "--output", "json", "--yes", "--all", "--backup", backup)
	one, err1 := os.ReadFile(file)
	other, err2 := os.ReadFile(backup)
	if err1 != nil || err2 != nil || sorted(string(one)) != sorted(string(other)) {
		t.Error("the backup differs from the export")
	}
}

// TestReplayOfHostileMessages: a replay publishes the original messages unchanged.
func TestReplayOfHostileMessages(t *testing.T) {
	h, messages := rejectHostile(t)
	n := len(messages)
	h.expect(1, fmt.Sprintf(`{"matched":%d,"replayed":0,"failed":%[1]d,"left":%[1]d}`+"\n", n), "replay", "--yes", "--output", "json")
	h.expect(0, fmt.Sprintf(`{"matched":%d,"replayed":%[1]d,"failed":0,"left":0}`+"\n", n), "replay", "--yes", "--output", "json", "--no-check")
	h.same("replayed", messages, func(attributes map[string]string) {
		for _, name := range []string{"replay_count", "origin_message_id", "origin_publish_time", "origin_rejected_at", "replay_id"} {
			if attributes[name] == "" {
				t.Errorf("no %s in %v", name, attributes)
			}
			delete(attributes, name)
		}
	})
}

// same fails the test unless exactly these messages are on the main topic.
func (h *testQueue) same(what string, messages map[string]*pubsubpb.PubsubMessage, strip func(map[string]string)) {
	h.t.Helper()
	want := map[string]string{}
	key := func(m *pubsubpb.PubsubMessage) string {
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pubsubpb.PubsubMessage{Data: m.GetData(), Attributes: m.GetAttributes(), OrderingKey: m.GetOrderingKey()})
		if err != nil {
			h.t.Fatal(err)
		}
		return string(text)
	}
	for name, m := range messages {
		want[key(m)] = name
	}
	for _, m := range h.replayed(len(messages)) {
		strip(m.GetAttributes())
		if _, ok := want[key(m)]; !ok {
			h.t.Errorf("%s: nobody published %.300q %v", what, m.GetData(), m.GetAttributes())
		}
		delete(want, key(m))
	}
	for _, name := range want {
		h.t.Errorf("%s: %s is missing", what, name)
	}
}

// allCommands has the arguments with which each command asks no question.
func allCommands(t *testing.T) [][]string {
	dir := t.TempDir()
	return [][]string{
		{"stats"}, {"list"}, {"show", "x"}, {"export", filepath.Join(dir, "export")}, {"export", "--remove", "--yes", filepath.Join(dir, "removed")},
		{"replay", "--yes"}, {"replay", "--dry-run"}, {"replay", "--yes", "--canary", "1"}, {"purge", "--all", "--yes", "--backup", filepath.Join(dir, "backup")},
	}
}

// TestCommandsNameMissingRole: each command says what may not be read, or published to, and
// which role is missing.
func TestCommandsNameMissingRole(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	h.put(deadLettered(1, goodData(1)))
	forbid := func(method string, code codes.Code) {
		h.SetFault(func(m string, _ any) error {
			if m == method {
				return status.Error(code, "no")
			}
			return nil
		})
	}
	forbid("Pull", codes.PermissionDenied)
	for _, args := range allCommands(t) {
		got := h.expect(1, "", args...)
		if !strings.Contains(got.stderr, "you may not read "+dlqSub+"; expected roles/pubsub.subscriber") {
			t.Errorf("%v: %s", args, got.stderr)
		}
	}
	forbid("Publish", codes.PermissionDenied)
	got := h.expect(1, `{"matched":1,"replayed":0,"failed":1,"left":1,"left_at_least":true}`+"\n", "replay", "--yes", "--output", "json")
	if !strings.Contains(got.stderr, "publish to "+dlqMain+" (PUBSUB_TOPIC)") || !strings.Contains(got.stderr, "roles/pubsub.publisher") {
		t.Error(got.stderr)
	}
	// The account may read messages, and not remove them.
	forbid("Acknowledge", codes.PermissionDenied)
	for _, args := range [][]string{
		{"replay", "--yes"}, {"purge", "--all", "--yes", "--no-backup"}, {"export", "--remove", "--yes", filepath.Join(t.TempDir(), "x")},
	} {
		h.expect(1, "", args...)
	}
	h.SetFault(nil)
	h.left(1)
	h.replayed(1)
}

// TestCommandsReportLeasedMessages: every command says that no message came if another
// reader has leased them all.
func TestCommandsReportLeasedMessages(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for i := range 5 {
		h.put(deadLettered(i, goodData(i)))
	}
	h.lease(5)
	for _, args := range allCommands(t) {
		got := h.dlq(t.Context(), args...)
		if !strings.Contains(got.stderr, "the queue gave nothing: it is empty, or its messages are leased by another process or not yet available") {
			t.Errorf("%v: %s", args, got.stderr)
		}
	}
	if got := h.Stats(dlqSub); got.Leased != 5 {
		t.Errorf("%+v", got)
	}
}

// lease leases n messages for another reader, for longer than any test takes, until the
// returned function releases them.
func (h *testQueue) lease(n int) (release func()) {
	h.t.Helper()
	other, err := dlq.NewClient(h.t.Context(), dlqSub, app.PubSubOptions(&config.Config{EmulatorHost: h.Addr()})...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { other.Close() })
	messages, err := other.Pull(h.t.Context(), n, true)
	if err != nil || len(messages) != n {
		h.t.Errorf("%d messages, %v", len(messages), err)
	}
	var ids []string
	for _, l := range messages {
		ids = append(ids, l.GetAckId())
	}
	lease := func(d time.Duration) {
		if err := other.ModifyAckDeadline(h.t.Context(), ids, d); err != nil {
			h.t.Error(err)
		}
	}
	lease(10 * time.Minute)
	return func() { lease(0) }
}

// TestPurgePrivateData: purge --private removes the messages with private data, whatever
// their reason.
func TestPurgePrivateData(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	const without = `{"feature":"sams.user","action":"created","typo":1}`
	h.put(deadLettered(1, typoData(1)), deadLettered(2, without), deadLettered(3, `{"feature":"sams.user","privatMetadata":{"x":"y"}}`), deadLettered(4, `{"feature":`))
	if got := h.expect(0, "", "stats", "--private", "--output", "json"); !strings.HasPrefix(got.stdout, `{"count":3,`) {
		t.Error(got.stdout)
	}
	h.expect(0, `{"matched":3,"purged":3,"failed":0,"left":1}`+"\n", "purge", "--private", "--no-backup", "--yes", "--output", "json")
	if got := h.Messages(dlqSub); len(got) != 1 || string(got[0].GetData()) != without {
		t.Errorf("%v", got)
	}
}

// TestEmptyTimeRangesAreRefused: a range of time that can select no message is a mistake.
func TestEmptyTimeRangesAreRefused(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for _, args := range [][]string{
		{"stats", "--since", "1d", "--until", "2d"}, {"list", "--since", "2026-11-20", "--until", "2026-11-19"},
		{"purge", "--since", "1h", "--until", "2h", "--no-backup", "--yes"}, {"replay", "--since", "1h", "--until", "2h", "--yes"},
		{"stats", "--since", "yesterday"},
	} {
		if got := h.expect(2, "", args...); !strings.Contains(got.stderr, "expected a") {
			t.Errorf("%v: %s", args, got.stderr)
		}
	}
	h.expect(0, "no dead-lettered messages\n", "list", "--since", "7d", "--until", "2999-01-01")
}

// TestOutputIsBounded: output does not grow beyond its input.
func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	deep := `{"x":` + strings.Repeat("[", 9900) + strings.Repeat("1,", 10_000) + "1" + strings.Repeat("]", 9900) + "}"
	deeper := strings.Repeat("[", 70_000) + strings.Repeat("]", 70_000)
	h.put(deadLettered(1, deep), deadLettered(2, deeper))
	for _, args := range [][]string{
		{"show", "m1"}, {"show", "--reveal", "m1"}, {"show", "--reveal", "--output", "json", "m1"}, {"list"}, {"list", "--output", "ndjson"},
		{"list", "--output", "ndjson", "--reveal"}, {"show", "--reveal", "--output", "json", "m2"}, {"replay", "--dry-run", "--no-check", "--reveal"},
	} {
		if got := h.expect(0, "", args...); len(got.stdout)+len(got.stderr) > 300_000 {
			t.Errorf("%v: %d bytes", args, len(got.stdout)+len(got.stderr))
		}
	}
}
