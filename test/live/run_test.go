package live_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// report is what a run has found and left.
type report struct {
	results []result
	left    []leftover
}

// place is where one row works.
type place struct {
	target
	*estate
	row string // its id

	mu sync.Mutex // guards n
	n  int        // of resources
}

// id returns an id for another resource.
func (p *place) id() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	return fmt.Sprintf("%s-%d", p.row, p.n)
}

// run asks a target all rows at once, since they mostly wait, and deletes what they
// created, also after ctx has ended. It tells out what it does.
func run(ctx context.Context, tg target, rows []row, out io.Writer) (rep report, err error) {
	c, err := connect(context.WithoutCancel(ctx), tg.options()...)
	if err != nil {
		return report{}, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	e := newEstate(c, tg.project)
	out = &lines{w: out}
	fmt.Fprintf(out, "Asking %v. Everything created has %s%s in its name, and the label %s=%s.\n", tg, prefix, e.run, label, e.run)
	defer func() { rep.left = e.clean(ctx, out) }()

	rep.results = make([]result, len(rows))
	var all sync.WaitGroup
	for i, r := range rows {
		all.Go(func() {
			rep.results[i] = askOne(ctx, tg, e, r)
			if got := rep.results[i]; got.verdict != notAsked {
				fmt.Fprintf(out, "%s: %s (%v)\n", got.situation, got.verdict, got.took.Round(100*time.Millisecond))
			}
		})
	}
	all.Wait()
	return rep, nil
}

// askOne asks a target one row.
func askOne(ctx context.Context, tg target, e *estate, r row) (res result) {
	res = result{row: r, expected: r.expectedOf(tg)}
	if why := r.reason(tg); why != "" {
		res.verdict, res.did = notAsked, why
		return res
	}
	// A panic must not keep the rest from being deleted.
	defer func() {
		if p := recover(); p != nil {
			res.verdict, res.did = failed, fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	began := time.Now()
	got, err := r.ask(ctx, &place{target: tg, estate: e, row: r.id})
	res.took = time.Since(began)
	switch {
	case err == nil && got.same:
		res.verdict, res.did = isSame, got.did
	case ctx.Err() != nil: // which may look like an answer
		res.verdict, res.did = stopped, context.Cause(ctx).Error()
	case err == nil:
		res.verdict, res.did = isOther, got.did
	default:
		res.verdict, res.did = failed, strings.Join(strings.Fields(err.Error()), " ")
	}
	return res
}

// clean deletes everything, and tells how to delete what is left.
func (e *estate) clean(ctx context.Context, out io.Writer) []leftover {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	left := e.deleteAll(ctx)
	fmt.Fprintf(out, "Deleted %d of the %d topics, subscriptions and snapshots.\n", len(e.made)-len(left), len(e.made))
	for _, l := range left {
		fmt.Fprintf(out, "NOT DELETED: %s: %v. Delete it with:\n  %s\n", l.name, l.err, l.command())
	}
	return left
}

// lines lets several goroutines write.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// verify fails the test for everything that is not as it should be.
func (rep report) verify(t *testing.T) {
	t.Helper()
	for _, r := range rep.results {
		if r.verdict == isOther || r.verdict == failed || r.verdict == stopped {
			t.Errorf("%s: %s: %s", r.situation, r.verdict, r.did)
		}
	}
	for _, l := range rep.left {
		t.Errorf("%s is left: %v", l.name, l.err)
	}
	if !slices.ContainsFunc(rep.results, func(r result) bool { return r.verdict == isSame }) {
		t.Error("nothing was asked")
	}
}

// filterRows returns the rows whose names contain a text.
func filterRows(all []row, text string) []row {
	return slices.DeleteFunc(slices.Clone(all), func(r row) bool { return !strings.Contains(r.situation, text) })
}

// untilStopped returns a context that ends with Ctrl-C and the like, and so long before the test's
// own deadline that there is time to delete everything.
func untilStopped(t *testing.T, needs time.Duration) context.Context {
	t.Helper()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	t.Cleanup(stop)
	deadline, bounded := t.Deadline()
	if !bounded {
		return ctx
	}
	if time.Until(deadline) < needs+cleanupTime {
		t.Fatalf("it may take %v: run it with -timeout %v", needs, (needs + 2*cleanupTime).Round(time.Minute))
	}
	ctx, cancel := context.WithDeadlineCause(ctx, deadline.Add(-cleanupTime), errors.New("the test's time is over; see -timeout"))
	t.Cleanup(cancel)
	return ctx
}

// terminal returns where a person reads while the test runs. Without -v go test shows
// what a test prints at its end, and nothing if it passes.
func terminal(t *testing.T) io.Writer {
	t.Helper()
	if testing.Verbose() {
		return os.Stdout
	}
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		return os.Stdout
	}
	t.Cleanup(func() { _ = tty.Close() })
	return tty
}
