package consume

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAcksAreRepeatedUntilConfirmed(t *testing.T) {
	bubble(t, "the newest ack id wins", func(t *testing.T) {
		f := newFake(t, 10)
		r := newRig(t, f, Options{})
		synctest.Wait()
		f.expire()
		synctest.Wait()
		fresh, again := r.box.counts()
		if fresh != 10 || again != 10 {
			t.Fatalf("%d fresh, %d again", fresh, again)
		}
		if r.box.again[0] != r.box.fresh[0] {
			t.Error("a message that is delivered again is another one")
		}
		r.Ack(r.box.all())
		if err := r.flush(time.Second); err != nil {
			t.Error(err)
		}
		if n := f.unacked(); n != 0 {
			t.Errorf("%d are not acknowledged", n)
		}
		r.end()
	})
	for _, answer := range []struct {
		name string
		err  error
	}{
		{"confirmed", nil},
		{"refused", status.Error(codes.InvalidArgument, "invalid ack id")},
		{"failed", errUnavailable},
	} {
		bubble(t, "delivered again while one is on its way that is "+answer.name, func(t *testing.T) {
			f := newFake(t, 1)
			r := newRig(t, f, Options{})
			synctest.Wait()
			var once sync.Once
			f.set(func() {
				f.onAck = func(context.Context, []string) (err error) {
					once.Do(func() {
						f.expire()
						time.Sleep(time.Second) // until the redelivery has come
						err = answer.err
					})
					return err
				}
			})
			r.Ack(r.box.all())
			if err := r.flush(10 * time.Second); err != nil {
				t.Error(err)
			}
			if n := f.unacked(); n != 0 {
				t.Error("the newest delivery was not acknowledged")
			}
			if _, again := r.box.counts(); again != 1 {
				t.Errorf("%d again", again)
			}
			r.end()
		})
	}
	bubble(t, "is repeated until it is confirmed", func(t *testing.T) {
		f := newFake(t, 3000)
		r := newRig(t, f, Options{})
		synctest.Wait()
		f.set(func() { f.onAck = func(context.Context, []string) error { return errUnavailable } })
		r.Ack(r.box.all())
		if err := r.flush(5 * time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush: %v, and nothing was confirmed", err)
		}
		if r.Unconfirmed() != 3000 {
			t.Errorf("%d unconfirmed", r.Unconfirmed())
		}
		if f.acknowledges() > 1500 || f.acknowledges() < 100 {
			t.Errorf("asked %d times in 5 minutes", f.acknowledges())
		}
		f.set(func() { f.onAck = nil })
		if err := r.flush(5 * time.Second); err != nil {
			t.Errorf("Flush: %v", err)
		}
		if n := f.unacked(); n != 0 || r.Unconfirmed() != 0 || f.redelivered() != 0 {
			t.Errorf("%d not acknowledged, %d not confirmed, %d delivered again", n, r.Unconfirmed(), f.redelivered())
		}
		r.end()
	})
	bubble(t, "one that hangs is given up and repeated", func(t *testing.T) {
		f := newFake(t, 1)
		r := newRig(t, f, Options{})
		synctest.Wait()
		var once sync.Once
		f.set(func() {
			f.onAck = func(ctx context.Context, _ []string) (err error) {
				once.Do(func() { <-ctx.Done(); err = status.FromContextError(ctx.Err()).Err() })
				return err
			}
		})
		r.Ack(r.box.all())
		if err := r.flush(15 * time.Second); err != nil || f.unacked() != 0 {
			t.Errorf("%v, %d not acknowledged", err, f.unacked())
		}
		r.end()
	})
	bubble(t, "an invalid ack id does not hold up the others", func(t *testing.T) {
		f := newFake(t, 5000)
		r := newRig(t, f, Options{})
		synctest.Wait()
		poison := []string{r.box.all()[0].ackID, r.box.all()[777].ackID, r.box.all()[4999].ackID}
		f.set(func() {
			f.onAck = func(_ context.Context, ids []string) error {
				for _, id := range poison {
					if slices.Contains(ids, id) {
						return status.Error(codes.InvalidArgument, "invalid ack id")
					}
				}
				return nil
			}
		})
		r.Ack(r.box.all())
		if err := r.flush(time.Second); err != nil {
			t.Errorf("Flush: %v", err)
		}
		if n := f.unacked(); n != len(poison) {
			t.Errorf("%d are not acknowledged", n)
		}
		if f.acknowledges() > 100 {
			t.Errorf("%d requests to find %d", f.acknowledges(), len(poison))
		}
		// They come back by themselves, as new ones.
		time.Sleep(time.Minute)
		if fresh, _ := r.box.counts(); fresh != 5000+len(poison) {
			t.Errorf("%d messages", fresh)
		}
		r.end()
	})
}

