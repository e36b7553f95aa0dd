package batch

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/turns"
)

var (
	start  = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	limits = Limits{Events: 3, Bytes: 100, Delay: time.Second}
)

func at(d time.Duration) time.Time { return start.Add(d) }

// nobody is busy.
var nobody turns.Busy[string, string]

// named are groups by their names.
type named[T any] struct {
	*Groups[string, string, T]
	groups map[string]*Group[string, string, T]
}

func newNamed[T any](limits Limits) *named[T] {
	return &named[T]{NewGroups[string, string, T](limits), map[string]*Group[string, string, T]{}}
}

func (n *named[T]) Add(now time.Time, key, service string, bytes int, value T) {
	if n.groups[key] == nil {
		n.groups[key] = &Group[string, string, T]{Service: service, Environment: key}
	}
	n.Groups.Add(now, n.groups[key], bytes, value)
}

// add adds numbered items of one size to a group that is the only one of its service.
func add(g *named[int], now time.Time, key string, bytes int, items ...int) {
	for _, item := range items {
		g.Add(now, key, key, bytes, item)
	}
}

// drain takes the batches that are due now.
func drain(g *named[int], now time.Time) (all [][]int) {
	for {
		b, ok := g.Next(now, nobody)
		if !ok {
			return all
		}
		all = append(all, b.Items)
	}
}

func want(t *testing.T, what string, got [][]int, want ...[]int) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

func TestBatchesKeepLimits(t *testing.T) {
	t.Run("count", func(t *testing.T) {
		g := newNamed[int](limits)
		add(g, start, "a", 1, 1, 2)
		want(t, "one less", drain(g, start))
		add(g, start, "a", 1, 3)
		want(t, "full", drain(g, start), []int{1, 2, 3})
		add(g, start, "a", 1, 4, 5, 6, 7)
		want(t, "one more", drain(g, start), []int{4, 5, 6})
		if g.Len() != 1 {
			t.Errorf("%d left", g.Len())
		}
	})
	t.Run("bytes", func(t *testing.T) {
		g := newNamed[int](limits)
		add(g, start, "a", 99, 1)
		want(t, "one less", drain(g, start))
		add(g, start, "a", 1, 2)
		want(t, "full", drain(g, start), []int{1, 2})
		add(g, start, "a", 60, 3)
		add(g, start, "a", 41, 4)
		want(t, "one byte too many", drain(g, start), []int{3})
		b, ok := g.Next(at(time.Second), nobody)
		if !ok || b.Bytes != 41 || !slices.Equal(b.Items, []int{4}) {
			t.Errorf("got %+v", b)
		}
	})
	t.Run("delay", func(t *testing.T) {
		g := newNamed[int](limits)
		add(g, start, "a", 1, 1)
		if due, ok := g.Due(); !ok || !due.Equal(at(time.Second)) {
			t.Errorf("due %v, %v", due, ok)
		}
		want(t, "too early", drain(g, at(time.Second-1)))
		want(t, "in time", drain(g, at(time.Second)), []int{1})
		if due, ok := g.Due(); ok {
			t.Errorf("due %v", due)
		}
	})
	t.Run("no delay", func(t *testing.T) {
		g := newNamed[int](Limits{Events: 3, Bytes: 100})
		add(g, start, "a", 1, 1, 2)
		if due, ok := g.Due(); !ok || !due.Equal(start) {
			t.Errorf("due %v, %v", due, ok)
		}
		want(t, "at once", drain(g, start), []int{1, 2})
	})
	t.Run("an item over the limit travels alone", func(t *testing.T) {
		g := newNamed[int](limits)
		add(g, start, "a", 1, 1)
		add(g, start, "a", 500, 2)
		add(g, start, "a", 0, 3)
		add(g, start, "a", 500, 4)
		want(t, "batches", drain(g, at(time.Second)), []int{1}, []int{2}, []int{3}, []int{4})
	})
	t.Run("the exact limits at once", func(t *testing.T) {
		g := newNamed[int](Limits{Events: 1, Bytes: 1, Delay: time.Hour})
		add(g, start, "a", 1, 1, 2, 3)
		want(t, "batches", drain(g, start), []int{1}, []int{2}, []int{3})
	})
}

func TestGroupsStayApart(t *testing.T) {
	g := newNamed[int](limits)
	add(g, start, "a", 1, 1)
	add(g, at(1), "b", 1, 2)
	add(g, at(2), "a", 1, 3)
	want(t, "batches", drain(g, at(2*time.Second)), []int{1, 3}, []int{2})
}

