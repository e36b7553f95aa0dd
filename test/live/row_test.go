package live_test

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// row is one situation.
type row struct {
	id        string // in the names of what is created for it
	situation string
	// expected is what docs/pubsub.md says; {idle} and {lease} stand for the times of the target.
	expected string
	// unasked says why a target cannot show it; nil or "" means that it is asked.
	unasked func(target) string
	// timed rows need an embedded server with short intervals.
	timed bool
	ask   func(ctx context.Context, p *place) (answer, error)

	// These say what to check when the service behaves differently.
	section string // of docs/pubsub.md
	server  string // a file of the embedded server
	test    string // package and test
}

// answer is what a target did.
type answer struct {
	did  string
	same bool // as expected
}

func same(format string, args ...any) (answer, error) {
	return answer{fmt.Sprintf(format, args...), true}, nil
}

func differs(format string, args ...any) (answer, error) {
	return answer{fmt.Sprintf(format, args...), false}, nil
}

func judged(same bool, format string, args ...any) (answer, error) {
	return answer{fmt.Sprintf(format, args...), same}, nil
}

// verdict is what became of a row.
type verdict string

const (
	isSame   verdict = "same"
	isOther  verdict = "DIFFERS"
	notAsked verdict = "not asked"
	failed   verdict = "FAILED" // it could not be asked
	stopped  verdict = "interrupted"
)

// result is a row with its answer.
type result struct {
	row
	expected string
	verdict  verdict
	did      string // what the target did, or why that is not known
	took     time.Duration
}

// reason says why a target is not asked; "" if it is.
func (r row) reason(tg target) string {
	switch {
	case tg.hurried != r.timed && tg.hurried:
		return "asked of an embedded server with the usual intervals"
	case tg.hurried != r.timed && tg.kind == embedded:
		return "asked of an embedded server with short intervals"
	case r.unasked != nil:
		return r.unasked(tg)
	}
	return ""
}

// expectedOf fills in the times of a target.
func (r row) expectedOf(tg target) string {
	return strings.NewReplacer("{idle}", spoken(tg.streamIdle), "{lease}", spoken(tg.firstLease)).Replace(r.expected)
}

// spoken renders a time as one says it.
func spoken(d time.Duration) string {
	if d >= time.Minute {
		if d == time.Minute {
			return "a minute"
		}
		return fmt.Sprintf("%.3g minutes", d.Minutes())
	}
	return fmt.Sprintf("%.2g s", d.Seconds())
}

// unlessEmulated is the reason why the emulator cannot show a row.
func unlessEmulated(why string) func(target) string { return unless(emulated, why) }

func unless(k kind, why string) func(target) string {
	return func(tg target) string {
		if tg.kind == k {
			return why
		}
		return ""
	}
}

// either joins reasons.
func either(reasons ...func(target) string) func(target) string {
	return func(tg target) string {
		for _, reason := range reasons {
			if why := reason(tg); why != "" {
				return why
			}
		}
		return ""
	}
}

// table renders results.
func table(results []result) string {
	var b strings.Builder
	widths := [3]int{}
	for _, r := range results {
		for i, cell := range [3]string{r.situation, r.expected, r.did} {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	line := func(cells ...string) {
		for i, cell := range cells[:3] {
			b.WriteString(cell + strings.Repeat(" ", 2+max(0, widths[i]-len([]rune(cell)))))
		}
		b.WriteString(cells[3] + "\n")
	}
	line("situation", "expected", "did", "")
	for _, r := range results {
		line(r.situation, r.expected, r.did, string(r.verdict))
	}
	for _, r := range results {
		if r.verdict == isOther {
			fmt.Fprintf(&b, "\n%s:\n  docs/pubsub.md, %q; embedded server: %s; test: %s\n", r.situation, r.section, r.server, r.test)
		}
	}
	return b.String()
}
