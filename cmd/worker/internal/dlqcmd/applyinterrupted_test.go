package dlqcmd

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// TestInterruptedApplyGoesOn ends an apply at each step, and runs it again: each message is
// published once, unless the end came between its publication and its record.
func TestInterruptedApplyGoesOn(t *testing.T) {
	for _, method := range []string{"Pull", "ModifyAckDeadline", "Publish", "Acknowledge"} {
		for _, after := range []int{1, 2, 4} {
			for _, end := range []string{"interrupted", "lost"} {
				t.Run(fmt.Sprint(method, after, end), func(t *testing.T) {
					h := newPlanned(t)
					h.make()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					calls := make(chan struct{}, 1000)
					h.SetFault(func(m string, _ any) error {
						if m != method {
							return nil
						}
						if calls <- struct{}{}; len(calls) < after {
							return nil
						}
						if end == "interrupted" {
							cancel()
							return nil
						}
						return status.Error(codes.Unavailable, "away")
					})
					first := h.apply(ctx, "--rate", "100")
					if len(calls) >= after && first.status == 0 && end == "interrupted" && ctx.Err() == nil {
						t.Errorf("%+v", first)
					}
					h.SetFault(nil)
					h.ExpireLeases(dlqSub)
					second := h.apply(t.Context())
					if second.status != 0 {
						t.Errorf("after %+v: %+v", first, second)
					}
					h.left(3)
					origins := h.origins()
					for _, origin := range slices.Sorted(maps.Keys(origins)) {
						if n := origins[origin]; n != 1 {
							t.Errorf("%s was published %d times", origin, n)
						}
					}
					if len(origins) != 30 {
						t.Errorf("%d events were published, want 30", len(origins))
					}
				})
			}
		}
	}
}

// TestApplyAfterCrashPublishesNothingTwice: a run that was killed after the record of a
// publication, and before the acknowledgement, does not publish again; it only removes.
func TestApplyAfterCrashPublishesNothingTwice(t *testing.T) {
	h := newPlanned(t)
	path, p := h.makeAndRead()
	j, err := plan.OpenJournal(plan.JournalOf(path), p)
	if err != nil {
		t.Fatal(err)
	}
	published := h.ids[:7]
	if err := j.Append(plan.Record{Kind: plan.Begun, Plan: p.ID, Checksum: p.Checksum}, plan.Record{Kind: plan.Published, IDs: published}); err != nil {
		t.Fatal(err)
	}
	// While that process lives, a second one does nothing.
	if got := h.apply(t.Context()); got.status != 1 || !strings.Contains(got.stderr, "another process is at this plan") {
		t.Errorf("%+v", got)
	}
	h.left(38)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	// The crash has cut a record, and a line of the backup.
	for name, torn := range map[string]string{"plan.json.journal": `{"at":"2026-11-2`, "plan.json.backup": `{"attributes":{`} {
		f, err := os.OpenFile(h.path(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(torn)
		f.Close()
	}
	if got := h.expect(0, "", "status", path); !strings.Contains(got.stdout, "It is being applied, or that was killed") {
		t.Error(got.stdout)
	}
	got := h.apply(t.Context())
	if got.status != 0 || !strings.Contains(got.stdout, `"replayed":23,"purged":5,"failed":0,"todo":0`) {
		t.Errorf("%+v", got)
	}
	h.replayed(23)
	h.left(3)
	if backup, err := os.ReadFile(h.path("plan.json.backup")); err != nil || bytes.Count(backup, []byte("\n")) != 28 || bytes.Contains(backup, []byte(torn)) {
		t.Errorf("%v %s", err, backup)
	}
}

const torn = `{"attributes":{{`

// TestApplyAfterKillWaitsForLeases: a run that was killed may still have leases on messages
// that it has published. The next run does not count them as removed; a later one does.
func TestApplyAfterKillWaitsForLeases(t *testing.T) {
	h := newPlanned(t)
	path, p := h.makeAndRead()
	begin := func(at time.Time) {
		t.Helper()
		os.Remove(plan.JournalOf(path))
		j, err := plan.OpenJournal(plan.JournalOf(path), p)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Append(plan.Record{Kind: plan.Begun, Plan: p.ID, Checksum: p.Checksum}, plan.Record{At: at, Kind: plan.Published, IDs: h.ids[:20]}); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	begin(time.Now())
	// The killed run has leased all messages, so that the next run gets none.
	release := h.lease(38)
	if got := h.apply(t.Context()); got.status != 1 || !strings.Contains(got.stderr, "15 messages of the plan did not come") {
		t.Errorf("%+v", got)
	}
	release()
	if got := h.apply(t.Context()); got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(10)
	h.left(3)

	// The run ended between the acknowledgement and its record: the queue is empty.
	begin(time.Now())
	h.put(deadLettered(1, "x"))
	got := h.dlq(t.Context(), "apply", path, "--yes", "--canary", "0")
	if got.status != 1 || !strings.Contains(got.stderr, "15 messages of the plan did not come") {
		t.Errorf("%+v", got)
	}
	begin(time.Now().Add(-time.Hour))
	if got := h.apply(t.Context()); !strings.Contains(got.stderr, "15 messages of the plan did not come") || strings.Contains(got.stderr, "keeps them") {
		t.Errorf("%+v", got)
	}
}
