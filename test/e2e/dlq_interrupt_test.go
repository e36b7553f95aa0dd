package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// reject dead-letters n events, and returns them.
func (h *env) reject(n int) []*pubsubpb.PubsubMessage {
	h.t.Helper()
	var all []*pubsubpb.PubsubMessage
	for i := range n {
		all = append(all, invalid(i))
	}
	h.publish(all...)
	h.run("LOG_LEVEL=info").exits(0)
	h.take(ledgerID, n)
	return all
}

// TestCtrlCReleasesDeadLetteredMessages types Ctrl-C at each step of each command that
// changes the queue. No message may be lost, and the leased ones must be back at once,
// before any lease ends.
func TestCtrlCReleasesDeadLetteredMessages(t *testing.T) {
	const count = 150
	dir := t.TempDir()
	reading, question := fmt.Sprintf("reading the queue (%d/-", count), "[y/N] "
	for _, c := range []struct {
		name string
		args []string
		at   string
	}{
		{"stats, reading", []string{"stats"}, reading},
		{"replay, reading", []string{"replay"}, reading},
		{"replay, question", []string{"replay"}, question},
		{"purge, reading", []string{"purge", "--all", "--no-backup"}, reading},
		{"purge, question", []string{"purge", "--all", "--backup", filepath.Join(dir, "backup")}, question},
		{"export, reading", []string{"export", filepath.Join(dir, "export")}, reading},
		{"export, question", []string{"export", "--remove", filepath.Join(dir, "removed")}, question},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newEnv(t)
			h.reject(count)
			got := startAtTerminal(t, h.environ(), append([]string{"dlq"}, c.args...)...).interrupt(c.at).exits(1)
			contains(t, got.stderr, "interrupted")
			h.take(ledgerID, 0)
			h.take(dlqSubID, count)
		})
	}
	t.Run("replay, publishing", func(t *testing.T) {
		h := newEnv(t)
		h.reject(count)
		s := startAtTerminal(t, h.environ(), "dlq", "replay", "--no-check", "--rate", "20", "--output", "json")
		s.says(question)
		s.types("y\n")
		first := len(h.takeAll(ledgerID, 1))
		s.types(ctrlC)
		got := s.wait().exits(1)
		contains(t, got.stderr, "interrupted", `"audit":true`, "ended early")
		var outcome struct{ Replayed int }
		h.must(json.Unmarshal([]byte(got.stdout), &outcome))
		if outcome.Replayed < first || outcome.Replayed == count {
			t.Errorf("%+v, after %d", outcome, first)
		}
		h.take(ledgerID, outcome.Replayed-first)
		h.take(dlqSubID, count-outcome.Replayed)
	})
	t.Run("replay, waiting for canaries", func(t *testing.T) {
		h := newEnv(t)
		h.reject(count)
		s := startAtTerminal(t, h.environ(), "dlq", "replay", "--no-check", "--canary", "3", "--canary-wait", "1h", "--output", "json")
		s.says(question)
		s.types("yes\n")
		got := s.interrupt("waiting for the canaries").exits(1).
			done(fmt.Sprintf(`{"matched":%d,"replayed":3,"failed":0,"left":%d,"canaries":3,"canaries_seen_again":0}`, count, count-3))
		contains(t, got.stderr, "3 canaries went ahead", "interrupted while waiting for the canaries: 3 canaries replayed")
		h.take(ledgerID, 3)
		h.take(dlqSubID, count-3)
	})
}

// TestSignalDuringARequestReleasesMessages signals the worker while a request is in flight.
func TestSignalDuringARequestReleasesMessages(t *testing.T) {
	const count = 1200
	for _, c := range []struct {
		args    []string
		methods []string
	}{
		{[]string{"stats"}, []string{"Pull", "ModifyAckDeadline"}},
		{[]string{"replay", "--yes"}, []string{"Pull", "Publish", "Acknowledge"}},
		{[]string{"purge", "--yes", "--all", "--backup"}, []string{"Pull", "Acknowledge"}},
		{[]string{"export", "--yes", "--remove"}, []string{"Pull", "Acknowledge"}},
	} {
		for _, method := range c.methods {
			t.Run(c.args[0]+" "+method, func(t *testing.T) {
				t.Parallel()
				s := fullQueue(t, count)
				reached, signaled := make(chan struct{}), make(chan struct{})
				var once sync.Once
				s.SetFault(func(m string, _ any) error {
					if m == method {
						once.Do(func() {
							close(reached)
							<-signaled // or the command may end before the signal
						})
					}
					return nil
				})
				args, file := append([]string{"dlq"}, c.args...), ""
				if c.args[0] == "purge" || c.args[0] == "export" {
					file = filepath.Join(t.TempDir(), "lines")
					args = append(args, file)
				}
				p := start(t, s.environ(), nil, args...)
				select {
				case <-reached:
				case <-time.After(patience):
					close(signaled)
					t.Fatal(method + " is not called")
				}
				end := syscall.SIGINT
				if method == "Publish" && !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
					end = syscall.SIGHUP // the connection drops
				}
				p.signal(end)
				time.Sleep(300 * time.Millisecond) // the process takes note, or it may be done before
				close(signaled)
				got := p.wait().exits(1)
				contains(t, got.stderr, "interrupted")
				state := s.allBack(count)
				if n := len(s.Messages(s.ledger)); c.args[0] == "replay" && n != state.Acked {
					t.Errorf("%d on the topic, and %d removed", n, state.Acked)
				}
				if file != "" {
					content, err := os.ReadFile(file)
					if n := bytes.Count(content, []byte("\n")); n < state.Acked {
						t.Errorf("%d lines, and %d removed: %v", n, state.Acked, err)
					}
				}
			})
		}
	}
}

