package breaker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/breaker"
)

// A step is one observation and what the breaker makes of it.
type step struct {
	do   string // the observation
	want string // the state after it, and what was returned
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// TestBreakerHistories is the breaker's state machine: each row is a history.
func TestBreakerHistories(t *testing.T) {
	for _, row := range []struct {
		name  string
		steps []step
	}{
		{"a good start", []step{
			{"probe?", "open (starting): ask the gateway"},
			{"accepted", "closed: closed for the first time"},
			{"probe?", "closed: no probe"},
			{"recorded", "closed: nothing"},
		}},
		{"events that wait do not make the first acceptance a trial", []step{
			{"accepted, events wait", "closed: closed for the first time"},
		}},
		{"SAMS is down at the start", []step{
			{"fail sams", "open (sams): changed, next probe at level 0"},
			{"fail sams", "open (sams): next probe at level 1"},
			{"fail gateway", "open (gateway): changed, next probe at level 2"},
			{"accepted", "closed: closed again"},
		}},
		{"two failures in a row are not an outage", []step{
			{"accepted", "closed: closed for the first time"},
			{"stream failed", "closed: go on"},
			{"stream failed", "closed: go on"},
			{"recorded", "closed: nothing"},
			{"stream failed", "closed: go on"},
			{"stream failed", "closed: go on"},
			{"stream failed", "closed: fail"},
		}},
		{"after an outage the first streams decide", []step{
			{"accepted", "closed: closed for the first time"},
			{"fail gateway", "open (gateway): changed, next probe at level 0"},
			{"accepted, events wait", "half-open: to be tried"},
			{"recorded", "closed: nothing"},
		}},
		{"one failure opens a half-open breaker, and the backoff goes on", []step{
			{"fail gateway", "open (gateway): changed, next probe at level 0"},
			{"fail gateway", "open (gateway): next probe at level 1"},
			{"accepted, events wait", "half-open: to be tried"},
			{"stream failed", "half-open: fail"},
			{"fail gateway", "open (gateway): changed, next probe at level 1"},
			{"fail gateway", "open (gateway): next probe at level 2"},
		}},
		{"nothing left to try closes a half-open breaker", []step{
			{"fail gateway", "open (gateway): changed, next probe at level 0"},
			{"accepted, events wait", "half-open: to be tried"},
			{"passed", "closed: yes"},
			{"passed", "closed: no"},
		}},
		{"a silent gateway proves its recovery with events alone", []step{
			{"accepted", "closed: closed for the first time"},
			{"fail recording", "open (recording): changed, next probe at level 0"},
			{"probe?", "open (recording): no probe"},
			{"wait", "open (recording): nothing"},
			{"probe?", "open (recording): record events"},
			{"accepted", "open (recording): nothing"},
			{"recorded", "closed: closed again"},
		}},
		{"an outage of SAMS in between does not hide that nothing was recorded", []step{
			{"fail recording", "open (recording): changed, next probe at level 0"},
			{"fail sams", "open (sams): changed, next probe at level 1"},
			{"accepted", "open (recording): nothing"},
			{"probe?", "open (recording): record events"},
			{"recorded", "closed: closed again"},
			{"fail sams", "open (sams): changed, next probe at level 0"},
			{"accepted", "closed: closed again"},
		}},
		{"events recorded late close an open breaker", []step{
			{"fail gateway", "open (gateway): changed, next probe at level 0"},
			{"recorded", "closed: closed again"},
		}},
		{"what cannot be probed yet is put off", []step{
			{"fail recording", "open (recording): changed, next probe at level 0"},
			{"wait", "open (recording): nothing"},
			{"postpone", "open (recording): next probe at level 0"},
			{"probe?", "open (recording): no probe"},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			now, level := start, -1
			b := breaker.New(now, func(at int, _ time.Duration) time.Duration {
				level = at
				return time.Second
			})
			for i, s := range row.steps {
				if got := observe(b, s.do, &now, &level); got != s.want {
					t.Fatalf("step %d, %s: %s, want %s", i+1, s.do, got, s.want)
				}
			}
		})
	}
}

// observe does what a step says, and describes the breaker after it.
func observe(b *breaker.Breaker, what string, now *time.Time, level *int) string {
	returned := "nothing"
	transition := func(t breaker.Transition) string {
		return [...]string{"nothing", "closed for the first time", "closed again", "to be tried"}[t]
	}
	switch {
	case what == "probe?":
		returned = [...]string{"no probe", "ask the gateway", "record events"}[b.Probe(*now)]
	case what == "wait":
		*now = now.Add(time.Second)
	case what == "recorded":
		returned = transition(b.Recorded())
	case strings.HasPrefix(what, "accepted"):
		returned = transition(b.Accepted(strings.HasSuffix(what, "events wait"), *now))
	case what == "stream failed":
		returned = "go on"
		if b.StreamFailed() {
			returned = "fail"
		}
	case what == "passed":
		returned = "no"
		if b.Passed() {
			returned = "yes"
		}
	case what == "postpone":
		b.Postpone(*now)
		returned = fmt.Sprintf("next probe at level %d", *level)
	case strings.HasPrefix(what, "fail "):
		returned = ""
		if b.Fail(breaker.Cause(strings.TrimPrefix(what, "fail ")), "", 0, *now) {
			returned = "changed, "
		}
		returned += fmt.Sprintf("next probe at level %d", *level)
	default:
		panic("no such step: " + what)
	}
	state := b.State().String()
	if b.Open() {
		state += " (" + string(b.Cause()) + ")"
	}
	return fmt.Sprintf("%s: %s", state, returned)
}

// TestAWrongAddressIsKnownByThreeMisfits: one answer of a load balancer is none.
func TestAWrongAddressIsKnownByThreeMisfits(t *testing.T) {
	b := breaker.New(start, nil)
	got := []bool{b.Misfit(), b.Misfit()}
	b.Fits()
	got = append(got, b.Misfit(), b.Misfit(), b.Misfit())
	if want := fmt.Sprint([]bool{false, false, false, false, true}); fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestSinceIsTheBeginningOfTheOutage: a trial that failed is the same outage only
// for the backoff; the log counts from when the breaker opened last.
func TestSinceIsTheBeginningOfTheOutage(t *testing.T) {
	b := breaker.New(start, func(int, time.Duration) time.Duration { return 0 })
	if !b.Starting() || !b.Since().Equal(start) {
		t.Error("a new breaker is not open since the run began")
	}
	b.Accepted(false, start)
	b.Fail(breaker.Gateway, "connection refused", 0, start.Add(time.Minute))
	b.Fail(breaker.SAMS, "", 0, start.Add(2*time.Minute))
	if want := start.Add(time.Minute); !b.Since().Equal(want) {
		t.Errorf("since %v, want %v", b.Since(), want)
	}
	if got := b.Reason(); got != "SAMS gives no access token" {
		t.Error(got)
	}
	b.Fail(breaker.Gateway, "connection refused", 0, start)
	if got := b.Reason(); got != "the gateway is not available: connection refused" {
		t.Error(got)
	}
}
