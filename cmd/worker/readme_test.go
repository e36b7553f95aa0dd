package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadmeEventIsValid checks the README's event with `worker publish --check`.
func TestReadmeEventIsValid(t *testing.T) {
	block := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindStringSubmatch(readme(t))
	if block == nil {
		t.Fatal("no event")
	}
	var stdout, stderr bytes.Buffer
	line := `{"attributes":{"service_id":"sams"},"data":` + block[1] + "}\n"
	status := run(t.Context(), command.Env{Args: []string{"worker", "publish", "--check"}, Stdin: strings.NewReader(line), Stdout: &stdout, Stderr: &stderr})
	if status != command.ExitOK {
		t.Errorf("exit %d\n%s%s", status, stdout.String(), stderr.String())
	}
}

// TestReadmeIsShort keeps the README to one screen.
func TestReadmeIsShort(t *testing.T) {
	if lines := strings.Count(readme(t), "\n"); lines > 70 {
		t.Errorf("the README has %d lines", lines)
	}
}

// TestReadmeLocalCommandRelays runs the README's first command, with its other output too.
func TestReadmeLocalCommandRelays(t *testing.T) {
	if !strings.Contains(readme(t), "go run ./cmd/worker local\n") {
		t.Fatal("the README does not name the command")
	}
	for _, c := range []struct{ args, want string }{
		{"worker local", "2,006 received = 2,000 submitted + 6 rejected + 0 duplicates + 0 released"},
		{"worker local --events 50 --output json", `"submitted":50,`},
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), command.Env{Args: strings.Fields(c.args), Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr})
		if status != command.ExitOK || !strings.Contains(stdout.String(), c.want) {
			t.Errorf("%s: exit %d\n%s%s", c.args, status, stdout.String(), stderr.String())
		}
	}
}

func TestWrongUsageHasItsExitStatus(t *testing.T) {
	for args, want := range map[string]int{
		"worker":                          command.ExitOK,
		"worker --help":                   command.ExitOK,
		"worker run --help":               command.ExitOK,
		"worker nonsense":                 command.ExitUsage,
		"worker run --nonsense":           command.ExitUsage,
		"worker run extra":                command.ExitUsage,
		"worker run":                      command.ExitUsage, // nothing is configured
		"worker local --events -1":        command.ExitUsage,
		"worker version --output xml":     command.ExitUsage,
		"worker publish a b":              command.ExitUsage,
		"worker publish /does/not/exist":  command.ExitUsage,
		"worker check":                    command.ExitUsage,
		"worker check --timeout -1s":      command.ExitUsage,
		"worker check --output table":     command.ExitUsage,
		"worker setup":                    command.ExitUsage,
		"worker setup --output table":     command.ExitUsage,
		"worker version":                  command.ExitOK,
		"worker local --events 5000001":   command.ExitUsage,
		"worker version --output json":    command.ExitOK,
		"worker local --nonsense=1 extra": command.ExitUsage,
	} {
		var stdout, stderr bytes.Buffer
		got := run(t.Context(), command.Env{Args: strings.Fields(args), Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr})
		if got != want {
			t.Errorf("%s: exit %d, want %d\n%s%s", args, got, want, stdout.String(), stderr.String())
		}
		if want == command.ExitUsage && stdout.Len() > 0 {
			t.Errorf("%s: prints to stdout:\n%s", args, stdout.String())
		}
	}
}

func TestEveryHelpHasAnExample(t *testing.T) {
	for _, c := range root(command.Env{}).Commands {
		if !strings.Contains(c.Description, "Example") {
			t.Errorf("worker %s --help has no example", c.Name)
		}
	}
}
