package turns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

type queue = Queue[string, string, string]

// fill pushes values that are called service/environment/number.
func fill(q *queue, values ...string) {
	for _, v := range values {
		parts := strings.SplitN(v, "/", 3)
		q.Push(parts[0], parts[0]+"/"+parts[1], v)
	}
}

// take takes up to n values.
func take(q *queue, n int, busy Busy[string, string]) (all []string) {
	for range n {
		v, ok := q.Next(busy)
		if !ok {
			break
		}
		all = append(all, v)
	}
	return all
}

func is(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

func TestServicesTakeTurns(t *testing.T) {
	for _, c := range []struct {
		name   string
		values string
		busy   Busy[string, string]
		want   string
	}{
		{name: "nothing"},
		{name: "a lone environment has every turn, in order", values: "a/x/1 a/x/2 a/x/3", want: "a/x/1 a/x/2 a/x/3"},
		{name: "services in turn", values: "a/x/1 a/x/2 a/x/3 b/x/1 c/x/1 c/x/2", want: "a/x/1 b/x/1 c/x/1 a/x/2 c/x/2 a/x/3"},
		{name: "environments in turn", values: "a/x/1 a/x/2 a/y/1 a/z/1", want: "a/x/1 a/y/1 a/z/1 a/x/2"},
		{
			name:   "environments share the turns of their service",
			values: "a/u/1 a/v/1 a/w/1 a/x/1 b/x/1 b/x/2",
			want:   "a/u/1 b/x/1 a/v/1 b/x/2 a/w/1 a/x/1",
		},
		{
			name: "the same name of an environment is another one in another service", values: "a/x/1 b/x/1", want: "b/x/1",
			busy: Busy[string, string]{Environment: is("a/x")},
		},
		{name: "a busy service is passed over", values: "a/x/1 b/x/1 b/x/2", busy: Busy[string, string]{Service: is("a")}, want: "b/x/1 b/x/2"},
		{name: "a busy environment is passed over", values: "a/x/1 a/y/1 b/x/1", busy: Busy[string, string]{Environment: is("a/x")}, want: "a/y/1 b/x/1"},
		{name: "a service whose environments are busy is passed over", values: "a/x/1 b/x/1", busy: Busy[string, string]{Environment: is("a/x")}, want: "b/x/1"},
		{name: "all are busy", values: "a/x/1 b/x/1", busy: Busy[string, string]{Service: is("a", "b")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var q queue
			fill(&q, strings.Fields(c.values)...)
			if got := strings.Join(take(&q, 100, c.busy), " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if left := len(strings.Fields(c.values)) - len(strings.Fields(c.want)); q.Len() != left {
				t.Errorf("%d are left, want %d", q.Len(), left)
			}
		})
	}
}

// TestBusyKeepsItsTurn: being passed over does not move anybody back.
func TestBusyKeepsItsTurn(t *testing.T) {
	var q queue
	fill(&q, strings.Fields("a/x/1 a/y/1 b/x/1 b/x/2 c/x/1")...)
	got := take(&q, 1, Busy[string, string]{Service: is("a")})
	got = append(got, take(&q, 1, Busy[string, string]{Environment: is("a/x")})...)
	got = append(got, take(&q, 9, Busy[string, string]{})...)
	if want := "b/x/1 a/y/1 c/x/1 b/x/2 a/x/1"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestNewcomerWaitsOneTurn: a service that comes later waits for one turn of each of the others,
// whatever they have.
func TestNewcomerWaitsOneTurn(t *testing.T) {
	var q queue
	for n := range 10_000 {
		fill(&q, fmt.Sprintf("flood/%d/1", n), fmt.Sprintf("flood/%d/2", n))
	}
	take(&q, 5000, Busy[string, string]{})
	fill(&q, "honest/prod/1", "honest/prod/2")
	got := take(&q, 4, Busy[string, string]{})
	if !strings.HasPrefix(got[1], "honest") || !strings.HasPrefix(got[3], "honest") {
		t.Errorf("got %v, want every other turn to be the newcomer's", got)
	}
}

// TestNothingIsLeftBehind: a service without values in the queue takes no memory.
func TestNothingIsLeftBehind(t *testing.T) {
	var q queue
	for n := range 1000 {
		fill(&q, fmt.Sprintf("a/%d/1", n), fmt.Sprintf("s%d/x/1", n))
	}
	all := q.TakeAll()
	slices.Sort(all)
	if len(slices.Compact(all)) != 2000 || q.Len() != 0 || len(q.services.byKey) != 0 || q.services.order.Len() != 0 {
		t.Errorf("%d taken, and left are %d values of %d services", len(all), q.Len(), len(q.services.byKey))
	}
	fill(&q, "a/1/again")
	if got := q.TakeAll(); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// TestCostOfATurn compares a turn among a few environments with one among many: a
// walk over all of them would take thousands of times as long.
func TestCostOfATurn(t *testing.T) {
	cost := func(environments int) time.Duration {
		var q Queue[int, int, int]
		for n := range environments {
			q.Push(0, n, n)
			q.Push(n, 0, n)
		}
		best := time.Hour
		for range 5 { // the machine has other things to do
			began := time.Now()
			for range 1000 {
				v, _ := q.Next(Busy[int, int]{})
				q.Push(0, v, v)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	few, many := cost(10), cost(100_000)
	t.Logf("1,000 turns among 10: %v, among 100,000: %v", few, many)
	if many > 100*few {
		t.Errorf("1,000 turns took %v among 100,000, and %v among 10", many, few)
	}
}

func BenchmarkTurn(b *testing.B) {
	var q Queue[int, int, int]
	for n := range 10_000 {
		q.Push(n%10, n, n)
	}
	for b.Loop() {
		v, _ := q.Next(Busy[int, int]{})
		q.Push(v%10, v, v)
	}
}
