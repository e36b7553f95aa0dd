package dlqcmd

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestCountsSayAtLeast: a command that cannot know whether it saw the whole queue says so,
// in words and as JSON.
func TestCountsSayAtLeast(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for i := range 5 {
		h.put(deadLettered(i, goodData(i)))
	}
	// unsure says how the second pull of the next command ends.
	unsure := func(t *testing.T, second func() error) {
		t.Helper()
		var pulls atomic.Int32
		h.SetFault(func(method string, _ any) error {
			if method == "Pull" && pulls.Add(1) == 2 {
				return second()
			}
			return nil
		})
	}
	dir := t.TempDir()
	for _, c := range []struct {
		name   string
		second func() error
		why    string
	}{
		{"a pull fails", func() error { return status.Error(codes.Unavailable, "away") }, "Pub/Sub failed to answer"},
		{"messages come twice", func() error { h.ExpireLeases(dlqSub); return nil }, "messages were delivered twice (5)"},
	} {
		for _, x := range []struct {
			args        []string
			out, stderr string
		}{
			{[]string{"stats"}, "\nat least 5 messages from ", ""},
			{[]string{"stats", "--output", "json"}, `"count_at_least":true}`, ""},
			{[]string{"list"}, "", "at least 5 messages of the queue match, and there may be more: "},
			{[]string{"list", "--output", "ndjson"}, "", "at least 5 messages of the queue match, and there may be more: "},
			{[]string{"replay", "--dry-run"}, "; at least 5 are left in the queue", ""},
			{[]string{"replay", "--dry-run", "--output", "json"}, `{"matched":5,"replayed":0,"failed":0,"left":5,"left_at_least":true}`, ""},
			{[]string{"export", filepath.Join(dir, c.name)}, "; at least 5 are left in the queue", ""},
			{[]string{"purge", "--yes", "--no-backup", "--reason", "oversized", "--output", "json"}, `{"matched":0,"purged":0,"failed":0,"left":5,"left_at_least":true}`, ""},
		} {
			t.Run(c.name+" "+strings.Join(x.args, " "), func(t *testing.T) {
				unsure(t, c.second)
				got := h.dlq(t.Context(), x.args...)
				want := 0
				if strings.Contains(x.out, `"matched":0`) {
					want = 1 // a change that selects nothing
				}
				if got.status != want || !strings.Contains(got.stdout, x.out) || !strings.Contains(got.stderr, x.stderr) || !strings.Contains(got.stderr, c.why) {
					t.Errorf("status %d, stdout %s, stderr %s", got.status, got.stdout, got.stderr)
				}
			})
		}
	}
	h.SetFault(nil)
	h.left(5)
}

// TestCountsSayAtLeastWithLimit: a count that a limit has cut is a lower bound, and one
// that it has not is exact.
func TestCountsSayAtLeastWithLimit(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for i := range 5 {
		h.put(deadLettered(i, goodData(i)))
	}
	for _, x := range []struct {
		args     []string
		out, not string
		stderr   bool
	}{
		{[]string{"stats"}, "\nat least 5 messages from ", "there may be more", false}, // an emulator does not count
		{[]string{"stats", "--limit", "3"}, "\nat least 3 messages from ", "", true},
		{[]string{"stats", "--limit", "3", "--output", "json"}, `"count_at_least":true}`, "", false},
		{[]string{"stats", "--limit", "9", "--output", "json"}, `{"count":5`, "there may be more", false},
		{[]string{"list", "--limit", "3"}, "", "", true},
		{[]string{"list", "--limit", "3", "--output", "ndjson"}, "", "", false},
		// The rest is read, too, so that it is counted.
		{[]string{"replay", "--dry-run", "--limit", "3", "--output", "json"}, `{"matched":3,"replayed":0,"failed":0,"left":5}`, "", false},
	} {
		t.Run(strings.Join(x.args, " "), func(t *testing.T) {
			got := h.dlq(t.Context(), x.args...)
			if got.status != 0 || !strings.Contains(got.stdout, x.out) || x.not != "" && strings.Contains(got.stdout+got.stderr, x.not) ||
				strings.Contains(got.stderr, "at least 3 messages of the queue match, and there may be more: --limit was reached") != x.stderr {
				t.Errorf("status %d, stdout %s, stderr %s", got.status, got.stdout, got.stderr)
			}
		})
	}
	h.left(5)
}