func TestLeftoversKeepTheirTime(t *testing.T) {
	g := newNamed[int](limits)
	add(g, start, "a", 1, 1, 2)
	add(g, at(500*time.Millisecond), "a", 1, 3, 4)
	want(t, "full", drain(g, at(500*time.Millisecond)), []int{1, 2, 3})
	if due, _ := g.Due(); !due.Equal(at(1500 * time.Millisecond)) {
		t.Errorf("due %v", due)
	}
	want(t, "too early", drain(g, at(1499*time.Millisecond)))
	want(t, "in time", drain(g, at(1500*time.Millisecond)), []int{4})
}

func TestFlushMakesItemsDue(t *testing.T) {
	t.Run("also what does not fit into the first batch", func(t *testing.T) {
		g := newNamed[int](limits)
		add(g, start, "a", 1, 1, 2, 3, 4, 5, 6, 7)
		add(g, start, "b", 1, 8)
		g.Flush()
		want(t, "batches", drain(g, start), []int{1, 2, 3}, []int{8}, []int{4, 5, 6}, []int{7})
	})
	t.Run("not what comes later", func(t *testing.T) {
		g := newNamed[int](limits)
		add(g, start, "a", 1, 1, 2)
		g.Flush()
		add(g, start, "a", 60, 3)
		add(g, start, "a", 60, 4)
		want(t, "batches", drain(g, start), []int{1, 2, 3})
		want(t, "the rest", drain(g, at(time.Second)), []int{4})
	})
	t.Run("nothing", func(t *testing.T) {
		g := newNamed[int](limits)
		g.Flush()
		want(t, "batches", drain(g, at(time.Hour)))
	})
}

func TestPartialBatchOfLargestProduct(t *testing.T) {
	busy := func(names ...string) turns.Busy[string, string] {
		return turns.Busy[string, string]{Service: func(s string) bool { return slices.Contains(names, s) }}
	}
	g := newNamed[int](Limits{Events: 10, Bytes: 100, Delay: time.Second})
	add(g, start, "old", 1, 1)                           // 1 × 900 ms
	add(g, at(400*time.Millisecond), "both", 1, 2, 3)    // 2 × 500 ms
	add(g, at(700*time.Millisecond), "many", 1, 4, 5, 6) // 3 × 200 ms
	now := at(900 * time.Millisecond)
	var got []int
	for _, skip := range []string{"both", "", "", ""} {
		if b, ok := g.NextPartial(now, busy(skip)); ok {
			got = append(got, b.Items...)
		}
	}
	if diff := cmp.Diff([]int{1, 2, 3, 4, 5, 6}, got); diff != "" {
		t.Error(diff)
	}
	if _, ok := g.NextPartial(now, nobody); ok || g.Len() != 0 {
		t.Errorf("%d items are left", g.Len())
	}

	// Batches that are due are Next's.
	add(g, now, "due", 1, 7)
	add(g, at(1800*time.Millisecond), "waiting", 1, 8, 9)
	now = at(1900 * time.Millisecond)
	b, ok := g.NextPartial(now, nobody)
	if want := []int{8, 9}; !ok || !slices.Equal(b.Items, want) {
		t.Errorf("%v, want %v", b.Items, want)
	}
	want(t, "the due ones", drain(g, now), []int{7})
}

func TestQuietServicesAreNotDelayed(t *testing.T) {
	const quiet = 20
	g := newNamed[int](limits)
	// The noisy service comes first, with full groups and one that has many batches.
	for i := range 100 {
		for range 3 {
			g.Add(start, fmt.Sprintf("noisy/%d", i), "noisy", 1, -1)
		}
	}
	for range 300 {
		g.Add(start, "noisy/long", "noisy", 1, -1)
	}
	for i := range quiet {
		add(g, start, fmt.Sprintf("quiet/%d", i), 100, i)
	}
	turns := 0
	seen := map[int]bool{}
	for len(seen) < quiet {
		b, ok := g.Next(start, nobody)
		if !ok {
			t.Fatal("nothing is due")
		}
		turns++
		if b.Items[0] >= 0 {
			seen[b.Items[0]] = true
		}
	}
	if turns != quiet+1 {
		t.Errorf("%d turns until each of %d quiet services had its own", turns, quiet)
	}
	// A new service has its turn after at most one batch of the noisy service.
	add(g, start, "late", 100, 99)
	for i := 0; ; i++ {
		b, _ := g.Next(start, nobody)
		if b.Items[0] == 99 {
			break
		}
		if i == 1 {
			t.Fatal("the late one has no turn")
		}
	}
	// The noisy service's own groups take turns, too.
	first, _ := g.Next(start, nobody)
	for range 99 {
		g.Next(start, nobody)
	}
	if len(first.Items) != 3 || g.Len() == 0 {
		t.Errorf("got %v, %d left", first.Items, g.Len())
	}
}

