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

// The runbook is run: every command in a console block of docs/oncall.md and
// docs/oncall/ is given to a shell, in a world where what the page is about has
// happened, and its output must be the page's. Times, durations, ports and rates
// of the run itself do not count.
//
//	go test ./cmd/worker -run TestRunbookCommands -update    # writes the output into the pages

var update = flag.Bool("update", false, "write what the commands print into the runbook")

// actAsWorker makes the test binary the worker itself: as built, but that it
// waits less long for the end of a queue, and before it takes an event for bad.
const actAsWorker = "TELEMETRY_RELAY_TEST_IS_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(actAsWorker) == "1" {
		rejectSpan, pullWait = "2s", "1s"
		main()
	}
	flag.Parse()
	testenv.RunAtOnce("6") // they mostly wait for commands that wait for Pub/Sub
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
	letters := night(t)
	for _, page := range pages(t) {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, letters)
			if prepare := situations[name]; prepare != nil {
				prepare(w)
			}
			old, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			text := w.perform(string(old))
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

// auditRecords are on stderr here, which is no terminal. A person at a terminal does
// not see them.
var auditRecords = regexp.MustCompile(`(?m)^\{"time":.*"audit":true.*\n`)

var (
	blocks  = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")
	offline = regexp.MustCompile(`^(export [A-Z_]+=|gcloud |#)`)
)

// perform runs a page's commands and returns the page with what they print,
// wherever that has changed.
func (w *world) perform(page string) string {
	return blocks.ReplaceAllStringFunc(page, func(block string) string {
		parts := blocks.FindStringSubmatch(block)
		switch kind, body := parts[1], parts[2]; kind {
		case "console":
			return "```console\n" + w.session(body) + "```"
		case "json": // what the worker of this page logs
			return "```json\n" + w.logged(body) + "```"
		case "yaml":
			if _, err := servicesyaml.Parse([]byte(body)); err != nil {
				w.t.Errorf("%v in\n%s", err, body)
			}
			w.must(os.WriteFile(filepath.Join(w.dir, "services.yaml"), []byte(body), 0o600))
		case "sh": // needs the cloud, and so cannot be run
			for line := range strings.Lines(body) {
				if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, " ") && !offline.MatchString(line) {
					w.t.Errorf("a command that is not run: %sput it into a console block", line)
				}
			}
		default:
			w.t.Errorf("a block of the kind %q; expected console, json, yaml or sh", kind)
		}
		return block
	})
}

// session runs the commands of a block.
func (w *world) session(body string) string {
	var out strings.Builder
	lines := strings.SplitAfter(body, "\n")
	for i := 0; i < len(lines); {
		first, ok := strings.CutPrefix(lines[i], "$ ")
		if !ok {
			if lines[i] != "" {
				w.t.Errorf("a console block begins with %q, expected a command after a $", lines[i])
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
		got := w.shell(command)
		if alike(command, want.String(), got) {
			got = want.String()
		} else if !*update {
			w.t.Errorf("$ %sprints\n%swhere the page has\n%s", command, got, want.String())
		}
		out.WriteString(got)
	}
	return out.String()
}

// shell runs a command as a person does, who answers yes to a question, and sees both
// outputs and the status if it is not 0.
func (w *world) shell(command string) string {
	screen, tty, err := pty.Open()
	w.must(err)
	defer screen.Close()
	defer tty.Close()
	_, err = screen.WriteString("y\n") // the answer to a question, if there is one
	w.must(err)
	cmd := exec.CommandContext(w.t.Context(), "bash", "-c", command)
	cmd.Dir, cmd.Env, cmd.Stdin = w.dir, w.environ, tty
	out, err := cmd.CombinedOutput()
	text := strings.ReplaceAll(w.names.Replace(string(out)), "[y/N] ", "[y/N] y\n")
	text = auditRecords.ReplaceAllString(text, "")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if err != nil {
		text += fmt.Sprintf("[%v]\n", err)
	}
	return text
}

// logged makes sure that the page's worker has logged each line, and returns the
// lines with what it logs instead.
func (w *world) logged(body string) string {
	var out strings.Builder
	for line := range strings.Lines(body) {
		// A line is known by its message, and the summary of a run by its beginning.
		mark := regexp.MustCompile(`"message":"[^"]*"|^{"received":`).FindString(line)
		if mark == "" || w.worker == nil {
			w.t.Errorf("no worker can log %s", line)
			continue
		}
		var got string
		w.eventually("the worker logs "+line, func() bool {
			for said := range strings.Lines(w.names.Replace(w.worker.String())) {
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
			w.t.Errorf("the worker logs\n%swhere the page has\n%s", got, line)
		}
		out.WriteString(got)
	}
	return out.String()
}

// varies is what differs from run to run. The letters' own times are of a day
// that stays.
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
	// How often something was tried in vain so far.
	{regexp.MustCompile(`((result="error"|code="Unavailable"|code="PermissionDenied")} )[1-9]\d*`), "${1}N"},
	{regexp.MustCompile(`("ids_sha256":)"[0-9a-f]{64}"`), `${1}"SUM"`},
	// The address of the queue's pages, which works once.
	{regexp.MustCompile(`start\?token=[A-Z2-7]{26}`), "start?token=TOKEN"},
	// The message that stands for others with the same cause.
	{regexp.MustCompile(`worker: (message )?[0-9a-f-]+ is left:`), "worker: ID is left:"},
	// Pub/Sub's ids, and the event that a dry run takes as its sample.
	{regexp.MustCompile(`\b[1-9]\d{15}\b`), "ID"},
	{regexp.MustCompile(`("id": )"019aa000-[-0-9]+"`), `${1}"ID"`},
}

const nightDay = "2026-11-20T0"

// same makes two outputs equal that differ only in what varies.
func same(text string) string {
	for _, v := range varies {
		text = v.what.ReplaceAllStringFunc(text, func(found string) string {
			if strings.HasPrefix(found, nightDay) {
				return found
			}
			return v.what.ReplaceAllString(found, v.is)
		})
	}
	return text
}

// alike compares what a command prints. Pub/Sub gives letters in any order, so
// the lines of which each is about a letter may come in any.
func alike(command, a, b string) bool {
	sorted := func(text string) string {
		lines := strings.SplitAfter(same(text), "\n")
		var at []int
		var letters []string
		for i, line := range lines {
			if strings.HasPrefix(command, "worker dlq list") || strings.Contains(line, " is left: ") {
				at, letters = append(at, i), append(letters, line)
			}
		}
		slices.Sort(letters)
		for i, line := range letters {
			lines[at[i]] = line
		}
		return strings.Join(lines, "")
	}
	return sorted(a) == sorted(b)
}

// eventually waits until something is the case.
func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	const patience = 2 * time.Minute
	for until := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			w.t.Fatalf("still not after %v: %s", patience, what)
		}
	}
}

// TestMaskKeepsContent makes sure that what counts is not masked.
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
		"3 letters":            "4 letters",
		`{result="error"} 1`:   `{result="error"} 0`,
	} {
		if same(a) == same(b) {
			t.Errorf("%q and %q count as the same", a, b)
		}
	}
}
