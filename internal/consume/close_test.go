package consume

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// TestStreamEndsInGoodOrder ends a stream's context: the client asks Pub/Sub to end the
// stream, instead of cutting it.
func TestStreamEndsInGoodOrder(t *testing.T) {
	s, c := newServer(t)
	publish(t, s, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := c.Stream(ctx, Flow{Lease: 30 * time.Second, MaxEvents: 100, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for got := 0; got < 10; {
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		messages, err := newReader().next(response)
		if err != nil {
			t.Fatal(err)
		}
		got += len(messages)
	}
	cancel()
	if _, err := stream.Recv(); !errors.Is(err, errEnded) {
		t.Errorf("got %v, want the server's own end", err)
	}
	if _, err := c.Stream(ctx, Flow{Lease: 30 * time.Second, MaxEvents: 100, MaxBytes: 1 << 20}); err == nil {
		t.Error("no error for a context that has ended")
	}
}

// lingering has streams that take a while to end.
type lingering struct {
	*fake
	last     Response // delivered meanwhile
	released atomic.Int64
}

const linger = 500 * time.Millisecond

func (l *lingering) Stream(ctx context.Context, flow Flow) (Stream, error) {
	s, err := l.fake.Stream(ctx, flow)
	return &lingeringStream{Stream: s, ctx: ctx, last: l.last}, err
}

func (l *lingering) ModifyAckDeadline(ctx context.Context, ids []string, lease time.Duration) error {
	if lease == 0 {
		l.released.Add(int64(len(ids)))
	}
	return l.fake.ModifyAckDeadline(ctx, ids, lease)
}

type lingeringStream struct {
	Stream
	ctx  context.Context
	last Response
}

func (s *lingeringStream) Recv() (Response, error) {
	received, err := s.Stream.Recv()
	if err != nil && s.ctx.Err() != nil {
		time.Sleep(linger) // in fake time
		if last := s.last; last != nil {
			s.last = nil
			return last, nil
		}
	}
	return received, err
}

// TestNackWaitsForStreams nacks while streams are being closed: Pub/Sub would redeliver the
// messages over them.
func TestNackWaitsForStreams(t *testing.T) {
	bubble(t, "release", func(t *testing.T) {
		l := &lingering{fake: newFake(t, 20)}
		l.last = encode(&pubsubpb.ReceivedMessage{AckId: "late", Message: &pubsubpb.PubsubMessage{MessageId: "late"}})
		r := newRig(t, l, Options{Streams: 1})
		synctest.Wait()
		r.cancel()
		r.Nack(r.box.all())
		time.Sleep(linger / 2)
		synctest.Wait()
		if n := l.released.Load(); n != 0 {
			t.Errorf("%d messages were released while a stream was being closed", n)
		}
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := l.released.Load(); n != 20 {
			t.Errorf("%d messages were released, want 20", n)
		}
		if n, _ := r.box.counts(); n != 21 {
			t.Errorf("%d messages came, want the last one, too", n)
		}
		r.Close()
	})
}