func TestBusyServices(t *testing.T) {
	g := newNamed[int](limits)
	add(g, start, "a", 1, 1, 2, 3, 4, 5, 6)
	add(g, start, "b", 1, 7, 8, 9, 10, 11, 12)
	next := func(busy ...string) []int {
		b, _ := g.Next(start, turns.Busy[string, string]{Service: func(s string) bool { return slices.Contains(busy, s) }})
		return b.Items
	}
	got := [][]int{next("a"), next("a", "b"), next("a"), next(), next("b"), next()}
	want(t, "batches", got, []int{7, 8, 9}, nil, []int{10, 11, 12}, []int{1, 2, 3}, []int{4, 5, 6}, nil)
	if g.Len() != 0 || g.ready.Len() != 0 || len(g.timers) != 0 || !g.groups["a"].Empty() || g.groups["a"].queued {
		t.Errorf("what is empty has left something behind: %+v", g)
	}
}

func TestTakeAll(t *testing.T) {
	fill := func() *named[int] {
		g := newNamed[int](limits)
		for i := range 50 {
			add(g, at(time.Duration(i/7)), fmt.Sprint(i%9), 10, i)
		}
		g.Next(at(1), nobody)
		return g
	}
	g := fill()
	left := g.Len()
	first := g.TakeAll()
	if len(first) != left || g.Len() != 0 {
		t.Errorf("%d of %d taken, %d left", len(first), left, g.Len())
	}
	sorted := slices.Clone(first)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != left {
		t.Errorf("taken twice: %v", sorted)
	}
	for range 20 {
		if diff := cmp.Diff(first, fill().TakeAll()); diff != "" {
			t.Fatal("the order varies", diff)
		}
	}
	// The group can be used again.
	add(g, start, "a", 1, 1, 2, 3)
	want(t, "afterwards", drain(g, start), []int{1, 2, 3})
	if all := g.TakeAll(); len(all) != 0 {
		t.Errorf("got %v", all)
	}
}

// model implements the same in the simplest way: a list of items for each group.
type model struct {
	groups map[string][]modelItem
}

type modelItem struct {
	value, bytes int
	due          time.Time
}

// ready reports whether a group has a batch, and which.
func (m *model) ready(key string, now time.Time) (batch []int, ok bool) {
	items := m.groups[key]
	count, total := len(items), 0
	for _, it := range items {
		total += it.bytes
	}
	if count == 0 || (count < limits.Events && total < limits.Bytes && items[0].due.After(now)) {
		return nil, false
	}
	size := 0
	for i, it := range items {
		if i == limits.Events || (i > 0 && size+it.bytes > limits.Bytes) {
			break
		}
		size += it.bytes
		batch = append(batch, it.value)
	}
	return batch, true
}

