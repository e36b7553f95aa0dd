package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// The commands of the runbook are run: a shell runs every command in a console block of
// docs/oncall.md and docs/oncall/, in the situation that the page describes. The output must
// be that of the page, except for times, durations, ports and rates of the run itself.
//
//	go test ./cmd/worker -run TestRunbookCommands -update    # writes the output into the pages

var update = flag.Bool("update", false, "write what the commands print into the runbook")

// actAsWorker makes the test binary act as the worker. It differs from a release only in
// shorter waits: for the end of a queue, and before the verdict on an event.
const actAsWorker = "TELEMETRY_RELAY_TEST_IS_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(actAsWorker) == "1" {
		rejectSpan, pullWait = "2s", "1s"
		main()
	}
	flag.Parse()
	testenv.RunAtOnce("6") // the tests mostly wait for commands that wait for Pub/Sub
	os.Exit(m.Run())
}

const runbookDir = "../../docs"

// pages returns the runbook's files.
func pages(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(runbookDir, "oncall", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	return append(files, filepath.Join(runbookDir, "oncall.md"))
}

func TestRunbookCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs programs of its own")
	}
	for _, tool := range []string{"bash", "curl", "jq"} {
		switch _, err := exec.LookPath(tool); {
		case err != nil && os.Getenv(emulator.RequireVariable) == "1":
			t.Fatalf("the runbook's commands need %s: %v", tool, err)
		case err != nil:
			t.Skipf("the runbook's commands need %s: %v", tool, err)
		}
	}
	messages := exampleQueue(t)
	for _, page := range pages(t) {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := newRunbookEnv(t, messages)
			if prepare := situations[name]; prepare != nil {
				prepare(env)
			}
			old, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			text := env.perform(string(old))
			switch {
			case text == string(old):
			case *update:
				if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("%s is not what its commands print today; see what has changed by: go test ./cmd/worker -run TestRunbookCommands -update; git diff docs", page)
			}
		})
	}
}

// auditRecords matches the audit records. They are written to stderr here because it is no
// terminal. The pages leave them out, because a person at a terminal does not see them.
var auditRecords = regexp.MustCompile(`(?m)^\{"time":.*"audit":true.*\n`)

var (
	blocks  = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")
	offline = regexp.MustCompile(`^(export [A-Z_]+=|gcloud |#)`)
)

// perform runs a page's commands, and returns the page with their present output.
func (env *docEnv) perform(page string) string {
	return blocks.ReplaceAllStringFunc(page, func(block string) string {
		parts := blocks.FindStringSubmatch(block)
		switch kind, body := parts[1], parts[2]; kind {
		case "console":
			return "```console\n" + env.session(body) + "```"
		case "json": // lines that the worker of this page logs
			return "```json\n" + env.logged(body) + "```"
		case "yaml":
			if _, err := servicesyaml.Parse([]byte(body)); err != nil {
				env.t.Errorf("%v in\n%s", err, body)
			}
			env.must(os.WriteFile(filepath.Join(env.dir, "services.yaml"), []byte(body), 0o600))
		case "sh": // needs the cloud, and so cannot be run
			for line := range strings.Lines(body) {
				if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, " ") && !offline.MatchString(line) {
					env.t.Errorf("a command that is not run: %sput it into a console block", line)
				}
			}
		default:
			env.t.Errorf("a block of the kind %q; expected console, json, yaml or sh", kind)
		}
		return block
	})
}

// session runs the commands of a block.
func (env *docEnv) session(body string) string {
	var out strings.Builder
	lines := strings.SplitAfter(body, "\n")
	for i := 0; i < len(lines); {
		first, ok := strings.CutPrefix(lines[i], "$ ")
		if !ok {
			if lines[i] != "" {
				env.t.Errorf("a console block begins with %q, expected a command after a $", lines[i])
			}
			i++
			continue
		}
		out.WriteString(lines[i])
		command := first
		for i++; strings.HasSuffix(command, "\\\n") && i < len(lines); i++ {
			out.WriteString(lines[i])
			command += lines[i]
		}
		var want strings.Builder
		for ; i < len(lines) && !strings.HasPrefix(lines[i], "$ "); i++ {
			want.WriteString(lines[i])
		}
		got := env.shell(command)
		if alike(command, want.String(), got) {
			got = want.String()
		} else if !*update {
			env.t.Errorf("$ %sprints\n%swhere the page has\n%s", command, got, want.String())
		}
		out.WriteString(got)
	}
	return out.String()
}

// shell runs a command as a person would who answers yes to questions. It returns stdout and
// stderr, and the exit status if it is not 0.
func (env *docEnv) shell(command string) string {
	screen, tty, err := pty.Open()
	env.must(err)
	defer screen.Close()
	defer tty.Close()
	_, err = screen.WriteString("y\n") // the answer to a question, if there is one
	env.must(err)
	cmd := exec.CommandContext(env.t.Context(), "bash", "-c", command)
	cmd.Dir, cmd.Env, cmd.Stdin = env.dir, env.environ, tty
	out, err := cmd.CombinedOutput()
	text := strings.ReplaceAll(env.names.Replace(string(out)), "[y/N] ", "[y/N] y\n")
	text = auditRecords.ReplaceAllString(text, "")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if err != nil {
		text += fmt.Sprintf("[%v]\n", err)
	}
	return text
}

