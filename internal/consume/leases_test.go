package consume

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestLeasesAreExtendedUntilSettlement(t *testing.T) {
	bubble(t, "are extended until settled", func(t *testing.T) {
		f := newFake(t, 6000)
		r := newRig(t, f, Options{})
		time.Sleep(5*time.Minute + time.Second) // not at the moment of an extension
		if fresh, again := r.box.counts(); fresh != 6000 || again != 0 {
			t.Errorf("%d messages, %d of them again", fresh, again)
		}
		r.Ack(r.box.all())
		if err := r.flush(time.Second); err != nil {
			t.Error(err)
		}
		if n := f.unacked(); n != 0 {
			t.Errorf("%d are not acknowledged", n)
		}
		extensions := 0
		for _, m := range f.modified() {
			extensions += m.ids
		}
		// 5 minutes of leases of 30 s: extended neither too late nor all the time.
		if each := extensions / 6000; each > 35 {
			t.Errorf("each lease was extended %d times", each)
		}
		synctest.Wait()
		before := len(f.modified())
		time.Sleep(time.Minute)
		if len(f.modified()) != before {
			t.Error("leases of settled messages were extended")
		}
		r.end()
	})
	bubble(t, "survive an outage of two thirds of their length", func(t *testing.T) {
		f := newFake(t, 100)
		r := newRig(t, f, Options{})
		time.Sleep(5 * time.Second)
		f.set(func() { f.onModify = func([]string, time.Duration) error { return errUnavailable } })
		time.Sleep(18 * time.Second)
		f.set(func() { f.onModify = nil })
		time.Sleep(time.Minute)
		if n := f.redelivered(); n != 0 {
			t.Errorf("%d redelivered", n)
		}
		r.end()
	})
	bubble(t, "outlast the end of receiving", func(t *testing.T) {
		f := newFake(t, 100)
		r := newRig(t, f, Options{})
		synctest.Wait()
		r.stop()
		time.Sleep(5 * time.Minute)
		r.Ack(r.box.all())
		if err := r.flush(time.Second); err != nil {
			t.Error(err)
		}
		if n := f.unacked(); n != 0 {
			t.Errorf("%d leases ran out", n)
		}
		r.Close()
	})
	bubble(t, "one that is refused does not hold up the others", func(t *testing.T) {
		f := newFake(t, 1000)
		r := newRig(t, f, Options{})
		synctest.Wait()
		poison := r.box.all()[123].ackID
		f.set(func() {
			f.onModify = func(ids []string, _ time.Duration) error {
				if slices.Contains(ids, poison) {
					return status.Error(codes.InvalidArgument, "invalid ack id")
				}
				return nil
			}
		})
		time.Sleep(29 * time.Second)
		f.set(func() { f.onModify = nil }) // the redelivery has an id of its own
		time.Sleep(10 * time.Minute)
		if n := f.redelivered(); n != 1 {
			t.Errorf("%d redelivered, want that one", n)
		}
		r.end()
	})
	bubble(t, "of a pull may be shorter than those of a stream", func(t *testing.T) {
		f := newFake(t, 10)
		r := newRig(t, f, Options{})
		r.stop()
		f.publish(10, 10)
		n, err := r.PullOnce(t.Context(), 10)
		if n != 10 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		outstanding := r.box.all()
		time.Sleep(time.Minute)
		r.Ack(outstanding)
		if err := r.flush(time.Second); err != nil {
			t.Error(err)
		}
		for _, m := range outstanding {
			for _, q := range f.queue {
				if q.id == m.ID && !q.acked {
					t.Errorf("the lease of %s ran out", m.ID)
				}
			}
		}
		r.Close()
	})
}

// TestLeasesAreSetWhileHandlerBlocks blocks the reader while responses lie in the
// connection's buffers, where their leases run.
func TestLeasesAreSetWhileHandlerBlocks(t *testing.T) {
	for _, c := range []struct {
		name   string
		delays []time.Duration // of the handler, by response
	}{
		{"one long absence", []time.Duration{27 * time.Second}},
		{"almost the whole lease", []time.Duration{29 * time.Second}},
		{"behind a late one", []time.Duration{20 * time.Second, 6 * time.Second}},
		{"many short absences", slices.Repeat([]time.Duration{3 * time.Second}, 9)},
	} {
		bubble(t, c.name, func(t *testing.T) {
			f := newFake(t, 300)
			f.perAnswer, f.buffered = 10, len(c.delays)
			var (
				b    inbox
				call int
			)
			r := NewReceiver(f, defaults(Options{Streams: 1}), func(ctx context.Context, fresh, again []*Message) {
				b.handle(ctx, fresh, again)
				if call < len(c.delays) {
					time.Sleep(c.delays[call])
				}
				call++
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- r.Receive(ctx) }()
			time.Sleep(5 * time.Minute)
			if fresh, _ := b.counts(); fresh != 300 {
				t.Errorf("%d messages", fresh)
			}
			if n := f.redelivered(); n != 0 {
				t.Errorf("%d redelivered", n)
			}
			cancel()
			<-ended
			r.Close()
		})
	}
}

func TestExpiringMessagesAreRedelivered(t *testing.T) {
	for _, c := range []struct {
		name  string
		after time.Duration // of the delivery
	}{
		{"before the lease was set", 0},
		{"after the lease was set", time.Second},
	} {
		bubble(t, c.name, func(t *testing.T) {
			f := newFake(t, 10)
			f.firstLease = 10 * time.Minute
			r := newRig(t, f, Options{})
			time.Sleep(c.after)
			synctest.Wait()
			r.LetExpire(r.box.all())
			time.Sleep(29*time.Second - c.after)
			if n := f.redelivered(); n != 0 || len(f.modified()) != 1 {
				t.Errorf("%d redelivered, %d requests", n, len(f.modified()))
			}
			time.Sleep(2*time.Second + c.after)
			if fresh, again := r.box.counts(); fresh != 20 || again != 0 {
				t.Errorf("%d messages, %d of them again", fresh, again)
			}
			r.end()
		})
	}
}
