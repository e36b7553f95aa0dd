package submit

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestListingOfSharedIDs has payloads in which several events have one id. Events are named
// by their ids, in the order of the payload. The result has a + for an event that is
// recorded, a - for one that is not, and a ? for one for which the answer does not tell.
func TestListingOfSharedIDs(t *testing.T) {
	for _, c := range []struct {
		name, payload, answer, want string
	}{
		{"all of an id", "a a a", "a a a", "+++"},
		{"none of an id", "a a b", "b", "--+"},
		{"some of an id", "a a a", "a a", "???"},
		{"every id once", "a b a b c", "a b c", "????+"},
		{"beside others that are left out", "a b a c d", "a c", "?-?+-"},
		{"two ids, of which one is complete", "a b a b", "b a b", "?+?+"},
		{"in any order", "a b a b", "b b a a", "++++"},
		{"more often than it was sent", "a b", "a a a", "+-"},
		{"nothing", "a a", "", "--"},
		{"case matters", "a A", "a", "+-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			events := named(strings.Fields(c.payload)...)
			l := NewListing(events)
			l.Answer()
			for id := range strings.FieldsSeq(c.answer) {
				l.List([]byte(id))
			}
			listed, collisions := l.Result()
			got := make([]byte, len(events))
			for i := range got {
				got[i] = '-'
				if listed[i] {
					got[i] = '+'
				}
			}
			for _, collision := range collisions {
				id := string(events[collision.Events[0]].ID())
				if n := strings.Count(c.answer, id); n != collision.Recorded {
					t.Errorf("%d of %s are recorded, want %d", collision.Recorded, id, n)
				}
				for _, i := range collision.Events {
					if got[i] != '-' {
						t.Errorf("event %d is both", i)
					}
					got[i] = '?'
				}
			}
			if string(got) != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if listed, _ := NewListing(named("a")).Result(); listed != nil {
		t.Errorf("without an answer, %v is listed", listed)
	}
}

// TestListingOfOneID guards that the answer to a payload with a single id costs no more
// than that to any other. A search among all of its events for each of them would take a
// hundred times as long.
func TestListingOfOneID(t *testing.T) {
	const events = 20_000
	cost := func(id func(i int) string) time.Duration {
		ids := make([]string, events)
		for i := range ids {
			ids[i] = id(i)
		}
		sent, best := named(ids...), time.Hour
		for range 3 { // the machine has other things to do
			l := NewListing(sent)
			began := time.Now()
			for _, id := range ids[1:] { // one is left out
				l.List([]byte(id))
			}
			if _, collisions := l.Result(); len(collisions) > 1 {
				t.Errorf("%d collisions", len(collisions))
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	one, many := cost(func(int) string { return strings.Repeat("0", 36) }), cost(func(i int) string { return fmt.Sprintf("%036d", i) })
	t.Logf("one id: %v, an id each: %v", one, many)
	if one > 20*many {
		t.Errorf("an answer with one id took %v, and one with %d ids %v", one, events, many)
	}
}
