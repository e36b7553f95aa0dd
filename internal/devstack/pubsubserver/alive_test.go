package pubsubserver

import (
	"context"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
)

type pullClient = pubsubpb.Subscriber_StreamingPullClient

func TestStreamsOfSilentClientsEnd(t *testing.T) {
	const idle = 300 * time.Millisecond
	f := newFixtureWith(t, Options{StreamIdle: idle})
	start := time.Now()
	quiet := f.stream(&pubsubpb.StreamingPullRequest{ProtocolVersion: 1})
	talking := f.stream(&pubsubpb.StreamingPullRequest{ProtocolVersion: 1})
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { // it pings until the quiet one has ended
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			case <-time.After(idle / 10):
			}
			if err := talking.Send(&pubsubpb.StreamingPullRequest{}); err != nil {
				stopped <- err
				return
			}
		}
	}()
	// The server's own messages do not count.
	f.publish(1)
	_, err := quiet.Recv()
	for err == nil {
		_, err = quiet.Recv()
	}
	wantCode(t, err, codes.Unavailable)
	if elapsed := time.Since(start); elapsed < idle {
		t.Errorf("ended after %v", elapsed)
	}
	if n := f.Streams(testSub); n != 1 {
		t.Errorf("%d streams are open, want the one that talks", n)
	}
	close(stop)
	must(t, <-stopped)
}

func TestIdleByDefault(t *testing.T) {
	if got := (Options{}).withDefaults(); got.StreamIdle != time.Minute || got.leaseSeconds() != 600 {
		t.Errorf("%+v", got)
	}
	for d, want := range map[time.Duration]int{time.Millisecond: 1, time.Second: 1, 1500 * time.Millisecond: 2, time.Hour: 600} {
		if got := (Options{DeliveryLease: d}).leaseSeconds(); got != want {
			t.Errorf("a lease of %v takes %d s, want %d", d, got, want)
		}
	}
}

func TestPingsOfOldClientsAreNotAnswered(t *testing.T) {
	f := newFixture(t)
	stream := f.stream(&pubsubpb.StreamingPullRequest{})
	for range 3 {
		must(t, stream.Send(&pubsubpb.StreamingPullRequest{}))
	}
	eventually(t, "the pings arrive", func() bool { return f.Pings(testSub) == 3 })
	f.publish(1)
	// The first response is the one with the message.
	resp, err := stream.Recv()
	must(t, err)
	if len(resp.GetReceivedMessages()) != 1 {
		t.Errorf("answered %v", resp)
	}
}

func TestDeliveryLease(t *testing.T) {
	f := newFixture(t)
	f.publish(2)
	stream := f.stream(&pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 10})
	msgs := receive(t, stream, 2)
	must(t, stream.Send(&pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 20, ModifyDeadlineAckIds: []string{msgs[1].GetAckId()}, ModifyDeadlineSeconds: []int32{30}}))
	sub, err := f.registry.subscription(testSub)
	must(t, err)
	remaining := func(i uint32) time.Duration {
		sub.queue.mu.Lock()
		defer sub.queue.mu.Unlock()
		return time.Until(sub.queue.slots.at(i).deadline)
	}
	eventually(t, "the deadline is modified", func() bool { return remaining(1) < time.Minute })
	if got := remaining(0); got < 595*time.Second || got > 600*time.Second {
		t.Errorf("the lease of a delivery: %v", got)
	}
	if got := remaining(1); got < 25*time.Second || got > 30*time.Second {
		t.Errorf("the lease of a modified deadline: %v", got)
	}
	must(t, stream.CloseSend())
	eventually(t, "the stream ends", func() bool { return f.Streams(testSub) == 0 })
	f.publish(1)
	f.pull(1)
	if got := remaining(2); got > 10*time.Second {
		t.Errorf("the lease of a pull: %v", got)
	}
}

func TestShortDeliveryLease(t *testing.T) {
	f := newFixtureWith(t, Options{DeliveryLease: time.Second})
	f.publish(1)
	stream := f.stream(&pubsubpb.StreamingPullRequest{})
	receive(t, stream, 1)
	receive(t, stream, 1) // again, long before the ten minutes of the default
}

func TestSilenceStreams(t *testing.T) {
	f := newFixtureWith(t, Options{StreamIdle: 200 * time.Millisecond})
	f.publish(1)
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	silent, err := f.subs.StreamingPull(ctx)
	must(t, err)
	must(t, silent.Send(&pubsubpb.StreamingPullRequest{Subscription: testSub, StreamAckDeadlineSeconds: 60, ProtocolVersion: 1}))
	held := ackIDs(receive(t, silent, 1))
	if n := f.SilenceStreams(testSub); n != 1 {
		t.Errorf("%d streams silenced", n)
	}
	if n := f.SilenceStreams(testSub); n != 0 {
		t.Errorf("%d streams silenced twice", n)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := silent.Recv()
		ended <- err
	}()
	// It hears nothing: neither pings nor requests nor a half close, and it is never idle.
	must(t, silent.Send(&pubsubpb.StreamingPullRequest{}))
	must(t, silent.Send(&pubsubpb.StreamingPullRequest{AckIds: held}))
	must(t, silent.CloseSend())
	eventually(t, "the ping arrives", func() bool { return f.Pings(testSub) == 1 })
	f.publish(3)
	f.BreakStreams(nil)
	other := f.stream(&pubsubpb.StreamingPullRequest{})
	receive(t, other, 3)
	select {
	case err := <-ended:
		t.Errorf("ended: %v", err)
	case <-time.After(500 * time.Millisecond): // longer than StreamIdle
	}
	if got := f.Stats(testSub); got.Leased != 4 || got.Acked != 0 {
		t.Errorf("%+v", got)
	}
	// Unary calls work as ever, for what it holds, too.
	must(t, f.ack(held...))
	cancel()
	wantCode(t, <-ended, codes.Canceled)
	eventually(t, "the silent stream ends", func() bool { return f.Streams(testSub) == 0 })
}

func TestSilenceOpenings(t *testing.T) {
	f := newFixture(t)
	f.publish(1)
	f.SilenceOpenings(2)
	first, second := f.stream(&pubsubpb.StreamingPullRequest{ProtocolVersion: 1}), f.stream(&pubsubpb.StreamingPullRequest{})
	for _, s := range []pullClient{first, second} {
		must(t, s.Send(&pubsubpb.StreamingPullRequest{}))
	}
	eventually(t, "the pings arrive", func() bool { return f.Pings(testSub) == 2 })
	third := f.stream(&pubsubpb.StreamingPullRequest{})
	receive(t, third, 1)
	f.wantStats(Stats{Leased: 1, Delivered: 1})
	if n := f.Streams(testSub); n != 3 {
		t.Errorf("%d streams", n)
	}
}
