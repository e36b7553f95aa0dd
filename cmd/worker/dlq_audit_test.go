package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestAudit: every command that changes the queue logs at its start and at its
// end, as JSON whatever the settings say, who did what to how many; the others
// log nothing of the kind.
func TestAudit(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args   []string
		done   string
		counts string // matched, done, failed, left
		ends   string
	}{
		{[]string{"replay", "--yes"}, "replayed", "5 4 1 2", "Changed the dead-letter queue"},
		{[]string{"replay", "--yes", "--canary", "1", "--canary-wait", "1ms"}, "replayed", "5 4 1 2", "Changed the dead-letter queue"},
		{[]string{"purge", "--yes", "--backup", filepath.Join(dir, "backup")}, "purged", "5 5 0 1", "Changed the dead-letter queue"},
		{[]string{"purge", "--yes", "--no-backup"}, "purged", "5 5 0 1", "Changed the dead-letter queue"},
		{[]string{"export", "--remove", "--yes", filepath.Join(dir, "removed")}, "exported", "5 5 0 1", "Changed the dead-letter queue"},
		{args: []string{"export", filepath.Join(dir, "export")}},
		{args: []string{"replay", "--dry-run"}},
	} {
		t.Run(strings.Join(c.args[:2], " "), func(t *testing.T) {
			t.Parallel()
			h := newDLQHouse(t)
			for i := range 4 {
				h.put(deadLetter(i, goodData(i)))
			}
			h.put(deadLetter(5, typoData(5)), deadLetter(6, "x", "dlq_reason", "oversized"))
			env := h.environment(append(c.args, "--reason", "invalid_event")...)
			var stderr strings.Builder
			env.stderr = &stderr
			env.vars = append(env.vars, "LOG_FORMAT=text", "LOG_LEVEL=error", "USER=somebody", "HOME=/nowhere")
			run(t.Context(), env)
			var lines []map[string]any
			for line := range strings.Lines(stderr.String()) {
				if strings.Contains(line, "audit") {
					fields := map[string]any{}
					if err := json.Unmarshal([]byte(line), &fields); err != nil {
						t.Errorf("%v: %s", err, line)
					}
					lines = append(lines, fields)
				}
			}
			if c.done == "" {
				if lines != nil {
					t.Errorf("it logs %v", lines)
				}
				return
			}
			if len(lines) != 2 {
				t.Fatalf("%d lines: %s", len(lines), stderr.String())
			}
			for i, message := range []string{"Changing the dead-letter queue", c.ends} {
				want := map[string]any{
					"message": message, "severity": "INFO", "audit": true, "action": "dlq " + c.args[0], "who": "somebody",
					"filter": "reason=invalid_event", "subscription": dlqSub,
				}
				for name, value := range want {
					if lines[i][name] != value {
						t.Errorf("%s is %v, want %v", name, lines[i][name], value)
					}
				}
			}
			if got := fmt.Sprint(lines[1]["matched"], lines[1][c.done], lines[1]["failed"], lines[1]["left"]); got != c.counts {
				t.Errorf("the counts are %s, want %s", got, c.counts)
			}
		})
	}
}
