package dlqcmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAuditFileIsPrivate: the records go to a file that only the user may read, with the
// expression; a terminal shows one short row, and another stderr has the records, too.
func TestAuditFileIsPrivate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		vars, args []string
		file       func(home string) string
	}{
		"home":      {nil, nil, func(home string) string { return filepath.Join(home, ".local/state/telemetry-relay/audit.ndjson") }},
		"state":     {[]string{"XDG_STATE_HOME=HOME/s"}, nil, func(home string) string { return filepath.Join(home, "s/telemetry-relay/audit.ndjson") }},
		"flag":      {nil, []string{"--audit-file", "HOME/a/b"}, func(home string) string { return filepath.Join(home, "a/b") }},
		"read only": {nil, []string{"--audit-file", "/proc/none/audit"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, term, home := newTestQueue(t), newTerminal(t), t.TempDir()
			h.put(deadLettered(1, goodData(1)), deadLettered(2, goodData(2)))
			for _, stderr := range []string{"terminal", "pipe"} {
				env := h.environment("replay", "--yes", "--limit", "1", "--jq", ".action = \"deleted\"")
				for _, a := range c.args {
					env.Args = append(env.Args, strings.ReplaceAll(a, "HOME", home))
				}
				env.Vars = append(env.Vars, "HOME="+home)
				for _, v := range c.vars {
					env.Vars = append(env.Vars, strings.ReplaceAll(v, "HOME/", home+"/"))
				}
				var pipe strings.Builder
				if env.Stderr = &pipe; stderr == "terminal" {
					env.Stderr = term.tty
				}
				if status := run(t.Context(), env); status != 0 {
					t.Errorf("status %d", status)
				}
				shown := pipe.String()
				if stderr == "terminal" {
					shown = term.all()
				}
				if records := strings.Count(shown, `"audit":true`); (records == 2) != (stderr == "pipe" || c.file == nil) {
					t.Errorf("%s: %d records: %s", stderr, records, shown)
				}
				if c.file != nil && !strings.Contains(shown, "audit: dlq replay by unknown, recorded in "+c.file(home)) {
					t.Errorf("%s: %s", stderr, shown)
				}
				if stderr == "terminal" {
					term = newTerminal(t)
				}
			}
			if c.file == nil {
				return
			}
			checkAuditFile(t, c.file(home))
		})
	}
}

// checkAuditFile compares the records of two replays.
func checkAuditFile(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 4 { // it is appended to
		t.Fatalf("%d records: %s", len(lines), text)
	}
	for _, line := range lines {
		var record struct {
			Audit bool
			JQ    string
			ID    string `json:"replay_id"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil || !record.Audit || record.JQ != `.action = "deleted"` || record.ID == "" {
			t.Errorf("%v: %s", err, line)
		}
	}
}