func TestGroupsMatchModel(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		g := newNamed[int](limits)
		m := model{groups: map[string][]modelItem{}}
		keys := []string{"a1", "a2", "a3", "b1", "b2", "c1"} // the letter is the service
		now, value := start, 0
		groupOf := map[int]string{}
		waited := map[byte]int{} // turns of others since a service has been ready
		for range 400 {
			switch rng.IntN(9) {
			case 0, 1, 2, 3:
				key := keys[rng.IntN(len(keys))]
				value++
				bytes := rng.IntN(60)
				if rng.IntN(20) == 0 {
					bytes = 200
				}
				g.Add(now, key, key[:1], bytes, value)
				m.groups[key] = append(m.groups[key], modelItem{value, bytes, now.Add(limits.Delay)})
				groupOf[value] = key
			case 4:
				now = now.Add(time.Duration(rng.IntN(700)) * time.Millisecond)
			case 5:
				if rng.IntN(10) == 0 {
					g.Flush()
					for _, items := range m.groups {
						for i := range items {
							items[i].due = now
						}
					}
				}
			case 6:
				b, ok := g.NextPartial(now, nobody)
				if !ok {
					continue
				}
				key := groupOf[b.Items[0]]
				expected, ready := m.ready(key, now.Add(time.Hour))
				if _, due := m.ready(key, now); due || !ready || !slices.Equal(b.Items, expected) {
					t.Fatalf("seed %d: group %s gave %v, want %v (due: %v)", seed, key, b.Items, expected, due)
				}
				m.groups[key] = m.groups[key][len(b.Items):]
			default:
				busyService := "abcd"[rng.IntN(4)]
				b, ok := g.Next(now, turns.Busy[string, string]{Service: func(s string) bool { return s[0] == busyService }})
				var candidates []string
				services := map[byte]bool{}
				for _, key := range keys {
					if _, ready := m.ready(key, now); ready && key[0] != busyService {
						candidates = append(candidates, key)
						services[key[0]] = true
					}
				}
				if ok != (len(candidates) > 0) {
					t.Fatalf("seed %d: a batch: %v, ready are %v", seed, ok, candidates)
				}
				if !ok {
					continue
				}
				key := groupOf[b.Items[0]]
				expected, ready := m.ready(key, now)
				if !ready || key[0] == busyService || !slices.Equal(b.Items, expected) {
					t.Fatalf("seed %d: group %s gave %v, want %v (ready: %v, busy: %c)", seed, key, b.Items, expected, ready, busyService)
				}
				size := 0
				for _, it := range m.groups[key][:len(b.Items)] {
					size += it.bytes
				}
				if size != b.Bytes {
					t.Fatalf("seed %d: %d bytes, want %d", seed, b.Bytes, size)
				}
				m.groups[key] = m.groups[key][len(b.Items):]
				for o := range services {
					waited[o]++
				}
				delete(waited, key[0])
				for o, n := range waited {
					if n > 3 {
						t.Fatalf("seed %d: service %c waits for its turn since %d", seed, o, n)
					}
				}
			}
			var wantDue time.Time
			total, wantReady := 0, 0
			for _, key := range keys {
				items := m.groups[key]
				total += len(items)
				if len(items) == 0 {
					continue
				}
				switch _, ready := m.ready(key, now); {
				case ready:
					wantReady += len(items)
				case wantDue.IsZero() || items[0].due.Before(wantDue):
					wantDue = items[0].due
				}
			}
			if g.Len() != total {
				t.Fatalf("seed %d: %d items, want %d", seed, g.Len(), total)
			}
			// Groups that are already due by their time may still be among the timers.
			if due, ok := g.Due(); ok && due.After(now) && !due.Equal(wantDue) || !ok && !wantDue.IsZero() {
				t.Fatalf("seed %d: due %v (%v), want %v", seed, due, ok, wantDue)
			}
			// Ready queues due groups; without it, Next does.
			if rng.IntN(2) == 0 {
				if got := g.Ready(now); got != wantReady {
					t.Fatalf("seed %d: %d items are ready, want %d", seed, got, wantReady)
				}
			}
		}
		left := 0
		for _, items := range m.groups {
			left += len(items)
		}
		if all := g.TakeAll(); len(all) != left {
			t.Fatalf("seed %d: took %d of %d", seed, len(all), left)
		}
	}
}

// TestTakenItemsAreFreed: a group must not keep items in memory that have left it.
func TestTakenItemsAreFreed(t *testing.T) {
	type thing struct{ _ [64]byte }
	g := newNamed[*thing](Limits{Events: 10, Bytes: 1 << 20, Delay: time.Hour})
	var pointers []weak.Pointer[thing]
	for i := range 1005 {
		p := new(thing)
		pointers = append(pointers, weak.Make(p))
		g.Add(start, fmt.Sprint(i%2), "service", 1, p)
	}
	for {
		if _, ok := g.Next(start, nobody); !ok {
			break
		}
	}
	runtime.GC()
	alive := 0
	for _, p := range pointers {
		if p.Value() != nil {
			alive++
		}
	}
	if alive != g.Len() {
		t.Errorf("%d are in memory, and %d wait", alive, g.Len())
	}
	runtime.KeepAlive(g)
}

func BenchmarkGroups(b *testing.B) {
	g := NewGroups[int, int, int](Limits{Events: 1000, Bytes: 3 << 20, Delay: time.Second})
	var groups [64]Group[int, int, int]
	for i := range groups {
		groups[i].Service, groups[i].Environment = i%8, i
	}
	b.ReportAllocs()
	now := start
	for i := range b.N {
		g.Add(now, &groups[i%64], 500, i)
		if i%1000 == 0 {
			now = now.Add(10 * time.Millisecond)
			for {
				if _, ok := g.Next(now, turns.Busy[int, int]{}); !ok {
					break
				}
			}
		}
	}
}
