package relay

import (
	"fmt"
	"testing"
)

// TestCollisionsAreSpreadOverPayloads has collisions, each with its number of events and of those that are
// recorded, and wants the sizes of the payloads that they are spread over.
func TestCollisionsAreSpreadOverPayloads(t *testing.T) {
	for _, c := range []struct {
		name       string
		collisions [][2]int // events, recorded
		want       []int    // events of each payload
	}{
		{"none", nil, nil},
		{"one of two", [][2]int{{2, 1}}, []int{1, 1}},
		{"all but one of many: the answers about halves tell most", [][2]int{{1000, 999}}, []int{500, 500}},
		{"all but ten of a hundred", [][2]int{{100, 90}}, []int{5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5}},
		{"one of five: each alone", [][2]int{{5, 1}}, []int{1, 1, 1, 1, 1}},
		{"half of four: each alone", [][2]int{{4, 2}}, []int{1, 1, 1, 1}},
		{"different ids share payloads", [][2]int{{2, 1}, {3, 1}, {2, 1}}, []int{3, 3, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []collision
			want := map[*inflight]bool{}
			for _, numbers := range c.collisions {
				one := collision{recorded: numbers[1]}
				for range numbers[0] {
					e := new(inflight)
					one.events, want[e] = append(one.events, e), true
				}
				all = append(all, one)
			}
			var got []int
			for _, payload := range spread(all) {
				got = append(got, len(payload))
				for _, e := range payload {
					if !want[e] {
						t.Error("an event is in two payloads")
					}
					delete(want, e)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if len(want) > 0 {
				t.Errorf("%d events are in no payload", len(want))
			}
		})
	}
}