func TestSettledOnce(t *testing.T) {
	type step func(*rig, []*Message)
	ack := func(r *rig, m []*Message) { r.Ack(m) }
	release := func(r *rig, m []*Message) { r.Nack(m) }
	expire := func(r *rig, m []*Message) { r.LetExpire(m) }
	for _, c := range []struct {
		name           string
		steps          []step
		acks, releases int
	}{
		{"acknowledged twice", []step{ack, ack}, 1, 0},
		{"acked, then released", []step{ack, release}, 1, 0},
		{"acked, then left to expire", []step{ack, expire}, 1, 0},
		{"released twice", []step{release, release}, 0, 1},
		{"released, then acknowledged", []step{release, ack}, 0, 1},
		{"left to expire, then acknowledged", []step{expire, ack}, 0, 0},
		{"left to expire, then released", []step{expire, release}, 0, 0},
	} {
		bubble(t, c.name, func(t *testing.T) {
			f := newFake(t, 1)
			r := newRig(t, f, Options{})
			synctest.Wait()
			r.stop() // so that it does not come back
			for _, s := range c.steps {
				s(r, r.box.all())
			}
			synctest.Wait()
			for _, s := range c.steps[1:] {
				s(r, r.box.all())
			}
			if err := r.flush(time.Minute); err != nil {
				t.Error(err)
			}
			if f.acknowledges() != c.acks || len(f.modified()) != c.releases {
				t.Errorf("%d acknowledgements, %d releases", f.acknowledges(), len(f.modified()))
			}
			r.Close()
		})
	}
}

func TestNackedMessagesAreRedelivered(t *testing.T) {
	bubble(t, "is at once", func(t *testing.T) {
		f := newFake(t, 6000)
		r := newRig(t, f, Options{})
		synctest.Wait()
		began := time.Now()
		r.Nack(r.box.all())
		if err := r.flush(time.Second); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
		if fresh, again := r.box.counts(); fresh != 12_000 || again != 0 {
			t.Errorf("%d messages, %d of them again; redelivered messages must be new ones", fresh, again)
		}
		r.end()
	})
	bubble(t, "is repeated until it is confirmed", func(t *testing.T) {
		f := newFake(t, 100)
		r := newRig(t, f, Options{})
		synctest.Wait()
		r.stop()
		f.set(func() { f.onModify = func([]string, time.Duration) error { return errUnavailable } })
		r.Nack(r.box.all())
		if err := r.flush(5 * time.Second); err == nil {
			t.Error("Flush returned, and nothing was confirmed")
		}
		f.set(func() { f.onModify = nil })
		if err := r.flush(5 * time.Second); err != nil {
			t.Error(err)
		}
		if out, _ := f.take(1000, time.Minute); len(out) != 100 {
			t.Errorf("%d are there for others", len(out))
		}
		r.Close()
	})
	bubble(t, "an invalid ack id does not hold up the others", func(t *testing.T) {
		f := newFake(t, 1000)
		r := newRig(t, f, Options{})
		synctest.Wait()
		r.stop()
		poison := r.box.all()[500].ackID
		f.set(func() {
			f.onModify = func(ids []string, _ time.Duration) error {
				if slices.Contains(ids, poison) {
					return status.Error(codes.InvalidArgument, "invalid ack id")
				}
				return nil
			}
		})
		r.Nack(r.box.all())
		if err := r.flush(time.Second); err != nil {
			t.Error(err)
		}
		if out, _ := f.take(2000, time.Minute); len(out) != 999 {
			t.Errorf("%d are there for others", len(out))
		}
		r.Close()
	})
}

// TestSettledMessagesAreFreed: a settled message must not stay in memory because others of
// its response are in flight.
func TestSettledMessagesAreFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, 100)
		r := NewReceiver(f, defaults(Options{Streams: 1}), nil)
		var (
			kept *Message
			gone []weak.Pointer[Message]
		)
		r.handle = func(_ context.Context, fresh, _ []*Message) {
			if kept == nil {
				kept, fresh = fresh[0], fresh[1:]
			}
			for _, m := range fresh {
				gone = append(gone, weak.Make(m))
			}
			r.Ack(fresh)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Receive(ctx) }()
		synctest.Wait()
		cancel()
		<-ended
		if f.unacked() != 1 {
			t.Fatalf("%d are not acknowledged", f.unacked())
		}
		runtime.GC()
		alive := 0
		for _, p := range gone {
			if p.Value() != nil {
				alive++
			}
		}
		if alive > 0 {
			t.Errorf("%d of %d settled messages are still in memory", alive, len(gone))
		}
		runtime.KeepAlive(kept)
		r.Close()
	})
}
