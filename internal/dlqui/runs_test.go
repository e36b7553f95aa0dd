package dlqui

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// untilStopped runs each command until its context ends, and records which it ran.
type untilStopped struct{ ran []string }

func (u *untilStopped) Run(ctx context.Context, args []string, _, _ io.Writer) int {
	u.ran = append(u.ran, args[0])
	<-ctx.Done()
	return 1
}

// TestOneCommandRunsForAnOperation: a command that asks for receipts gives way to a
// person's command, and no other one does.
func TestOneCommandRunsForAnOperation(t *testing.T) {
	for _, c := range []struct {
		name         string
		first, other kind
		want         error
		ran          []string
	}{
		{"a person's after a person's", applying, restoring, errBusy, []string{"applying"}},
		{"a question after a person's", applying, asking, errBusy, []string{"applying"}},
		{"a question after a question", asking, asking, errBusy, []string{string(asking)}},
		{"a person's after a question", asking, applying, nil, []string{string(asking), "applying"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				commands := &untilStopped{}
				r := newRuns(commands, newBackground())
				defer r.background.close()
				if err := r.start(t.Context(), "a", c.first, []string{string(c.first)}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				err := r.start(t.Context(), "a", c.other, []string{string(c.other)})
				synctest.Wait()
				if !errors.Is(err, c.want) || !slices.Equal(commands.ran, c.ran) {
					t.Errorf("%v, ran %v", err, commands.ran)
				}
				if err := r.start(t.Context(), "b", applying, []string{"b"}); err != nil {
					t.Errorf("another operation: %v", err)
				}
			})
		})
	}
}

func TestStoppedCommandMakesRoomForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRuns(&untilStopped{}, newBackground())
		r.stop("a") // nothing runs
		for range 2 {
			if err := r.start(t.Context(), "a", applying, []string{"apply", "x", "--output", "json"}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if st := r.of("a").snapshot(); st.Phase != runActive || st.Command != "worker dlq apply x" {
				t.Errorf("%+v", st)
			}
			r.stop("a")
			synctest.Wait()
			if st := r.of("a").snapshot(); st.Phase != runStopped {
				t.Errorf("%+v", st)
			}
		}
		r.background.close()
		if err := r.start(t.Context(), "a", applying, []string{"apply"}); !errors.Is(err, errClosing) {
			t.Errorf("after close: %v", err)
		}
	})
}

func TestReceiptsAreAskedForAfterAWhile(t *testing.T) {
	ended := make(chan struct{})
	close(ended)
	began := time.Now()
	for _, c := range []struct {
		name  string
		last  *run
		after time.Duration
		want  bool
	}{
		{"nothing ran", nil, 0, true},
		{"something runs", &run{kind: applying, began: began, done: make(chan struct{})}, time.Hour, false},
		{"a question runs", &run{kind: asking, began: began, done: make(chan struct{})}, time.Hour, false},
		{"the plan was applied just now", &run{kind: applying, began: began, done: ended}, 0, true},
		{"asked just now", &run{kind: asking, began: began, done: ended}, time.Second, false},
		{"asked a while ago", &run{kind: asking, began: began, done: ended}, 3 * time.Second, true},
	} {
		if got := c.last.allowsAsking(began.Add(c.after), 3*time.Second); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestPhaseOfARunThatEnded(t *testing.T) {
	for end, want := range map[runEnd]runPhase{
		{0, false}: runEnded, {1, false}: runFailed, {1, true}: runStopped, {0, true}: runStopped,
	} {
		if got := end.phase(); got != want {
			t.Errorf("%+v: %s, want %s", end, got, want)
		}
	}
}

func TestLinesOmitAuditRecords(t *testing.T) {
	got := linesOf("worker: a\n\n{\"audit\":true}\nworker dlq: b\n")
	if diff := cmp.Diff([]string{"a", "worker dlq: b"}, got); diff != "" {
		t.Error(diff)
	}
	if linesOf("") != nil {
		t.Error("lines of nothing")
	}
}

// TestSaidIsBounded: a command that writes for ever must not fill the memory.
func TestSaidIsBounded(t *testing.T) {
	r := &run{}
	part := []byte(strings.Repeat("x", maxSaid-1))
	for range 3 {
		if n, err := (said{r}).Write(part); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if r.stderr.Len() != maxSaid {
		t.Errorf("%d bytes are kept", r.stderr.Len())
	}
}
