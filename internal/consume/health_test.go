package consume

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestHealthFollowsStreams plays the life of two streams. Each row is a story; a step
// happens at a second.
func TestHealthFollowsStreams(t *testing.T) {
	var (
		denied      = status.Error(codes.PermissionDenied, "no")
		missing     = status.Error(codes.NotFound, "no")
		unavailable = status.Error(codes.Unavailable, "unavailable")
		byEnd       = errors.New("the stream has ended")
	)
	type step struct {
		second int
		what   string // opened, answered, ended, end, begin
		stream int
		err    error
	}
	for _, c := range []struct {
		name    string
		steps   []step
		at      int // second of the snapshot
		open    int
		none    int // since which second no stream is open; -1 if one is, or none is wanted
		refused int // at which second receiving ends; -1 if it does not
	}{
		{"nothing has happened", nil, 5, 0, 0, -1},
		{"an answer shows that a stream is open", []step{{1, "opened", 0, nil}, {1, "answered", 0, nil}}, 1, 1, -1, -1},
		{"without an answer it must last a while", []step{{1, "opened", 0, nil}}, 2, 0, 0, -1},
		{"it has lasted", []step{{1, "opened", 0, nil}}, 3, 1, -1, -1},
		{"an end by design", []step{{1, "opened", 0, nil}, {1, "answered", 0, nil}, {9, "ended", 0, byEnd}}, 9, 0, 9, -1},
		{"refused for two minutes", []step{
			{0, "ended", 0, denied}, {0, "ended", 1, denied}, {60, "ended", 0, missing}, {119, "ended", 1, denied}, {120, "ended", 0, denied},
		}, 120, 0, 0, 120},
		{"a fault in between starts the two minutes anew", []step{
			{0, "ended", 0, denied}, {60, "ended", 1, unavailable}, {61, "ended", 0, denied}, {120, "ended", 0, denied}, {179, "ended", 0, denied},
		}, 179, 0, 0, -1},
		{"a stream that answers starts them anew", []step{
			{0, "ended", 0, denied}, {60, "opened", 1, nil}, {60, "answered", 1, nil}, {61, "ended", 1, denied}, {179, "ended", 0, denied},
		}, 179, 0, 61, -1},
		{"while another one is well, refusals do not count", []step{
			{0, "opened", 1, nil}, {0, "answered", 1, nil}, {1, "ended", 0, denied}, {500, "ended", 0, denied},
		}, 500, 1, -1, -1},
		{"slow refusals count", []step{
			{0, "opened", 0, nil}, {10, "ended", 0, denied}, {10, "opened", 0, nil}, {20, "ended", 0, denied},
			{120, "opened", 0, nil}, {130, "ended", 0, denied},
		}, 130, 0, 0, 130},
		{"not received meanwhile", []step{{0, "ended", 0, denied}, {100, "end", 0, nil}, {130, "begin", 0, nil}, {131, "ended", 0, denied}}, 131, 0, 130, -1},
		{"the end of receiving", []step{{0, "opened", 0, nil}, {0, "answered", 0, nil}, {5, "end", 0, nil}}, 100, 0, -1, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
			at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
			h := &health{grace: 2 * time.Second, proof: 45 * time.Second, patience: 2 * time.Minute, streams: make([]streamState, 2)}
			h.begin(start)
			ended := -1
			for _, s := range c.steps {
				switch s.what {
				case "opened":
					h.opened(s.stream, at(s.second))
				case "answered":
					h.heard(s.stream, false, at(s.second))
				case "ended":
					if h.ended(s.stream, s.err, at(s.second)) > 0 && ended < 0 {
						ended = s.second
					}
				case "end":
					h.end()
				case "begin":
					h.begin(at(s.second))
				}
				h.snapshot(at(s.second))
			}
			got := h.snapshot(at(c.at))
			none := -1
			if !got.NoneSince.IsZero() {
				none = int(got.NoneSince.Sub(start) / time.Second)
			}
			if got.Open != c.open || none != c.none || ended != c.refused {
				t.Errorf("%d open, none since %d, refused at %d; want %d, %d, %d", got.Open, none, ended, c.open, c.none, c.refused)
			}
		})
	}
}

func TestAnsweredSinceNeedsEveryOpenStream(t *testing.T) {
	start := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name     string
		open     int
		heard    []int // the second at which each stream was heard last; -1: never
		answer   bool
		messages bool // messages were heard, not answers to pings
	}{
		{"no stream is open", 0, []int{-1, -1}, false, false},
		{"nobody ever answered, as on the emulator", 2, []int{-1, -1}, true, false},
		{"messages are no answer to a ping", 2, []int{5, -1}, true, true},
		{"all have answered", 2, []int{10, 11}, true, false},
		{"one has not", 2, []int{10, 5}, false, false},
		{"one never has", 2, []int{10, -1}, false, false},
		{"the only one has", 1, []int{10, -1}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &health{grace: 2 * time.Second, proof: time.Minute, streams: make([]streamState, 2)}
			h.begin(start)
			for n := range c.open {
				h.opened(n, start)
				if c.heard[n] >= 0 {
					h.heard(n, c.messages, start.Add(time.Duration(c.heard[n])*time.Second))
				}
			}
			if got := h.answeredSince(start.Add(10*time.Second), start.Add(12*time.Second)); got != c.answer {
				t.Errorf("got %v", got)
			}
			heard := slices.ContainsFunc(c.heard, func(second int) bool { return second >= 0 })
			if got := h.snapshot(start.Add(12 * time.Second)).EverAnswered; got != (heard && !c.messages) {
				t.Errorf("ever answered: %v", got)
			}
		})
	}
}

// TestRefusedErrorSaysWhatToCheck has each refusal.
func TestRefusedErrorSaysWhatToCheck(t *testing.T) {
	for code := range whatToCheck {
		refused := &RefusedError{Subscription: longName, For: 2 * time.Minute, Err: status.Error(code, "the reason")}
		err := fmt.Errorf("wrapped: %w", refused)
		if status.Code(err) != code || !refusal(err) || refused.ToCheck() == "" || !strings.HasSuffix(err.Error(), refused.ToCheck()) {
			t.Errorf("%v: %v", code, err)
		}
	}
}

// TestEveryRefusalHasAdvice has a line for each code that counts as a refusal, and for
// no other.
func TestEveryRefusalHasAdvice(t *testing.T) {
	for code := codes.OK + 1; code <= codes.Unauthenticated; code++ {
		if _, ok := whatToCheck[code]; ok != refusal(status.Error(code, "")) {
			t.Errorf("%v: advice: %v, refusal: %v", code, ok, !ok)
		}
	}
}
