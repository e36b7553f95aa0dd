package consume

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var errUnavailable = status.Error(codes.Unavailable, "unavailable")

// bubble runs a test in fake time.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

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

func TestFlowControl(t *testing.T) {
	const streams, answer = 4, 100
	for _, c := range []struct {
		name  string
		opts  Options
		limit int
	}{
		{"events", Options{MaxEvents: 1000}, 1000},
		{"bytes", Options{MaxBytes: 1_002_500}, 1000}, // a little more than 1000 messages with their ids
		{"one event", Options{MaxEvents: 1}, 1},
	} {
		bubble(t, c.name, func(t *testing.T) {
			f := newFake(t, 0)
			f.publish(10_000, 1000)
			f.perAnswer = answer
			c.opts.Streams = streams
			r := newRig(t, f, c.opts)
			seen := 0
			for seen < 10_000 {
				time.Sleep(time.Minute)
				all := r.box.all()
				outstanding := len(all) - seen
				if outstanding < c.limit || outstanding > c.limit+streams*answer {
					t.Fatalf("%d outstanding, want %d and at most a response a stream more", outstanding, c.limit)
				}
				r.Ack(all[seen:])
				seen = len(all)
				if c.limit+seen > 10_000 {
					break
				}
			}
			if n := f.redelivered(); n != 0 {
				t.Errorf("%d redelivered", n)
			}
			r.end()
		})
	}
	bubble(t, "the streams share what may be outstanding", func(t *testing.T) {
		f := newFake(t, 0)
		r := newRig(t, f, Options{MaxEvents: 1000, MaxBytes: 1 << 20, LeaseDuration: time.Minute})
		synctest.Wait()
		want := Flow{Lease: time.Minute, MaxEvents: 250, MaxBytes: 1 << 18}
		if f.lastFlow() != want || f.opened() != 4 {
			t.Errorf("%d streams with %+v, want %+v", f.opened(), f.lastFlow(), want)
		}
		r.end()
	})
	bubble(t, "settled by confirmation only", func(t *testing.T) {
		f := newFake(t, 300)
		f.perAnswer = 100
		r := newRig(t, f, Options{MaxEvents: 100, Streams: 1})
		synctest.Wait()
		f.set(func() { f.onAck = func(context.Context, []string) error { return errUnavailable } })
		r.Ack(r.box.all())
		time.Sleep(time.Minute)
		if fresh, _ := r.box.counts(); fresh != 100 {
			t.Errorf("%d messages came while nothing could be acknowledged", fresh)
		}
		f.set(func() { f.onAck = nil })
		time.Sleep(5 * time.Second)
		if fresh, _ := r.box.counts(); fresh != 200 {
			t.Errorf("%d messages came", fresh)
		}
		r.end()
	})
}

