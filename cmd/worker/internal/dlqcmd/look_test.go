package dlqcmd

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

const dlqView = dlqProject + "subscriptions/telemetry-events-dlq-view"

// newViewQueue is a queue with a view, and some messages.
func newViewQueue(t *testing.T) *testQueue {
	t.Helper()
	h := newTestQueue(t)
	if err := h.CreateSubscription(dlqView, dlqTopic); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		h.put(deadLettered(i, goodData(i), "dlq_event_id", "019a0000-0000-7000-8000-00000000000"+string(rune('0'+i))))
	}
	return h
}

// looking runs a command that may use the view.
func (h *testQueue) looking(ctx context.Context, args ...string) dlqResult {
	var stdout, stderr bytes.Buffer
	env := h.environment(args...)
	env.Vars = append(env.Vars, "DLQ_VIEW_SUBSCRIPTION=telemetry-events-dlq-view")
	env.Stdout, env.Stderr = &stdout, &stderr
	return dlqResult{run(ctx, env), stdout.String(), stderr.String()}
}

// TestLookingTakesNothing: each command that only reads prints with a view what it prints
// without one, takes nothing from the queue, and leaves no snapshot.
func TestLookingTakesNothing(t *testing.T) {
	for name, args := range map[string][]string{
		"stats":   {"stats", "--output", "json"},
		"list":    {"list", "--output", "json"},
		"show":    {"show", "m3", "--output", "json"},
		"dry run": {"replay", "--dry-run", "--no-check", "--output", "json"},
		"export":  {"export", "--limit", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newViewQueue(t)
			want := h.dlq(t.Context(), args...)
			before := h.Stats(dlqSub)
			got := h.looking(t.Context(), args...)
			// Without a view an emulator does not say how many messages there are.
			want.stdout = strings.Replace(want.stdout, `,"count_at_least":true`, "", 1)
			if got.status != 0 || got.stdout != want.stdout {
				t.Errorf("status %d, stdout %s, want %s; stderr %s", got.status, got.stdout, want.stdout, got.stderr)
			}
			if after := h.Stats(dlqSub); after != before {
				t.Errorf("the queue is %+v, was %+v", after, before)
			}
			if strings.Contains(got.stderr, "at least") || strings.Contains(got.stderr, "leased while") {
				t.Errorf("stderr: %s", got.stderr)
			}
			if n := len(h.Snapshots()); n != 0 {
				t.Errorf("%d snapshots are left", n)
			}
			if view := h.Stats(dlqView); view.Leased != 0 || view.Acked != 0 {
				t.Errorf("the view is %+v", view)
			}
		})
	}
}

// TestLookingSeesLeasedMessages: a command that looks also sees the messages that another
// reader has leased.
func TestLookingSeesLeasedMessages(t *testing.T) {
	h := newViewQueue(t)
	release := h.lease(3)
	defer release()
	if got := h.looking(t.Context(), "stats", "--output", "json"); !strings.HasPrefix(got.stdout, `{"count":5,`) || strings.Contains(got.stdout, "at_least") {
		t.Errorf("stdout %s, stderr %s", got.stdout, got.stderr)
	}
}

// TestReadingWithoutUsableView: where the view cannot be used, the command says why in one
// line and leases what it reads.
func TestReadingWithoutUsableView(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, h *testQueue)
		want   string
	}{
		"old messages": {func(_ *testing.T, h *testQueue) { h.AgeMessages(7 * 24 * time.Hour) }, "its oldest message is seven days old, or almost"},
		"no permission": {func(_ *testing.T, h *testQueue) {
			h.SetFault(func(method string, _ any) error {
				if method == "CreateSnapshot" {
					return status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
				}
				return nil
			})
		}, "you may not make snapshots"},
		"another reader looks": {func(t *testing.T, h *testQueue) {
			// The other reader hangs in the middle, and stops with the test.
			ctx, cancel := context.WithCancel(t.Context())
			reading := make(chan struct{})
			done := make(chan struct{})
			h.SetFault(func(method string, _ any) error {
				if method != "Pull" {
					return nil
				}
				select {
				case reading <- struct{}{}:
					return pubsubserver.ErrHang
				default:
					return nil
				}
			})
			go func() { defer close(done); h.looking(ctx, "stats") }()
			<-reading
			t.Cleanup(func() {
				cancel()
				<-done
				if n := len(h.Snapshots()); n != 0 {
					t.Errorf("%d snapshots are left", n)
				}
			})
		}, "another process looks at it just now"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newViewQueue(t)
			c.change(t, h)
			got := h.looking(t.Context(), "stats", "--output", "json")
			if got.status != 0 || !strings.HasPrefix(got.stdout, `{"count":5,`) {
				t.Errorf("status %d, stdout %s", got.status, got.stdout)
			}
			line := "worker: the messages are leased while they are read, because the queue cannot be looked at without that: " + c.want
			if strings.Count(got.stderr, "leased while they are read") != 1 || !strings.HasPrefix(got.stderr, line) {
				t.Errorf("stderr %q, want one line %q…", got.stderr, line)
			}
			h.left(5)
		})
	}
}

// TestInterruptedLookLeavesNoSnapshot: Ctrl-C in the middle leaves no snapshot and no
// lease.
func TestInterruptedLookLeavesNoSnapshot(t *testing.T) {
	h := newViewQueue(t)
	ctx, cancel := context.WithCancel(t.Context())
	h.SetFault(func(method string, _ any) error {
		if method == "Pull" {
			cancel()
		}
		return nil
	})
	if got := h.looking(ctx, "stats"); got.status != 1 || !strings.Contains(got.stderr, "interrupted") {
		t.Errorf("status %d, stderr %s", got.status, got.stderr)
	}
	if n := len(h.Snapshots()); n != 0 {
		t.Errorf("%d snapshots are left", n)
	}
	if view := h.Stats(dlqView); view.Leased != 0 {
		t.Errorf("the view is %+v", view)
	}
	h.left(5)
}

// TestChangesDoNotLook: a command that changes the queue reads the queue itself.
func TestChangesDoNotLook(t *testing.T) {
	for name, args := range map[string][]string{
		"replay": {"replay", "--yes", "--no-check"},
		"purge":  {"purge", "--all", "--yes", "--no-backup"},
		"export": {"export", "--remove", "--yes"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newViewQueue(t)
			h.SetFault(func(method string, _ any) error {
				if method == "CreateSnapshot" || method == "Seek" {
					t.Errorf("it asks for %s", method)
				}
				return nil
			})
			if name == "export" {
				args = append(args, filepath.Join(t.TempDir(), "lines"))
			}
			if got := h.looking(t.Context(), args...); got.status != 0 {
				t.Errorf("status %d, stderr %s", got.status, got.stderr)
			}
			h.left(0)
		})
	}
}
