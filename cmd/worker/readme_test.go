package main

import (
	"bytes"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/config"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadmeVariables holds the table of variables against the configuration:
// each that it names exists, with the default that it says.
func TestReadmeVariables(t *testing.T) {
	defaults := map[string]string{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[config.Config]()) {
		defaults[field.Tag.Get("env")] = field.Tag.Get("envDefault")
	}
	rows := regexp.MustCompile("(?m)^\\| (`[A-Z].*?) \\| (.*?) \\|").FindAllStringSubmatch(readme(t), -1)
	if len(rows) < 20 {
		t.Fatalf("found %d rows", len(rows))
	}
	name := regexp.MustCompile("`([A-Z…][A-Z_0-9]+)`")
	value := regexp.MustCompile("`([^`]+)`")
	for _, row := range rows {
		var first string
		said := value.FindAllStringSubmatch(row[2], -1)
		for i, n := range name.FindAllStringSubmatch(row[1], -1) {
			variable := n[1]
			if rest, short := strings.CutPrefix(variable, "…"); short {
				variable = first[:strings.LastIndex(first, "_")] + rest
			} else {
				first = variable
			}
			want, ok := defaults[variable]
			if !ok {
				t.Errorf("the README names %s, which is no setting", variable)
				continue
			}
			if i < len(said) && !strings.HasPrefix(said[i][1], "run") && !strings.Contains(row[2], "services.yaml") && said[i][1] != want {
				t.Errorf("the README says that %s is %q by default; it is %q", variable, said[i][1], want)
			}
		}
	}
}

// TestReadmeServices reads the README's services.yaml.
func TestReadmeServices(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(readme(t))
	if block == nil {
		t.Fatal("no example")
	}
	services, err := config.ParseServices([]byte(block[1]))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := services.Lookup("sams"); !ok {
		t.Error("the example does not list sams")
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
