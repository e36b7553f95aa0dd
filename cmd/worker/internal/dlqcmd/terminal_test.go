package dlqcmd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/jedib0t/go-pretty/v6/text"
)

// testTerminal is a terminal that a test reads and types on.
type testTerminal struct {
	t      *testing.T
	tty    *os.File // the program's end
	screen *os.File // the person's end

	mu    sync.Mutex
	shown bytes.Buffer
}

func newTerminal(t *testing.T) *testTerminal {
	t.Helper()
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	term := &testTerminal{t: t, tty: tty, screen: screen}
	var reading sync.WaitGroup
	reading.Go(func() {
		part := make([]byte, 4096)
		for {
			n, err := screen.Read(part)
			term.mu.Lock()
			term.shown.Write(part[:n])
			term.mu.Unlock()
			if err != nil {
				return // the other end is closed
			}
		}
	})
	t.Cleanup(func() {
		screen.WriteString("\n") // ends a question that was left open
		tty.Close()
		reading.Wait()
		screen.Close()
	})
	return term
}

func (term *testTerminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.shown.String()
}

// shows waits until something is on the screen.
func (term *testTerminal) shows(what string) {
	term.t.Helper()
	for until := time.Now().Add(2 * time.Minute); !strings.Contains(term.text(), what); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			term.t.Fatalf("%q is not shown: %q", what, term.text())
		}
	}
}

// all returns what is on the screen when the program has ended.
func (term *testTerminal) all() string {
	term.t.Helper()
	const end = "<the end>"
	if _, err := term.tty.WriteString(end); err != nil {
		term.t.Fatal(err)
	}
	term.shows(end)
	return strings.TrimSuffix(term.text(), end)
}