// logged requires that the page's worker has logged each line, and returns the lines as the
// worker logs them now.
func (env *docEnv) logged(body string) string {
	var out strings.Builder
	for line := range strings.Lines(body) {
		// A line is known by its message, and the summary of a run by its beginning.
		mark := regexp.MustCompile(`"message":"[^"]*"|^{"received":`).FindString(line)
		if mark == "" || env.worker == nil {
			env.t.Errorf("no worker can log %s", line)
			continue
		}
		var got string
		env.eventually("the worker logs "+line, func() bool {
			for said := range strings.Lines(env.names.Replace(env.worker.String())) {
				if strings.Contains(said, mark) && strings.HasSuffix(said, "\n") {
					got = said
					return true
				}
			}
			return false
		})
		if same(got) == same(line) {
			got = line
		} else if !*update {
			env.t.Errorf("the worker logs\n%swhere the page has\n%s", got, line)
		}
		out.WriteString(got)
	}
	return out.String()
}

// varies matches the parts of an output that differ from run to run. The times of the
// messages themselves are on exampleDay, and do not differ.
var varies = []struct {
	what *regexp.Regexp
	is   string
}{
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`\b(\d+h)?(\d+m)?\d+(\.\d+)?(ms|µs|s)\b`), "DURATION"},
	{regexp.MustCompile(`("duration_seconds":)[0-9.]+`), "${1}N"},
	{regexp.MustCompile(`(_seconds )[0-9.e+]+`), "${1}N"},
	{regexp.MustCompile(`("(in_flight|batches|empty_pulls)":)\d+`), "${1}N"},
	{regexp.MustCompile(` *\b\d+ (s|min|h|d) ago *`), " AGE "},
	{regexp.MustCompile(`[▁▂▃▄▅▆▇█·]{24}`), "SPARKLINE"},
	{regexp.MustCompile(`SERVICE +FIRST +LAST +CAME BACK`), "SERVICE FIRST LAST CAME BACK"}, // as wide as the ages
	{regexp.MustCompile(`\b20\d{6}T\d{6}Z-[a-z2-7]{6}\b`), "REPLAY"},
	// The number of failed tries so far.
	{regexp.MustCompile(`((result="error"|code="Unavailable"|code="PermissionDenied")} )[1-9]\d*`), "${1}N"},
	{regexp.MustCompile(`("ids_sha256":)"[0-9a-f]{64}"`), `${1}"SUM"`},
	// The address of the queue's pages, which works once.
	{regexp.MustCompile(`start\?token=[A-Z2-7]{26}`), "start?token=TOKEN"},
	// The message that is named as an example of others with the same cause.
	{regexp.MustCompile(`worker: (message )?[0-9a-f-]+ is left:`), "worker: ID is left:"},
	// Pub/Sub's ids, and the event that a dry run takes as its sample.
	{regexp.MustCompile(`\b[1-9]\d{15}\b`), "ID"},
	{regexp.MustCompile(`("id": )"019aa000-[-0-9]+"`), `${1}"ID"`},
}

// exampleDay begins the times of the messages in the example queue.
const exampleDay = "2026-11-20T0"

// same replaces the parts that vary, so that outputs that differ in nothing else are equal.
func same(text string) string {
	for _, v := range varies {
		text = v.what.ReplaceAllStringFunc(text, func(found string) string {
			if strings.HasPrefix(found, exampleDay) {
				return found
			}
			return v.what.ReplaceAllString(found, v.is)
		})
	}
	return text
}

// alike compares two outputs of a command. Pub/Sub delivers messages in any order, so that
// lines that are each about one message may come in any order.
func alike(command, a, b string) bool {
	sorted := func(text string) string {
		lines := strings.SplitAfter(same(text), "\n")
		var at []int
		var rows []string
		for i, line := range lines {
			if strings.HasPrefix(command, "worker dlq list") || strings.Contains(line, " is left: ") {
				at, rows = append(at, i), append(rows, line)
			}
		}
		slices.Sort(rows)
		for i, line := range rows {
			lines[at[i]] = line
		}
		return strings.Join(lines, "")
	}
	return sorted(a) == sorted(b)
}

// eventually waits until is returns true.
func (env *docEnv) eventually(what string, is func() bool) {
	env.t.Helper()
	const patience = 2 * time.Minute
	for until := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			env.t.Fatalf("still not after %v: %s", patience, what)
		}
	}
}

// TestMaskKeepsContent: same replaces the parts that vary, and no others.
func TestMaskKeepsContent(t *testing.T) {
	for a, b := range map[string]string{
		`"time":"2026-11-22T23:15:00.5Z","matched":3`: `"time":"2026-11-23T00:15:00.71Z","matched":3`,
		"dial tcp 127.0.0.1:4711: refused":            "dial tcp 127.0.0.1:80: refused",
		"took 1.5s":                                   "took 300ms",
		"good for 59m57s":                             "good for 1h0m0s",
	} {
		if same(a) != same(b) {
			t.Errorf("%q and %q differ", same(a), same(b))
		}
	}
	for a, b := range map[string]string{
		"2026-11-20T02:00:00Z": "2026-11-20T02:00:01Z",
		`"matched":3`:          `"matched":4`,
		"3 messages":           "4 messages",
		`{result="error"} 1`:   `{result="error"} 0`,
	} {
		if same(a) == same(b) {
			t.Errorf("%q and %q count as the same", a, b)
		}
	}
}
