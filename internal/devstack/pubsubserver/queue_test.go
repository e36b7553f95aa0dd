package pubsubserver

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

func putNumbered(q *queue, n int) {
	msgs := make([]message, n)
	for i := range msgs {
		msgs[i] = message{encoded: fmt.Appendf(nil, "%d", i), number: uint64(i + 1)}
	}
	q.put(msgs)
}

func mustTake(t *testing.T, q *queue, c *consumer, limit, lease int) (out []delivered, ids []string) {
	t.Helper()
	out, err := q.take(c, limit, lease, nil)
	must(t, err)
	for _, d := range out {
		ids = append(ids, string(appendAckID(nil, q.slots.tag, d.slot, d.delivery)))
	}
	return out, ids
}

func TestLeasesExpireInTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		q := newQueue(1, 0)
		putNumbered(q, 3)
		c := newConsumer()
		_, ids := mustTake(t, q, c, 3, 10)
		time.Sleep(6 * time.Second)
		if _, ok := q.modify(ids[:1], func(int) int { return 60 }); !ok {
			t.Fatal("refused")
		}
		if _, ok := q.modify(ids[1:2], func(int) int { return 1 }); !ok {
			t.Fatal("refused")
		}
		for _, step := range []struct {
			at     time.Duration
			leased int
		}{{6999 * time.Millisecond, 3}, {7 * time.Second, 2}, {9999 * time.Millisecond, 2}, {10 * time.Second, 1}, {65 * time.Second, 1}, {66 * time.Second, 0}} {
			time.Sleep(step.at - time.Since(start))
			q.expire(time.Now())
			if got := q.stats().Leased; got != step.leased {
				t.Errorf("after %v: %d leased, want %d", step.at, got, step.leased)
			}
		}
	})
}

func TestStaleAckIDs(t *testing.T) {
	q := newQueue(1, 0)
	putNumbered(q, 2)
	c := newConsumer()
	_, old := mustTake(t, q, c, 2, 10)
	q.expireAll()
	if !q.ack(old[:1]) {
		t.Fatal("refused")
	}
	// The first was not delivered again, so its old id still counts.
	again, fresh := mustTake(t, q, c, 2, 10)
	if len(again) != 1 || again[0].attempt != 2 || fresh[0] == old[1] {
		t.Fatalf("delivered again: %v", again)
	}
	q.ack(old[1:])
	if deads, _ := q.modify(old[1:], func(int) int { return 0 }); len(deads) != 0 {
		t.Error("dead")
	}
	if got, want := q.stats(), (Stats{Leased: 1, Acked: 1, Delivered: 3, Redelivered: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	q.ack(fresh)
	q.ack(fresh)
	if got, want := q.stats(), (Stats{Acked: 2, Delivered: 3, Redelivered: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if q.ack([]string{"nonsense"}) || newQueue(2, 0).ack(fresh) {
		t.Error("took an id that it did not give out")
	}
}

func TestRedeliveryTakesTurnsWithTheBacklog(t *testing.T) {
	q := newQueue(1, 0)
	putNumbered(q, 20)
	c := newConsumer()
	_, ids := mustTake(t, q, c, 10, 10)
	q.modify(ids, func(int) int { return 0 })
	out, _ := mustTake(t, q, c, 10, 10)
	again := 0
	for _, d := range out {
		if d.attempt == 2 {
			again++
		}
	}
	if again != 5 {
		t.Errorf("%d of 10 are redeliveries, want 5", again)
	}
}

func TestResponsesAreSplit(t *testing.T) {
	q := newQueue(1, 0)
	big := maxResponseBytes + 1
	for i, size := range []int{big, 100, maxResponseBytes - 200, 100, 1} {
		q.put([]message{{encoded: make([]byte, size), number: uint64(i)}})
	}
	var got []int
	for {
		out, _ := mustTake(t, q, newConsumer(), 1000, 10)
		if len(out) == 0 {
			break
		}
		got = append(got, len(out))
	}
	if fmt.Sprint(got) != "[1 3 1]" {
		t.Errorf("split into %v", got)
	}
}

// TestQueueAgainstModel compares random work with a plain map.
func TestQueueAgainstModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		q := newQueue(7, 0)
		c := newConsumer()
		leased := map[string]time.Time{} // by ack id
		backlog, acked, number := 0, 0, uint64(0)
		for range 20_000 {
			switch random.IntN(6) {
			case 0:
				n := random.IntN(5)
				for range n {
					number++
					q.put([]message{{encoded: []byte("x"), number: number}})
				}
				backlog += n
			case 1, 2:
				lease := 10 + random.IntN(20)
				_, ids := mustTake(t, q, c, 1+random.IntN(4), lease)
				for _, id := range ids {
					leased[id] = time.Now().Add(time.Duration(lease) * time.Second)
				}
				backlog -= len(ids)
			case 3:
				for id := range leased {
					q.ack([]string{id})
					delete(leased, id)
					acked++
					break
				}
			case 4:
				for id := range leased {
					length := random.IntN(3) * random.IntN(30)
					q.modify([]string{id}, func(int) int { return length })
					leased[id] = time.Now().Add(time.Duration(length) * time.Second)
					if length == 0 {
						delete(leased, id)
						backlog++
					}
					break
				}
			case 5:
				time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
				q.expire(time.Now())
				for id, deadline := range leased {
					if !time.Now().Before(deadline) {
						delete(leased, id)
						backlog++
					}
				}
			}
			got := q.stats()
			if got.Backlog != backlog || got.Leased != len(leased) || got.Acked != acked {
				t.Fatalf("%+v, want backlog %d, leased %d, acked %d", got, backlog, len(leased), acked)
			}
			if c.messages != len(leased) || c.bytes != len(leased) {
				t.Fatalf("outstanding %d messages, %d bytes, want %d", c.messages, c.bytes, len(leased))
			}
		}
		if len(q.snapshot()) != backlog+len(leased) {
			t.Errorf("snapshot of %d messages", len(q.snapshot()))
		}
	})
}

func TestFIFO(t *testing.T) {
	var f fifo
	next, expected := uint32(0), uint32(0)
	for range 1000 {
		for range 7 {
			f.push(next)
			next++
		}
		for range 6 {
			got, ok := f.peek()
			if !ok || got != expected {
				t.Fatalf("got %d %v, want %d", got, ok, expected)
			}
			f.pop()
			expected++
		}
	}
}
