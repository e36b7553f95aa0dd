package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadmeEvent checks the README's event as publishers do.
func TestReadmeEvent(t *testing.T) {
	block := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindStringSubmatch(readme(t))
	if block == nil {
		t.Fatal("no event")
	}
	var stdout, stderr bytes.Buffer
	line := `{"attributes":{"service_id":"sams"},"data":` + block[1] + "}\n"
	status := run(t.Context(), environment{args: []string{"worker", "publish", "--check"}, stdin: strings.NewReader(line), stdout: &stdout, stderr: &stderr})
	if status != exitOK {
		t.Errorf("exit %d\n%s%s", status, stdout.String(), stderr.String())
	}
}

// TestReadmeIsShort keeps the README to one screen.
func TestReadmeIsShort(t *testing.T) {
	if lines := strings.Count(readme(t), "\n"); lines > 70 {
		t.Errorf("the README has %d lines", lines)
	}
}

// TestReadmeLocal runs the README's first command, with its other output too.
func TestReadmeLocal(t *testing.T) {
	if !strings.Contains(readme(t), "go run ./cmd/worker local\n") {
		t.Fatal("the README does not name the command")
	}
	for _, c := range []struct{ args, want string }{
		{"worker local", "2,006 received = 2,000 submitted + 6 rejected + 0 duplicates + 0 released"},
		{"worker local --events 50 --output json", `"submitted":50,`},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), environment{args: strings.Fields(c.args), stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr})
		if status != exitOK || !strings.Contains(stdout.String(), c.want) {
			t.Errorf("%s: exit %d\n%s%s", c.args, status, stdout.String(), stderr.String())
		}
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]int{
		"worker":                          exitOK,
		"worker --help":                   exitOK,
		"worker run --help":               exitOK,
		"worker nonsense":                 exitUsage,
		"worker run --nonsense":           exitUsage,
		"worker run extra":                exitUsage,
		"worker run":                      exitUsage, // nothing is configured
		"worker local --events -1":        exitUsage,
		"worker version --output xml":     exitUsage,
		"worker publish a b":              exitUsage,
		"worker publish /does/not/exist":  exitUsage,
		"worker check":                    exitUsage,
		"worker check --timeout -1s":      exitUsage,
		"worker check --output table":     exitUsage,
		"worker setup":                    exitUsage,
		"worker setup --output table":     exitUsage,
		"worker version":                  exitOK,
		"worker local --events 5000001":   exitUsage,
		"worker version --output json":    exitOK,
		"worker local --nonsense=1 extra": exitUsage,
	} {
		var stdout, stderr bytes.Buffer
		got := run(t.Context(), environment{args: strings.Fields(args), stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr})
		if got != want {
			t.Errorf("%s: exit %d, want %d\n%s%s", args, got, want, stdout.String(), stderr.String())
		}
		if want == exitUsage && stdout.Len() > 0 {
			t.Errorf("%s: prints to stdout:\n%s", args, stdout.String())
		}
	}
}

// TestHelpExamples makes sure that each command's help has an example.
func TestHelpExamples(t *testing.T) {
	for _, c := range (environment{}).root().Commands {
		if !strings.Contains(c.Description, "Example") {
			t.Errorf("worker %s --help has no example", c.Name)
		}
	}
}
