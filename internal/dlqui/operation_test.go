package dlqui

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

func TestOperationStageAndNextCommand(t *testing.T) {
	running := func(k kind) *runState { return &runState{Kind: k, Phase: runActive, Command: "worker dlq running"} }
	now := time.Now()
	for _, c := range []struct {
		name                           string
		op                             operation
		stage, command                 string
		active, elsewhere, open, waits bool
	}{
		{"being planned", operation{Run: running(planning)}, "planning", "worker dlq running", true, false, false, false},
		{"not planned", operation{Run: &runState{Kind: planning, Phase: runFailed}}, "not planned", "worker dlq plan --fix p.fixes.yaml -o p.json", false, false, false, false},
		{"planned", operation{Plan: &summary{}}, "planned", "worker dlq apply p.json", false, false, true, false},
		{"applied here", operation{Run: running(applying), Plan: &summary{Runs: 1}}, "applying", "worker dlq running", true, false, false, false},
		{"applied elsewhere", operation{Plan: &summary{Runs: 1, Counts: plan.Counts{Todo: 1}}}, "stopped", "worker dlq apply p.json", false, true, true, false},
		{"stopped", operation{Plan: &summary{Runs: 1, Ended: true, Counts: plan.Counts{Left: 1}}}, "stopped", "worker dlq apply p.json", false, false, true, false},
		{"receipts are missing", operation{Receipts: true, Plan: &summary{Runs: 1, Ended: true, Complete: true, Last: now, Counts: plan.Counts{Waiting: 1}}}, "published", "worker dlq status p.json", false, false, false, true},
		{"receipts are asked for", operation{Receipts: true, Run: running(asking), Plan: &summary{Runs: 1, Ended: true, Complete: true, Last: now, Counts: plan.Counts{Waiting: 1}}}, "published", "worker dlq status p.json", false, false, false, true},
		{"receipts are missing for long", operation{Receipts: true, Plan: &summary{Runs: 1, Ended: true, Complete: true, Last: now.Add(-receiptsPatience), Counts: plan.Counts{Waiting: 1}}}, "published", "worker dlq status p.json", false, false, false, false},
		{"receipts are not read", operation{Plan: &summary{Runs: 1, Ended: true, Complete: true, Last: now, Counts: plan.Counts{Waiting: 1}}}, "done", "worker dlq status p.json", false, false, false, false},
		{"done", operation{Receipts: true, Plan: &summary{Runs: 1, Ended: true, Complete: true, Last: now}}, "done", "worker dlq status p.json", false, false, false, false},
	} {
		c.op.Path = "p.json"
		o := &c.op
		if o.Stage() != c.stage || o.command() != c.command {
			t.Errorf("%s: %s, %s; want %s, %s", c.name, o.Stage(), o.command(), c.stage, c.command)
		}
		if o.Active() != c.active || o.Elsewhere() != c.elsewhere || o.Open() != c.open || o.Waits() != c.waits {
			t.Errorf("%s: active %v, elsewhere %v, open %v, waits %v", c.name, o.Active(), o.Elsewhere(), o.Open(), o.Waits())
		}
	}
}

func TestNewestOperationsOfTheFolderComeFirst(t *testing.T) {
	folder := planFolder(t.TempDir())
	for _, name := range []string{
		"20261127T050000Z-aaaaaa.json", "20261127T050000Z-aaaaaa.fixes.yaml", "20261128T050000Z-aaaaaa.json", "20261126T050000Z-aaaaaa.json",
		"20261129T050000Z-aaaaaa.journal", "notes.json", "20261129T050000Z-AAAAAA.json",
	} {
		if err := os.WriteFile(filepath.Join(string(folder), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := folder.names(2)
	if diff := cmp.Diff([]string{"20261128T050000Z-aaaaaa", "20261127T050000Z-aaaaaa"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if name := newName(); !operationName.MatchString(name) {
		t.Errorf("%q is no name of an operation", name)
	}
	if _, err := (folder + "/none").names(2); err == nil {
		t.Error("no error without the folder")
	}
}

// TestBackupThatCannotBeReadIsAnError: a part of its lines must not pass for all of them,
// because a person confirms a restore with their number.
func TestBackupThatCannotBeReadIsAnError(t *testing.T) {
	folder := t.TempDir()
	if _, err := countLines(folder); err == nil {
		t.Error("a folder has a number of lines")
	}
	if n, err := countLines(filepath.Join(folder, "none")); n != 0 || err != nil {
		t.Errorf("no file: %d, %v", n, err)
	}
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := countLines(file); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
