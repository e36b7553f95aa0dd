package dlqcmd

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/jedib0t/go-pretty/v6/text"
)

// TestStatsFits: the table fits the terminal, folds features with ids in their names,
// and ends after --top rows.
func TestStatsFits(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for i := range 80 {
		h.put(deadLetter(i, fmt.Sprintf(`{"feature":"sams.user%d","action":"created"}`, i)))
	}
	for i := range 30 {
		h.put(deadLetter(100+i, goodData(i), "service_id", fmt.Sprintf("a-service-with-a-very-long-name-number-%d", i), "dlq_detail", strings.Repeat("a long detail ", 30)))
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
		for _, want := range []string{"80 features", "… and 11 rows with 11 messages; --top 0 shows all", " d ago"} {
			if !strings.Contains(shown, want) {
				t.Errorf("width %d: no %q in %s", width, want, shown)
			}
		}
	}
	if got := h.expect(0, "", "stats", "--top", "2"); strings.Count(got.stdout, "invalid_event") != 2 || !strings.Contains(got.stdout, "… and 29 rows with 29 messages") {
		t.Error(got.stdout)
	}
	if got := h.expect(0, "", "stats", "--top", "0"); strings.Count(got.stdout, "invalid_event") != 31 {
		t.Error(got.stdout)
	}
	if got := h.expect(0, "", "stats", "--output", "json"); strings.Count(got.stdout, `"feature":`) != 110 {
		t.Error(got.stdout)
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, time.November, 20, 10, 0, 0, 0, time.UTC)
	for ago, want := range map[time.Duration]string{
		-time.Hour: "just now", 0: "just now", 40 * time.Second: "40 s ago", 119 * time.Second: "1 min ago",
		2 * time.Hour: "2 h ago", 47 * time.Hour: "47 h ago", 48 * time.Hour: "2 d ago", 31 * 24 * time.Hour: "31 d ago",
	} {
		if got := age(now.Add(-ago), now); got != want {
			t.Errorf("%v: %s, want %s", ago, got, want)
		}
	}
}

// TestShowClips: show ends after a page; --full does not.
func TestShowClips(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	large := fmt.Sprintf(`{"feature":"sams.user","action":"created","featureFlags":{%s"last":"x"}}`, strings.Repeat(`"flag":"on",`, 200_000))
	h.put(deadLetter(1, large))
	got := h.expect(0, "", "show", "m1")
	if len(got.stdout) > 8<<10 || !strings.Contains(got.stdout, "--full") || strings.Contains(got.stdout, `"last"`) {
		t.Errorf("%d bytes: %.6000s", len(got.stdout), got.stdout)
	}
	got = h.expect(0, "", "show", "m1", "--full")
	if len(got.stdout) < len(large) || !strings.Contains(got.stdout, `"last"`) {
		t.Errorf("%d bytes", len(got.stdout))
	}
}
