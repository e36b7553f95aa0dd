package dlqcmd

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// TestStatsFitsTerminal: the table fits the terminal, folds features with ids in their
// names, and ends after --top rows.
func TestStatsFitsTerminal(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for i := range 80 {
		h.put(deadLettered(i, fmt.Sprintf(`{"feature":"sams.user%d","action":"created"}`, i)))
	}
	for i := range 30 {
		h.put(deadLettered(100+i, goodData(i), "service_id", fmt.Sprintf("a-service-with-a-very-long-name-number-%d", i), "dlq_detail", strings.Repeat("a long detail ", 30)))
	}
	for _, width := range []uint16{80, 100, 200} {
		term := newTerminal(t)
		if err := pty.Setsize(term.screen, &pty.Winsize{Rows: 24, Cols: width}); err != nil {
			t.Fatal(err)
		}
		env := h.environment("stats")
		env.Vars = append(env.Vars, "TERM=xterm")
		env.Stdout = term.tty
		if status := run(t.Context(), env); status != 0 {
			t.Errorf("status %d", status)
		}
		shown := text.StripEscape(strings.ReplaceAll(term.all(), "\r\n", "\n"))
		for row := range strings.Lines(shown) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(row, "\n")); n > int(width) {
				t.Errorf("%d columns on a terminal of %d: %q", n, width, row)
			}
		}
		for _, want := range []string{"80 features", "… and 11 faults with 11 messages; --top 0 shows all", " d ago", "none in the last 24 h", "next: worker dlq show m0\n"} {
			if !strings.Contains(shown, want) {
				t.Errorf("width %d: no %q in %s", width, want, shown)
			}
		}
	}
	if got := h.expect(0, "", "stats", "--top", "2"); strings.Count(got.stdout, "invalid_event") != 2 || !strings.Contains(got.stdout, "… and 29 faults with 29 messages") {
		t.Error(got.stdout)
	}
	if got := h.expect(0, "", "stats", "--top", "0"); strings.Count(got.stdout, "invalid_event") != 31 {
		t.Error(got.stdout)
	}
	// 110 groups, and 30 faults of one feature.
	if got := h.expect(0, "", "stats", "--output", "json"); strings.Count(got.stdout, `"feature":`) != 140 {
		t.Error(got.stdout)
	}
}

// TestStatsDescribesFaults: stats names each fault, says whether it grows and which
// releases have it, and every command selects by its id.
func TestStatsDescribesFaults(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	now := time.Now().UTC()
	for i := range 1460 {
		version, at := "1.85.0", now.Add(-30*time.Minute)
		if i >= 1062 {
			version, at = "1.85.1", now.Add(-90*time.Minute)
		}
		h.put(deadLettered(i, goodData(i), "service_version", version, "dlq_detail", fmt.Sprintf("user.userId: expected an integer, got %q", fmt.Sprint(i)),
			"dlq_rejected_at", at.Format(time.RFC3339), "dlq_replays", fmt.Sprint(i%4/3)))
	}
	h.put(deadLettered(2000, goodData(1), "service_version", "1.84", "dlq_reason", "oversized", "dlq_detail", "large"))
	id := fault.Of("invalid_event", "sams", `user.userId: expected an integer, got "1"`).ID()
	got := h.expect(0, "", "stats")
	for _, want := range []string{
		id + "  1,460  invalid_event  sams     1 h ago  30 min ago  25%\n",
		"growing: ······················▃█ per hour in 24 h, 1,062 in the last\n",
		"releases 1.85.0 × 1,062, 1.85.1 × 398; none from 1.84\n",
		"next: worker dlq show m",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in %s", want, got.stdout)
		}
	}
	file := filepath.Join(t.TempDir(), "lines")
	if got := h.expect(0, "", "list", "--fault", id, "--limit", "1", "--output", "ndjson"); !strings.Contains(got.stdout, `"fault":"`+id+`"`) {
		t.Error(got.stdout)
	}
	if got := h.expect(0, "", "show", "m7"); !strings.Contains(got.stdout, "fault          "+id+"\n") {
		t.Error(got.stdout)
	}
	h.expect(0, `{"matched":1460,"exported":1460,"failed":0,"left":1461}`+"\n", "export", "--fault", id, "--output", "json", file)
	h.expect(0, `{"matched":1460,"replayed":0,"failed":0,"left":1461}`+"\n", "replay", "--dry-run", "--fault", id, "--output", "json")
	other := fault.Of("oversized", "sams", "large").ID()
	h.expect(0, `{"matched":1461,"replayed":0,"failed":0,"left":1461}`+"\n", "replay", "--dry-run", "--fault", id, "--fault", other, "--output", "json")
	h.expect(0, `{"matched":1,"purged":1,"failed":0,"left":1460}`+"\n", "purge", "--fault", other, "--no-backup", "--yes", "--output", "json")

	// An id that no message has is reported; a text that is no id of a fault is refused.
	none := "no message that was read has the fault F-000000"
	for _, args := range [][]string{{"stats", "--fault", "F-000000"}, {"list", "--fault", "F-000000"}} {
		if got := h.expect(0, "", args...); strings.Count(got.stderr, none) != 1 {
			t.Errorf("%v: %s", args, got.stderr)
		}
	}
	for _, args := range [][]string{{"replay", "--yes", "--fault", "F-000000"}, {"replay", "--yes", "--fault", "F-000000", "--fault", id, "--message-id", "nobody"}} {
		if got := h.expect(1, "", args...); strings.Count(got.stderr, none) != 1 {
			t.Errorf("%v: %s", args, got.stderr)
		}
	}
	for _, bad := range []string{"7c3a91", "F-7C3A91", "F-7c3a9", "F-7c3a911", "F-", "invalid_event", id + "," + other} {
		if got := h.expect(2, "", "stats", "--fault", bad); !strings.Contains(got.stderr, "expected the id of a fault") {
			t.Errorf("%s: %s", bad, got.stderr)
		}
	}
	h.left(1460)
}

// TestShowClipsData: show ends after a page; --full does not.
func TestShowClipsData(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	large := fmt.Sprintf(`{"feature":"sams.user","action":"created","featureFlags":{%s"last":"x"}}`, strings.Repeat(`"flag":"on",`, 200_000))
	h.put(deadLettered(1, large))
	got := h.expect(0, "", "show", "m1")
	if len(got.stdout) > 8<<10 || !strings.Contains(got.stdout, "--full") || strings.Contains(got.stdout, `"last"`) {
		t.Errorf("%d bytes: %.6000s", len(got.stdout), got.stdout)
	}
	got = h.expect(0, "", "show", "m1", "--full")
	if len(got.stdout) < len(large) || !strings.Contains(got.stdout, `"last"`) {
		t.Errorf("%d bytes", len(got.stdout))
	}
}
