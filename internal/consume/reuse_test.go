package consume

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// holder has messages until it settles them, and watches that nobody else
// changes them meanwhile.
type holder struct {
	t    *testing.T
	mu   sync.Mutex
	held []*Message
	kept []*Message       // acknowledged, and not finished
	seen map[*Message]int // deliveries
}

func (h *holder) handle(_ context.Context, fresh, again []*Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range fresh {
		h.held = append(h.held, m)
		h.seen[m]++
	}
	h.check(again)
}

// check holds messages against what was published. The caller holds mu.
func (h *holder) check(messages []*Message) {
	for _, m := range messages {
		if want := content(m.ID, len(m.Data)); m.ID == "" || m.ID[0] != 'm' || !bytes.Equal(m.Data, want) || !bytes.Equal(m.Room()[:cap(m.Room())][:len(m.Data)], want) {
			h.t.Errorf("message %q has changed: %q, %q", m.ID, m.Data, m.Room()[:cap(m.Room())])
		}
	}
}

// step settles some of what is held.
func (h *holder) step(rng *rand.Rand, r *Receiver) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.check(h.held)
	h.check(h.kept)
	h.held = slices.DeleteFunc(h.held, func(m *Message) bool {
		one := []*Message{m}
		switch rng.IntN(8) {
		case 0:
			return false
		case 1:
			r.Ack(one)
			h.kept = append(h.kept, m)
		case 2:
			r.Release(one)
		case 3:
			r.Abandon(one)
		default:
			r.Finish(one)
		}
		return true
	})
}

// TestReuse settles messages while everything goes wrong: the memory of those that
// are finished is used again, and that of no others.
func TestReuse(t *testing.T) {
	again := 0 // messages whose memory was another's before
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			f := newFake(t, 0)
			f.publish(200, 100)
			f.perAnswer = 1 + rng.IntN(100)
			f.buffered = rng.IntN(5)
			set := f.misbehave(seed)
			h := &holder{t: t, seen: map[*Message]int{}}
			r := &rig{t: t}
			r.Receiver = NewReceiver(f, defaults(Options{
				MaxEvents: 100 + rng.IntN(200), Streams: 1 + rng.IntN(4),
				// A message in a request is not used again, so this leaves some time without.
				Intervals: Intervals{Receipt: 10 * time.Second},
			}), func(ctx context.Context, fresh, again []*Message) {
				for _, m := range fresh {
					copy(m.Room()[:cap(m.Room())], m.Data) // as who uses the room does
				}
				h.handle(ctx, fresh, again)
			})
			r.start()
			for range 100 {
				time.Sleep(time.Duration(rng.IntN(40)) * time.Second / 4)
				switch rng.IntN(8) {
				case 0:
					set(rng.Float64() / 2)
				case 1:
					f.breakStreams()
				case 2:
					f.expire()
				case 3:
					f.publish(rng.IntN(100), 100+rng.IntN(2000))
				default:
					h.step(rng, r.Receiver)
				}
			}
			set(0)
			for range 60 {
				time.Sleep(20 * time.Second)
				h.step(rng, r.Receiver)
			}
			if err := r.flush(time.Minute); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			r.end()
			f.set(func() {
				if f.unknown > 0 {
					t.Errorf("seed %d: %d ack ids were never given out", seed, f.unknown)
				}
			})
			if n := f.unacked(); n > 0 {
				t.Errorf("seed %d: %d are not acknowledged", seed, n)
			}
			for _, n := range h.seen {
				if n > 1 {
					again++
				}
			}
		})
	}
	if again < 100 {
		t.Errorf("the memory of %d messages was used again: this shows nothing", again)
	}
	t.Logf("the memory of %d messages was used again", again)
}

// TestFinishedTwiceDelivered finishes a message that is delivered again before
// Pub/Sub has confirmed: who is told of that delivery has it still.
func TestFinishedTwiceDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, 1)
		confirm := make(chan struct{})
		f.onAck = func(context.Context, []string) error { <-confirm; return nil }
		r := newRig(t, f, Options{})
		synctest.Wait()
		r.Finish(r.box.all())
		synctest.Wait()
		f.expire()
		synctest.Wait()
		close(confirm)
		if err := r.flush(time.Minute); err != nil {
			t.Fatal(err)
		}
		f.publish(1000, 10)
		synctest.Wait()
		fresh, again := r.box.counts()
		if fresh != 1001 || again != 1 {
			t.Fatalf("%d messages, %d again, want 1001 and 1", fresh, again)
		}
		if m := r.box.again[0]; m.ID != "m0" || !bytes.Equal(m.Data, content("m0", 10)) {
			t.Errorf("the message that came again has become %q, %q", m.ID, m.Data)
		}
		r.end()
	})
}

// slowExtensions is a subscription that extends leases when it is told to.
type slowExtensions struct {
	*fake
	extend chan struct{}
}

func (s slowExtensions) ModifyAckDeadline(ctx context.Context, ids []string, lease time.Duration) error {
	<-s.extend
	return s.fake.ModifyAckDeadline(ctx, ids, lease)
}

// TestFinishedWhileExtended finishes a message whose lease is being extended: the
// request has its ack id still.
func TestFinishedWhileExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, 0)
		f.publish(1, 100)
		extend := make(chan struct{})
		r := newRig(t, slowExtensions{f, extend}, Options{Intervals: Intervals{Receipt: 12 * time.Second}})
		time.Sleep(15 * time.Second) // of a lease of 30
		r.Finish(r.box.all())
		if err := r.flush(time.Minute); err != nil {
			t.Fatal(err)
		}
		f.publish(1000, 100)
		synctest.Wait()
		close(extend)
		synctest.Wait()
		if n := len(f.modified()); n != 1 {
			t.Fatalf("%d requests, want 1", n)
		}
		f.set(func() {
			if f.unknown > 0 || time.Until(f.queue[0].until) < 20*time.Second {
				t.Error("the lease of another message was extended, or of none")
			}
		})
		r.end()
	})
}
