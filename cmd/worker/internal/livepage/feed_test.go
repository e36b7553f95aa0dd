package livepage

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func numbers(v view) []uint64 {
	var all []uint64
	for _, r := range v.Rows {
		all = append(all, r.Number)
	}
	return all
}

// TestFeedKeepsNewestAndCountsAll: the feed is bounded, and its counts are of all events.
func TestFeedKeepsNewestAndCountsAll(t *testing.T) {
	f := NewFeed()
	if v := f.since(0); len(v.Rows) != 0 || v.Number != 0 {
		t.Errorf("%+v", v)
	}
	for i := range 3 {
		f.Add(Event{Feature: fmt.Sprint(i)})
	}
	f.Add(Event{Reason: "policy_violation"})
	f.Add(Event{Reason: "invalid_event"})
	f.Add(Event{Reason: "invalid_event"})
	f.SetDuplicates(2)
	want := Counts{Recorded: 3, Rejected: 3, Duplicates: 2, Reasons: []Reason{{"invalid_event", 2}, {"policy_violation", 1}}}
	if diff := cmp.Diff(want, f.Counts()); diff != "" {
		t.Error(diff)
	}
	for after, want := range map[uint64][]uint64{0: {6, 5, 4, 3, 2, 1}, 4: {6, 5}, 6: nil, 7: nil} {
		if diff := cmp.Diff(want, numbers(f.since(after))); diff != "" {
			t.Errorf("after %d: %s", after, diff)
		}
	}
	for i := range 2*MaxRows + 7 {
		f.Add(Event{Feature: fmt.Sprint(i)})
	}
	v := f.since(0)
	if len(v.Rows) != MaxRows || v.Rows[0].Event.Feature != fmt.Sprint(2*MaxRows+6) || v.Rows[MaxRows-1].Event.Feature != fmt.Sprint(MaxRows+7) || v.Number != 2*MaxRows+13 {
		t.Errorf("%d rows, from %+v to %+v", len(v.Rows), v.Rows[0], v.Rows[len(v.Rows)-1])
	}
	if n := testing.AllocsPerRun(100, func() { f.Add(Event{Feature: "a"}) }); n > 0 {
		t.Errorf("adding allocates %v times", n)
	}
}

// TestTextsAreCleanedAndClipped: a publisher's text becomes short, and has no character
// that misleads its reader.
func TestTextsAreCleanedAndClipped(t *testing.T) {
	bad := "a\x1b[31m\u202e\nb" + strings.Repeat("ü", 2000)
	e := NewFeed().Add(Event{Service: bad, Environment: bad, Feature: bad, Action: bad, ID: bad, Metadata: bad, Detail: bad})
	for _, text := range []string{e.Service, e.Environment, e.Feature, e.Action, e.ID, e.Metadata, e.Detail} {
		if n := len([]rune(text)); n > maxDetail+1 || n < maxText || strings.ContainsAny(text, "\x1b\u202e\n") {
			t.Errorf("%q", text)
		}
	}
}

// TestEachChangeReachesWaiters: a reader that waits for changes misses none.
func TestEachChangeReachesWaiters(t *testing.T) {
	f := NewFeed()
	const each, writers = 500, 4
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				f.Add(Event{Feature: "a"})
			}
		})
	}
	for number := uint64(0); number < each*writers; {
		v := f.since(number)
		if v.Number == number {
			<-v.changed
		}
		number = v.Number
	}
	wg.Wait()
}
