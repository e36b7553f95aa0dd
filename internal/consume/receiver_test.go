package consume

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var errUnavailable = status.Error(codes.Unavailable, "unavailable")

// bubble runs a test in fake time.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
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
