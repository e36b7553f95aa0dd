package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// TestPlanSurvivesKill kills an apply while a request is in flight, and runs the same
// command again. Every event must be published, and none that the journal has may be
// published twice.
func TestPlanSurvivesKill(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the leases of a process that was killed")
	}
	const count = 1200
	for _, c := range []struct {
		method string
		call   int32 // the number of the call that gets no answer
		err    error
		// repeated bounds the events that are published twice: those of the request whose
		// confirmation was lost.
		repeated int
	}{
		{"Pull", 3, pubsubserver.ErrHang, 0},
		{"Publish", 1, pubsubserver.ErrHang, 0},
		{"Publish", 2, pubsubserver.ErrHang, 0},
		{"Publish", 2, pubsubserver.AnswerAfter(time.Hour), 1000},
		{"Acknowledge", 1, pubsubserver.ErrHang, 0},
		{"Acknowledge", 2, pubsubserver.ErrHang, 0},
	} {
		t.Run(fmt.Sprintf("%s %d, repeated %d", c.method, c.call, c.repeated), func(t *testing.T) {
			t.Parallel()
			s := fullQueue(t, count)
			dir := t.TempDir()
			fixes, path := filepath.Join(dir, "fixes.yaml"), filepath.Join(dir, "plan.json")
			id := fault.Of("gateway_rejected", serviceOf(s), "left out").ID()
			if err := os.WriteFile(fixes, []byte(id+": replay\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			execute(t, s.environ(), nil, "dlq", "plan", "--fix", fixes, "-o", path).exits(0)
			apply := []string{"dlq", "apply", path, "--yes", "--canary", "0", "--output", "json"}
			reached := make(chan struct{})
			var calls atomic.Int32
			s.SetFault(func(m string, _ any) error {
				if m != c.method || calls.Add(1) != c.call {
					return nil
				}
				close(reached)
				return c.err
			})
			p := start(t, s.environ(), nil, apply...)
			select {
			case <-reached:
			case <-time.After(patience):
				t.Fatal(c.method + " is not called")
			}
			time.Sleep(100 * time.Millisecond) // other requests may still be served: any state will do
			p.stop(syscall.SIGKILL)
			s.SetFault(nil)
			s.endLeases(t)
			got := execute(t, s.environ(), nil, apply...).exits(0)
			contains(t, got.stdout, `"todo":0`)
			s.allBack(count)
			if state := s.Stats(s.queue); state.Backlog != 0 {
				t.Errorf("%d messages are left", state.Backlog)
			}
			seen := map[string]int{}
			for _, m := range s.Messages(s.ledger) {
				seen[m.GetAttributes()["origin_message_id"]]++
			}
			repeated := 0
			for _, n := range seen {
				repeated += n - 1
			}
			if len(seen) != count || repeated > c.repeated {
				t.Errorf("%d events were published, want %d; %d of them twice, want at most %d", len(seen), count, repeated, c.repeated)
			}
			// Exactly what left the queue is in the backup, each message at least once.
			backup, err := os.ReadFile(path + ".backup")
			if n := strings.Count(string(backup), "\n"); err != nil || n < count {
				t.Errorf("%d lines in the backup: %v", n, err)
			}
			execute(t, s.environ(), nil, "dlq", "restore", path+".backup", "--yes").exits(0).done("1,200 messages restored")
		})
	}
}

// endLeases ends the leases of a command that was killed. A pull of it may be answered a
// moment after the kill, before the server notices that nobody listens.
func (s *queueServer) endLeases(t *testing.T) {
	t.Helper()
	for unleased := 0; unleased < 5; {
		if t.Context().Err() != nil {
			t.Fatal("the leases do not end")
		}
		s.ExpireLeases(s.queue)
		time.Sleep(100 * time.Millisecond)
		unleased++
		if s.Stats(s.queue).Leased > 0 {
			unleased = 0
		}
	}
}

// serviceOf is the service of the messages in the queue.
func serviceOf(s *queueServer) string {
	return s.Messages(s.queue)[0].GetAttributes()["service_id"]
}
