package dlqcmd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
)

// auditCase is a command and its audit records.
type auditCase struct {
	args   []string
	done   string
	counts string // matched, done, failed, left
	ids    int    // messages that were read or changed
	ends   string
}

// TestAuditRecordsEveryChange: every command that changes the queue or reads private data
// logs at its start and at its end, as JSON whatever the settings say, who did what to
// which messages. The other commands log no such record.
func TestAuditRecordsEveryChange(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []auditCase{
		{[]string{"replay", "--yes"}, "replayed", "5 4 1 2", 4, "Changed the dead-letter queue"},
		{[]string{"replay", "--yes", "--canary", "1", "--canary-wait", "1ms"}, "replayed", "5 4 1 2", 4, "Changed the dead-letter queue"},
		{[]string{"purge", "--yes", "--backup", filepath.Join(dir, "backup")}, "purged", "5 5 0 1", 5, "Changed the dead-letter queue"},
		{[]string{"purge", "--yes", "--no-backup"}, "purged", "5 5 0 1", 5, "Changed the dead-letter queue"},
		{[]string{"export", "--remove", "--yes", filepath.Join(dir, "removed")}, "exported", "5 5 0 1", 5, "Changed the dead-letter queue"},
		{[]string{"replay", "--yes", "--jq", ".action=\"deleted\""}, "replayed", "5 4 1 2", 4, "Changed the dead-letter queue"},
		{[]string{"export", filepath.Join(dir, "export")}, "", "", 5, "Read private data of the dead-letter queue"},
		{[]string{"export", "--to", filepath.Join(dir, "to")}, "", "", 5, "Read private data of the dead-letter queue"},
		{[]string{"export", "-"}, "", "", 5, "Read private data of the dead-letter queue"},
		{[]string{"list", "--reveal"}, "", "", 5, "Read private data of the dead-letter queue"},
		{[]string{"replay", "--reveal", "--dry-run", "--jq", "."}, "", "", 4, "Read private data of the dead-letter queue"},
		{args: []string{"replay", "--dry-run"}},
		{args: []string{"list", "--limit=0"}},
		{args: []string{"stats", "--limit=0"}},
	} {
		t.Run(strings.Join(c.args[:2], " "), func(t *testing.T) {
			t.Parallel()
			h := newTestQueue(t)
			for i := range 4 {
				h.put(deadLettered(i, goodData(i)))
			}
			h.put(deadLettered(5, typoData(5)), deadLettered(6, "x", "dlq_reason", "oversized"))
			env := h.environment(append(c.args, "--reason", "invalid_event")...)
			var stderr strings.Builder
			env.Stderr = &stderr
			env.Vars = append(env.Vars, "LOG_FORMAT=text", "LOG_LEVEL=error", "USER=somebody", "CLOUDSDK_CORE_ACCOUNT=somebody@example.com", "HOME=/nowhere")
			run(t.Context(), env)
			lines := auditRecords(t, stderr.String())
			if c.ends == "" {
				if lines != nil {
					t.Errorf("it logs %v", lines)
				}
				return
			}
			if len(lines) != 2 {
				t.Fatalf("%d lines: %s", len(lines), stderr.String())
			}
			c.compare(t, lines[0], lines[1])
		})
	}
}

// auditRecords returns the audit records in stderr.
func auditRecords(t *testing.T, stderr string) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, `"audit":true`) {
			fields := map[string]any{}
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Errorf("%v: %s", err, line)
			}
			lines = append(lines, fields)
		}
	}
	return lines
}

// compare compares the record of the beginning and that of the end.
func (c auditCase) compare(t *testing.T, first, last map[string]any) {
	t.Helper()
	begins := "Changing the dead-letter queue"
	if c.done == "" {
		begins = "Reading private data of the dead-letter queue"
	}
	for message, record := range map[string]map[string]any{begins: first, c.ends: last} {
		want := map[string]any{
			"message": message, "severity": "INFO", "audit": true, "who": "unknown", // an emulator knows no account
			"filter": "reason=invalid_event", "subscription": dlqSub,
		}
		if at := slices.Index(c.args, "--jq"); at >= 0 {
			want["jq"] = c.args[at+1]
		}
		if action, _ := record["action"].(string); !strings.HasPrefix(action, "dlq "+c.args[0]) {
			t.Errorf("the action is %s", action)
		}
		for name, value := range want {
			if record[name] != value {
				t.Errorf("%s is %v, want %v", name, record[name], value)
			}
		}
	}
	ids, _ := last["ids"].([]any)
	var texts []string
	for _, id := range ids {
		texts = append(texts, id.(string))
	}
	sum := sha256.Sum256([]byte(strings.Join(texts, "\n")))
	if len(ids) != c.ids || fmt.Sprint(last["ids_count"]) != fmt.Sprint(c.ids) || last["ids_sha256"] != hex.EncodeToString(sum[:]) || !slices.IsSorted(texts) {
		t.Errorf("the ids are %v, %v, %v; want %d", last["ids_count"], ids, last["ids_sha256"], c.ids)
	}
	if c.done == "" {
		return
	}
	if got := fmt.Sprint(last["matched"], last[c.done], last["failed"], last["left"]); got != c.counts {
		t.Errorf("the counts are %s, want %s", got, c.counts)
	}
}

// TestExportIsPrivate: only the owner can read the file of an export, whether the command
// or a shell opens it.
func TestExportIsPrivate(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	h.put(deadLettered(1, goodData(1)))
	for _, args := range [][]string{{"export"}, {"list", "--reveal"}, {"show", "--reveal", "m1"}} {
		f, err := os.OpenFile(filepath.Join(t.TempDir(), "redirected"), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		env := h.environment(args...)
		env.Stdout = f
		if status := run(t.Context(), env); status != command.ExitOK {
			t.Errorf("%v: status %d", args, status)
		}
		if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
			t.Errorf("%v > FILE: %v, %v", args, info.Mode(), err)
		}
	}
	file := filepath.Join(t.TempDir(), "to")
	h.expect(0, "", "export", "--to", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Errorf("--to FILE: %v, %v", info, err)
	}
	h.expect(2, "", "export", "--to", file)
	h.expect(2, "", "export", "--to", file, file+"2")
}