// queueServer is an embedded Pub/Sub, which can count the leased messages.
type queueServer struct {
	*pubsubserver.Server
	t             *testing.T
	ledger, queue string
}

// fullQueue starts a queueServer with this many dead-lettered messages.
func fullQueue(t *testing.T, count int) *queueServer {
	t.Helper()
	const topic = "projects/p/topics/telemetry-events"
	server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	s := &queueServer{server, t, "projects/p/subscriptions/ledger", "projects/p/subscriptions/telemetry-events-dlq-oncall"}
	for _, err := range []error{
		s.CreateTopic(topic), s.CreateTopic(topic + "-dlq"), s.CreateSubscription(s.ledger, topic), s.CreateSubscription(s.queue, topic+"-dlq"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range count {
		m := event(i, "dlq_reason", "gateway_rejected", "dlq_detail", "left out", "dlq_message_id", fmt.Sprint("m", i))
		if _, err := s.Publish(topic+"-dlq", m); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *queueServer) environ() []string {
	return []string{"GOOGLE_CLOUD_PROJECT=p", "PUBSUB_EMULATOR_HOST=" + s.Addr(), "ENVIRONMENT_ID=dev", "WORKER_SERVICES=" + services}
}

// allBack requires that all messages are in the queue except those that were acknowledged,
// and that none is leased.
func (s *queueServer) allBack(count int) pubsubserver.Stats {
	s.t.Helper()
	state := s.Stats(s.queue)
	if state.Leased != 0 || state.Backlog != count-state.Acked {
		s.t.Errorf("%+v: not everything is back", state)
	}
	return state
}

// TestClosedPipeReleasesMessages has a reader that closes the pipe early. The command ends,
// and still returns all messages.
func TestClosedPipeReleasesMessages(t *testing.T) {
	t.Parallel()
	const count = 1200
	s := fullQueue(t, count)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(workerBinary, "dlq", "list"), done: make(chan struct{}), started: time.Now()}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = s.environ(), write, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the status is what is asked for
	}()
	// A pipe holds less than the list, so that the worker still writes.
	if _, err := read.Read(make([]byte, 100)); err != nil {
		t.Error(err)
	}
	read.Close()
	if got := p.wait().exits(1); got.stderr != "" {
		t.Errorf("it says %s", got.stderr)
	}
	s.allBack(count)
}

// TestTwoReplaysPublishEachEventOnce has two people replay the same queue. Each event is
// replayed by one of them, and the second is informed that messages are leased.
func TestTwoReplaysPublishEachEventOnce(t *testing.T) {
	const count = 160
	h := newEnv(t)
	h.reject(count)
	late := startAtTerminal(t, h.environ(), "dlq", "replay", "--no-check", "--output", "json")
	late.says("[y/N] ")
	contains(t, late.stderr.String(), "Replay 160 of 160 events of 1 service to")
	// This one has leased all messages that it has not published yet.
	early := start(t, h.environ(), nil, "dlq", "replay", "--yes", "--no-check", "--rate", "40", "--output", "json")
	first := h.takeAll(ledgerID, 1)
	late.types("y\n")
	total := 0
	for _, got := range []result{late.wait().exits(0), early.wait().exits(0)} {
		var outcome struct{ Replayed, Left int }
		h.must(json.Unmarshal([]byte(got.stdout), &outcome))
		total += outcome.Replayed
		if outcome.Left != 0 {
			t.Errorf("left is %d", outcome.Left)
		}
	}
	contains(t, late.stderr.String(), "messages are leased by another process or not yet available")
	if total != count {
		t.Errorf("%d were replayed, want %d", total, count)
	}
	seen := map[string]bool{}
	for _, m := range append(first, h.take(ledgerID, count-len(first))...) {
		seen[string(m.GetData())] = true
	}
	if len(seen) != count {
		t.Errorf("%d events were replayed, want %d", len(seen), count)
	}
	h.take(dlqSubID, 0)
}
