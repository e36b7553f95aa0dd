package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// TestReasonTableMatchesRows compares the table of reasons in docs/oncall.md with
// dlq.Reasons, from which -update writes the table.
func TestReasonTableMatchesRows(t *testing.T) {
	const begin, head = "## Reasons\n\n", "| reason | the event was rejected because | fault | what to do |\n|---|---|---|---|\n"
	page := filepath.Join(runbookDir, "oncall.md")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString(head)
	for _, row := range dlq.Reasons {
		fmt.Fprintf(&table, "| [`%s`](oncall/%[1]s.md) | %s | %s | %s |\n", row.Reason, row.Meaning, row.Fault, row.Summary())
	}
	before, rest, found := strings.Cut(string(text), begin)
	_, after, ended := strings.Cut(rest, "\n\n")
	if !found || !ended {
		t.Fatal("docs/oncall.md has no table of reasons")
	}
	want := before + begin + table.String() + "\n" + after
	switch {
	case want == string(text):
	case *update:
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the table of reasons in %s is not\n%s", page, table.String())
	}
}

func TestReasonRowsAreComplete(t *testing.T) {
	for _, row := range dlq.Reasons {
		if row.Fault == "" || row.Meaning == "" || strings.HasSuffix(row.Meaning, ".") || !strings.HasSuffix(row.Remedy, ".") || strings.Contains(row.Summary(), "|") {
			t.Errorf("%+v", row)
		}
	}
}

// TestReasonHasFivePlaces: a new reason needs changes in at most five places. These are its
// row in internal/event/reasons.go, its check, a unit case, an end-to-end case, and its
// page. So no other code may name a reason, and each reason must have both cases.
func TestReasonHasFivePlaces(t *testing.T) {
	const root = "../.."
	// The code that may name a reason.
	allowed := regexp.MustCompile(`^(` + strings.Join([]string{
		`internal/event/.*`,                       // the row, and the checks of the decoder
		`internal/relay/.*`,                       // the checks of the gateway's answers
		`internal/verdict/.*`,                     // likewise
		`recorder/(validate|errors|recorder)\.go`, // the same checks at the publisher
		`internal/dlq/advice\.go`,                 // two reasons whose remedy depends on the data
		`internal/devstack/sample/.*`,             // bad events for worker local
	}, "|") + `)$`)
	constants := map[event.Reason]string{}
	declared := regexp.MustCompile(`(?m)^\t(\w+) +Reason = "(\w+)"$`)
	rows, err := os.ReadFile(filepath.Join(root, "internal/event/reasons.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range declared.FindAllStringSubmatch(string(rows), -1) {
		constants[event.Reason(m[2])] = m[1]
	}
	unit, endToEnd := map[event.Reason]bool{}, map[event.Reason]bool{}
	example := regexp.MustCompile(`worker dlq|such as`) // texts of help
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, root+"/"))
		for _, reason := range event.Reasons {
			named := regexp.MustCompile(`\b(event\.)?` + constants[reason] + `\b|"` + string(reason) + `"`)
			for line := range strings.Lines(string(source)) {
				switch {
				case !named.MatchString(line):
				case strings.Contains(name, "e2e/"):
					endToEnd[reason] = true
				case strings.HasSuffix(name, "_test.go"):
					unit[reason] = unit[reason] || strings.HasPrefix(name, "internal/")
				case !allowed.MatchString(name) && !strings.HasPrefix(strings.TrimSpace(line), "//") && !example.MatchString(line):
					t.Errorf("%s names the reason %s: %s", name, reason, strings.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range event.Reasons {
		if constants[reason] == "" || !unit[reason] || !endToEnd[reason] {
			t.Errorf("%s: constant %q, a unit case: %v, an end-to-end case: %v", reason, constants[reason], unit[reason], endToEnd[reason])
		}
	}
}
