package dlqcmd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/publishcmd"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
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
