package spare

import (
	"sync"
	"testing"
)

type thing struct{ owner int }

// TestOneOwner has many hands take and give: nothing is in two of them at once, and
// what is given is found again.
func TestOneOwner(t *testing.T) {
	var (
		pool Pool[thing]
		wait sync.WaitGroup
		made [4]int
	)
	for worker := range made {
		wait.Go(func() {
			hand := pool.Hand(1 + worker*5)
			var mine []*thing
			for i := range 20_000 {
				if i%100 < 50 {
					it := hand.Take()
					if it == nil {
						it = new(thing)
						made[worker]++
					}
					if it.owner != 0 {
						t.Errorf("taken from %d", it.owner)
					}
					it.owner = worker + 1
					mine = append(mine, it)
					continue
				}
				last := len(mine) - 1
				mine[last].owner = 0
				hand.Give(mine[last])
				mine = mine[:last]
				if i%1000 == 999 {
					hand.Drop()
					hand.Drop() // nothing
				}
			}
		})
	}
	wait.Wait()
	for worker, n := range made {
		if n > 10_000/2 { // of those that it took
			t.Errorf("%d were made by %d: too few were used again", n, worker)
		}
	}
}

// TestNothing is there to begin with.
func TestNothing(t *testing.T) {
	var pool Pool[thing]
	hand := pool.Hand(2)
	if hand.Take() != nil {
		t.Error("something is there")
	}
	a, b := new(thing), new(thing)
	hand.Give(a)
	if hand.Take() != a || hand.Take() != nil {
		t.Error("what was given was not taken")
	}
	hand.Give(a)
	hand.Give(b) // it is full
	hand.Give(a)
	if hand.Take() != a {
		t.Error("what was given last was not taken")
	}
}

func BenchmarkGiveTake(b *testing.B) {
	var pool Pool[thing]
	from, to := pool.Hand(32), pool.Hand(32)
	it := new(thing)
	for b.Loop() {
		to.Give(it)
		if next := from.Take(); next != nil {
			it = next
		} else {
			it = new(thing)
		}
	}
}