func TestStreamsAreReopened(t *testing.T) {
	bubble(t, "are opened again with ever longer pauses", func(t *testing.T) {
		f := newFake(t, 10)
		f.onStream = func() error { return errUnavailable }
		r := newRig(t, f, Options{Streams: 1})
		time.Sleep(5 * time.Minute)
		if n := f.opened(); n < 25 || n > 100 {
			t.Errorf("opened %d times in 5 minutes", n)
		}
		if r.receiving() {
			t.Error("receiving, without a stream")
		}
		f.set(func() { f.onStream = nil })
		time.Sleep(20 * time.Second)
		if fresh, _ := r.box.counts(); fresh != 10 || !r.receiving() {
			t.Errorf("%d messages, receiving: %v", fresh, r.receiving())
		}
		r.end()
		if r.receiving() {
			t.Error("receiving after the end")
		}
	})
	bubble(t, "are opened again soon after they ended by design", func(t *testing.T) {
		f := newFake(t, 0)
		r := newRig(t, f, Options{})
		for range 20 {
			time.Sleep(30 * time.Minute)
			f.breakStreams()
		}
		time.Sleep(time.Second)
		f.publish(1, 10)
		synctest.Wait()
		if fresh, _ := r.box.counts(); fresh != 1 || f.opened() != 4*21 {
			t.Errorf("%d messages over %d streams", fresh, f.opened())
		}
		r.end()
	})
	bubble(t, "an end without an error is an end", func(t *testing.T) {
		f := newFake(t, 0)
		ends := 0
		f.onRecv = func() error {
			if ends++; ends < 5 {
				return errEnded
			}
			return nil
		}
		r := newRig(t, f, Options{Streams: 1})
		time.Sleep(time.Minute)
		if f.opened() != 5 || !r.receiving() {
			t.Errorf("%d streams, receiving: %v", f.opened(), r.receiving())
		}
		r.end()
	})
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		_, final := whatToCheck[code]
		bubble(t, "that are refused with "+code.String(), func(t *testing.T) {
			f := newFake(t, 0)
			f.deaf = true
			f.onRecv = func() error { return status.Error(code, "the reason") }
			var ends, refusals atomic.Int32
			r := newRig(t, f, Options{Subscription: longName, OnStreamEnd: func(err error, refused bool) {
				ends.Add(1)
				if refused {
					refusals.Add(1)
				}
				if Code(err) != code.String() {
					t.Errorf("the observer is given %v", err)
				}
			}})
			time.Sleep(time.Minute)
			synctest.Wait()
			if h := r.Health(); h.Open != 0 || h.EverOpen || time.Since(h.NoneSince) < time.Minute || !strings.HasPrefix(h.LastError, code.String()+": ") {
				t.Errorf("after a minute: %+v", h)
			}
			select {
			case err := <-r.ended:
				t.Errorf("ended after a minute with %v", err)
			default:
			}
			time.Sleep(80 * time.Second) // two minutes, and the longest pause
			synctest.Wait()
			if (refusals.Load() == ends.Load()) != final {
				t.Errorf("%d of %d ends are refusals", refusals.Load(), ends.Load())
			}
			select {
			case err := <-r.ended:
				if !final || status.Code(err) != code || !strings.Contains(err.Error(), longName) || !strings.Contains(err.Error(), "check ") {
					t.Errorf("ended with %v", err)
				}
			default:
				if final {
					t.Error("goes on")
				}
				r.stop()
			}
			r.Close()
		})
	}
	bubble(t, "that are refused now and then do not end receiving", func(t *testing.T) {
		f := newFake(t, 0)
		opened := 0
		f.onStream = func() error {
			if opened++; opened%3 == 0 {
				return status.Error(codes.Unavailable, "a fault in between")
			}
			return status.Error(codes.PermissionDenied, "no")
		}
		r := newRig(t, f, Options{Streams: 1})
		time.Sleep(20 * time.Minute)
		r.end()
	})
	bubble(t, "that go silent are opened again", func(t *testing.T) {
		f := newFake(t, 10)
		r := newRig(t, f, Options{})
		time.Sleep(10 * time.Minute)
		if f.opened() != 4 {
			t.Errorf("%d streams in ten quiet minutes", f.opened())
		}
		if each := f.pinged() / 4; each < 20 || each > 22 {
			t.Errorf("each stream was pinged %d times in 10 minutes, want every 30 s", each)
		}
		f.set(func() { f.mute = true; f.notify() })
		time.Sleep(time.Second)
		f.set(func() { f.mute = false }) // the open streams do not notice
		f.publish(10, 10)
		time.Sleep(59 * time.Second)
		if fresh, _ := r.box.counts(); fresh != 20 {
			t.Errorf("%d messages a minute after the streams went silent", fresh)
		}
		if f.opened() != 8 {
			t.Errorf("%d streams were opened", f.opened())
		}
		r.end()
	})
	bubble(t, "that are blocked are not silent", func(t *testing.T) {
		f := newFake(t, 1000)
		r := newRig(t, f, Options{MaxEvents: 100, Streams: 1})
		time.Sleep(10 * time.Minute)
		if f.opened() != 1 || f.pinged() < 20 {
			t.Errorf("%d streams, %d pings", f.opened(), f.pinged())
		}
		r.end()
	})
	bubble(t, "are received from again after a pause", func(t *testing.T) {
		f := newFake(t, 100)
		r := newRig(t, f, Options{})
		for range 3 {
			synctest.Wait()
			r.stop()
			f.publish(100, 10)
			time.Sleep(5 * time.Minute)
			r.start()
		}
		synctest.Wait()
		if fresh, again := r.box.counts(); fresh != 400 || again != 0 {
			t.Errorf("%d messages, %d again", fresh, again)
		}
		r.end()
	})
	bubble(t, "end while they wait for room", func(t *testing.T) {
		f := newFake(t, 1000)
		r := newRig(t, f, Options{MaxEvents: 10})
		synctest.Wait()
		began := time.Now()
		r.end()
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

func TestCloseEndsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, 10)
		r := newRig(t, f, Options{})
		synctest.Wait()
		r.stop()
		finished := false
		f.set(func() {
			f.onAck = func(ctx context.Context, _ []string) error {
				<-ctx.Done()
				time.Sleep(time.Second) // as long as the transport takes to notice
				finished = true
				return ctx.Err()
			}
		})
		r.Ack(r.box.all())
		synctest.Wait()
		r.Close()
		if !finished {
			t.Error("Close has not waited for the request on its way")
		}
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