func (term *testTerminal) types(text string) {
	term.t.Helper()
	if _, err := term.screen.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

// onTerminal starts a command at a terminal; its result goes to a pipe.
func (h *testQueue) onTerminal(ctx context.Context, term *testTerminal, args ...string) (wait func() dlqResult) {
	env := h.environment(args...)
	var stdout bytes.Buffer
	env.Stdin, env.Stdout, env.Stderr = term.tty, &stdout, term.tty
	done := make(chan int, 1)
	go func() { done <- run(ctx, env) }()
	return func() dlqResult {
		status := <-done
		return dlqResult{status, stdout.String(), term.all()}
	}
}

func questioned(t *testing.T) *testQueue {
	t.Helper()
	h := newTestQueue(t)
	for i := range 1500 {
		h.put(deadLettered(i, goodData(i)))
	}
	h.put(deadLettered(2000, goodData(1), "dlq_reason", "oversized", "service_id", "other"), deadLettered(2001, goodData(1), "dlq_reason", "gateway_rejected"))
	return h
}

// TestAnswersToQuestion gives every answer. While the question stands, no message is
// leased.
func TestAnswersToQuestion(t *testing.T) {
	const y, n = `"failed":0,"left":1}`, ""
	for _, c := range []struct{ name, typed, result string }{
		{"yes", "y\n", y}, {"yes in full", "YES \n", y}, {"no", "n\n", n}, {"nothing", "\n", n}, {"something else", "yessir\n", n}, {"the end", "\x04", n},
	} {
		for _, args := range [][]string{{"replay", "--no-check"}, {"purge", "--backup"}, {"export", "--remove"}} {
			if args[0] != "replay" && len(c.typed) != 2 {
				continue // they ask by the same code
			}
			t.Run(args[0]+" "+c.name, func(t *testing.T) {
				t.Parallel()
				h, term := questioned(t), newTerminal(t)
				file := filepath.Join(t.TempDir(), "file")
				args := append(args, "--output", "json", "--reason", "invalid_event", "--reason", "oversized")
				question := "Replay 1,501 of 1,502 events of 2 services to projects/p/topics/telemetry-events? They are: reason=invalid_event|oversized. [y/N] "
				switch args[0] {
				case "purge":
					args = append([]string{"purge", "--backup", file}, args[2:]...)
					question = "Purge 1,501 of 1,502 events of 2 services, with a backup in " + file + "? They are: reason=invalid_event|oversized. [y/N] "
				case "export":
					args = append(args, file)
					question = "Export 1,501 of 1,502 events of 2 services, and remove them from the queue? They are: reason=invalid_event|oversized. [y/N] "
				}
				wait := h.onTerminal(t.Context(), term, args...)
				term.shows("[y/N] ")
				h.left(1502)
				term.types(c.typed)
				got := wait()
				if !strings.Contains(got.stderr, question) {
					t.Errorf("it asks otherwise: %q", got.stderr)
				}
				if got.status != 0 || !strings.Contains(got.stdout, c.result) || (c.result == "") != (got.stdout == "") {
					t.Errorf("%+v", got)
				}
				if c.result == "" {
					term.shows("Nothing was changed.")
					h.left(1502)
					h.replayed(0)
					if _, err := os.Stat(file); err == nil {
						t.Error("there is a file")
					}
					return
				}
				h.left(1)
			})
		}
	}
}

// TestNoQuestionWithoutMessages: where no message matches there is no question, and exit
// status 1.
func TestNoQuestionWithoutMessages(t *testing.T) {
	t.Parallel()
	h, term := newTestQueue(t), newTerminal(t)
	got := h.onTerminal(t.Context(), term, "replay", "--output", "json")()
	if got.status != 1 || got.stdout != `{"matched":0,"replayed":0,"failed":0,"left":0}`+"\n" || strings.Contains(got.stderr, "[y/N]") {
		t.Errorf("%+v", got)
	}
}

// TestMessagesAfterQuestionAreLeft: messages that came while the question stood are left,
// because the person has not agreed to them. Messages that another reader has leased since
// are reported.
func TestMessagesAfterQuestionAreLeft(t *testing.T) {
	t.Parallel()
	h, term := newTestQueue(t), newTerminal(t)
	for i := range 20 {
		h.put(deadLettered(i, goodData(i)))
	}
	wait := h.onTerminal(t.Context(), term, "replay", "--output", "json")
	term.shows("[y/N] ")
	h.put(deadLettered(50, goodData(50)))
	h.expect(0, `{"matched":8,"purged":8,"failed":0,"left":13}`+"\n", "purge", "--yes", "--no-backup", "--limit", "8", "--output", "json", "--until", "2026-11-20T10:00:00Z")
	term.types("y\n")
	got := wait()
	// The purge may have taken the new one.
	late := 1
	if strings.Contains(got.stdout, `"left":0`) {
		late = 0
	}
	want := fmt.Sprintf(`{"matched":%d,"replayed":%[1]d,"failed":0,"left":%d,"left_at_least":true}`, 13-late, late)
	if got.status != 0 || got.stdout != want+"\n" || !strings.Contains(got.stderr, fmt.Sprintf("%d messages are leased by another process or not yet available", 7+late)) {
		t.Errorf("%+v, want %s", got, want)
	}
	h.left(late)
}

func TestInterruptedQuestion(t *testing.T) {
	t.Parallel()
	h, term := questioned(t), newTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := h.onTerminal(ctx, term, "replay")
	term.shows("[y/N] ")
	cancel()
	if got := wait(); got.status != 1 || got.stdout != "" || !strings.Contains(got.stderr, "interrupted; nothing was changed") {
		t.Errorf("%+v", got)
	}
	h.left(1502)
}

// TestProgressBar: a terminal shows how far the reading and the replay have come, and the
// bar does not disturb the messages that are printed meanwhile.
func TestProgressBar(t *testing.T) {
	t.Parallel()
	h, term := newTestQueue(t), newTerminal(t)
	for i := range 100 {
		h.put(deadLettered(i, goodData(i)))
	}
	h.put(deadLettered(100, typoData(1)))
	wait := h.onTerminal(t.Context(), term, "replay", "--rate", "100", "--output", "json")
	term.shows("reading the queue (101/-")
	term.shows("[y/N] ")
	term.types("y\n")
	got := wait()
	if got.status != 1 || got.stdout != `{"matched":101,"replayed":100,"failed":1,"left":1}`+"\n" {
		t.Errorf("%+v", got)
	}
	// A share, a rate, and a remaining time.
	if !regexp.MustCompile(`replaying +\d+% \|.*\| \(\d+/101, \d+ events/s\) \[\d+s:\d+s\]`).MatchString(got.stderr) {
		t.Errorf("no bar: %q", got.stderr)
	}
	for line := range strings.SplitSeq(got.stderr, "\n") {
		// A carriage return follows only text that is overwritten or was cleared.
		visible := strings.TrimSuffix(line, "\r")
		visible = visible[strings.LastIndex(visible, "\r")+1:]
		if strings.Contains(visible, "worker: ") && !strings.HasPrefix(text.StripEscape(visible), "worker: ") {
			t.Errorf("the bar is in %q", line)
		}
	}
}

// TestProgressBarWithoutQuestion: without a question a slow replay counts first, so that it
// has a remaining time.
func TestProgressBarWithoutQuestion(t *testing.T) {
	t.Parallel()
	h, term := newTestQueue(t), newTerminal(t)
	for i := range 30 {
		h.put(deadLettered(i, goodData(i)))
	}
	got := h.onTerminal(t.Context(), term, "replay", "--yes", "--rate", "100", "--output", "json")()
	if got.status != 0 || got.stdout != `{"matched":30,"replayed":30,"failed":0,"left":0}`+"\n" || !strings.Contains(got.stderr, "/30, ") {
		t.Errorf("%+v", got)
	}
}

// TestColours: the output has colours on a terminal, unless a variable forbids them. The
// columns are as wide as without.
func TestColours(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	h.put(deadLettered(1, typoData(1)), deadLettered(2, "x\x1b[31m", "dlq_reason", "gateway_rejected", "dlq_detail", "ä\x1b[31m"))
	for _, args := range [][]string{{"stats"}, {"list"}, {"show", "m1"}} {
		plain := h.expect(0, "", args...).stdout
		for vars, coloured := range map[string]bool{"TERM=xterm": true, "TERM=xterm NO_COLOR=1": false, "TERM=xterm NO_COLOR=": true, "TERM=dumb": false} {
			term := newTerminal(t)
			env := h.environment(args...)
			env.Vars = append(env.Vars, strings.Fields(vars)...)
			env.Stdout = term.tty
			if status := run(t.Context(), env); status != 0 {
				t.Errorf("status %d", status)
			}
			shown := strings.ReplaceAll(term.all(), "\r\n", "\n")
			if got := strings.Contains(shown, "\x1b["); got != coloured {
				t.Errorf("%v with %s: coloured is %v: %q", args, vars, got, shown)
			}
			if args[0] == "show" && coloured && !strings.Contains(shown, "\x1b[31;1m  \"typo\": \"[hidden]\",   <── here\x1b[0m") {
				t.Errorf("nothing is pointed at: %q", shown)
			}
			if got := sorted(text.StripEscape(shown)); got != sorted(plain) {
				t.Errorf("%v with %s:\n%s\nwant\n%s", args, vars, got, plain)
			}
		}
	}
}

// sorted sorts lines, which come in any order.
func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
