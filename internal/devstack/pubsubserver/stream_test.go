package pubsubserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pubsub "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestStreamDelivers(t *testing.T) {
	f := newFixture(t)
	f.publish(2500)
	stream := f.stream(&pubsubpb.StreamingPullRequest{})
	var all []*pubsubpb.ReceivedMessage
	for len(all) < 2500 {
		resp, err := stream.Recv()
		must(t, err)
		if n := len(resp.GetReceivedMessages()); n > 1000 {
			t.Errorf("a response of %d messages", n)
		}
		if resp.GetSubscriptionProperties() == nil {
			t.Error("no subscription properties")
		}
		all = append(all, resp.GetReceivedMessages()...)
	}
	// Later messages, acknowledgements and releases use the same stream.
	f.publish(1)
	all = append(all, receive(t, stream, 1)...)
	ids := ackIDs(all)
	must(t, stream.Send(&pubsubpb.StreamingPullRequest{
		AckIds: ids[:100], ModifyDeadlineAckIds: ids[100:102], ModifyDeadlineSeconds: []int32{0, 600},
	}))
	again := receive(t, stream, 1)
	if again[0].GetMessage().GetMessageId() != all[100].GetMessage().GetMessageId() {
		t.Errorf("delivered again: %v", again)
	}
	f.wantStats(Stats{Leased: 2401, Acked: 100, Delivered: 2502, Redelivered: 1})
	must(t, stream.CloseSend())
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after closing: %v", err)
	}
	// Closing releases nothing.
	f.wantStats(Stats{Leased: 2401, Acked: 100, Delivered: 2502, Redelivered: 1})
}

func TestPingsAreAnswered(t *testing.T) {
	f := newFixture(t)
	stream := f.stream(&pubsubpb.StreamingPullRequest{ProtocolVersion: 1, MaxOutstandingMessages: 1})
	for range 2 {
		must(t, stream.Send(&pubsubpb.StreamingPullRequest{}))
		resp, err := stream.Recv()
		must(t, err)
		if len(resp.GetReceivedMessages()) != 0 {
			t.Errorf("answered %v", resp)
		}
		f.publish(1)
		must(t, f.ack(ackIDs(receive(t, stream, 1))...))
	}
}

func TestStreamRequestsAreChecked(t *testing.T) {
	f := newFixture(t)
	for name, test := range map[string]struct {
		first, second *pubsubpb.StreamingPullRequest
		want          codes.Code
	}{
		"no such subscription": {first: &pubsubpb.StreamingPullRequest{Subscription: testSub + "x"}, want: codes.NotFound},
		"short deadline":       {first: &pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 9}, want: codes.InvalidArgument},
		"long deadline":        {first: &pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 601}, want: codes.InvalidArgument},
		"subscription twice":   {second: &pubsubpb.StreamingPullRequest{Subscription: testSub}, want: codes.InvalidArgument},
		"limits twice":         {second: &pubsubpb.StreamingPullRequest{MaxOutstandingMessages: 1}, want: codes.InvalidArgument},
		"invalid ack id":       {second: &pubsubpb.StreamingPullRequest{AckIds: []string{"x"}}, want: codes.InvalidArgument},
		"too large":            {second: &pubsubpb.StreamingPullRequest{AckIds: []string{strings.Repeat("x", 600_000)}}, want: codes.InvalidArgument},
		"uneven": {second: &pubsubpb.StreamingPullRequest{
			ModifyDeadlineAckIds: []string{"x"}, ModifyDeadlineSeconds: []int32{1, 2},
		}, want: codes.InvalidArgument},
		"later short deadline": {second: &pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 1}, want: codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			if test.first == nil {
				test.first = &pubsubpb.StreamingPullRequest{}
			}
			stream := f.stream(test.first)
			if test.second != nil {
				must(t, stream.Send(test.second))
			}
			_, err := stream.Recv()
			wantCode(t, err, test.want)
		})
	}
}

func TestFlowControlByMessages(t *testing.T) {
	f := newFixture(t)
	f.publish(30)
	stream := f.stream(&pubsubpb.StreamingPullRequest{MaxOutstandingMessages: 10})
	first := ackIDs(receive(t, stream, 10))
	f.wantStats(Stats{Backlog: 20, Leased: 10, Delivered: 10})
	// Each way to be rid of a message makes room for another.
	must(t, f.ack(first[0]))
	receive(t, stream, 1)
	must(t, f.modack(0, first[1]))
	receive(t, stream, 1)
	must(t, f.modack(1, first[2]))
	receive(t, stream, 1)
	f.wantStats(Stats{Backlog: 19, Leased: 10, Acked: 1, Delivered: 13, Redelivered: f.Stats(testSub).Redelivered})
	// Another stream has room of its own.
	other := f.stream(&pubsubpb.StreamingPullRequest{})
	receive(t, other, 19)
	must(t, other.CloseSend())
	eventually(t, "the other stream ends", func() bool { return f.Streams(testSub) == 1 })
	f.ExpireLeases(testSub)
	receive(t, stream, 10)
}

func TestFlowControlByBytes(t *testing.T) {
	f := newFixture(t)
	for range 5 {
		_, err := f.Publish(testTopic, &pubsubpb.PubsubMessage{Data: bytes.Repeat([]byte("x"), 1000)})
		must(t, err)
	}
	stream := f.stream(&pubsubpb.StreamingPullRequest{MaxOutstandingBytes: 1500})
	msgs := receive(t, stream, 2) // the second reaches the limit
	f.wantStats(Stats{Backlog: 3, Leased: 2, Delivered: 2})
	must(t, f.ack(msgs[0].GetAckId()))
	receive(t, stream, 1)
	f.wantStats(Stats{Backlog: 2, Leased: 2, Acked: 1, Delivered: 3})
}

func TestLargeMessages(t *testing.T) {
	f := newFixture(t)
	for range 2 {
		_, err := f.topics.Publish(f.ctx, &pubsubpb.PublishRequest{Topic: testTopic, Messages: []*pubsubpb.PubsubMessage{
			{Data: make([]byte, MaxPublishBytes-100)},
		}})
		must(t, err)
	}
	stream := f.stream(&pubsubpb.StreamingPullRequest{})
	for range 2 {
		if n := len(receive(t, stream, 1)[0].GetMessage().GetData()); n != MaxPublishBytes-100 {
			t.Errorf("%d bytes", n)
		}
	}
}

func TestStreamsEnd(t *testing.T) {
	f := newFixture(t)
	f.publish(1)
	first := f.stream(&pubsubpb.StreamingPullRequest{})
	receive(t, first, 1)
	second := f.stream(&pubsubpb.StreamingPullRequest{})
	eventually(t, "two streams", func() bool { return f.Streams(testSub) == 2 })
	f.BreakStreams(nil)
	for _, stream := range []pubsubpb.Subscriber_StreamingPullClient{first, second} {
		_, err := stream.Recv()
		wantCode(t, err, codes.Unavailable)
	}
	f.wantStats(Stats{Leased: 1, Delivered: 1})

	third := f.stream(&pubsubpb.StreamingPullRequest{})
	eventually(t, "a stream", func() bool { return f.Streams(testSub) == 1 })
	must(t, f.subs.DeleteSubscription(f.ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: testSub}))
	_, err := third.Recv()
	wantCode(t, err, codes.NotFound)
}

func TestStreamFaults(t *testing.T) {
	f := newFixture(t)
	f.publish(3)
	f.SetFault(func(method string, req any) error {
		if method == "StreamingPull" {
			return status.Error(codes.PermissionDenied, "no")
		}
		return nil
	})
	_, err := f.stream(&pubsubpb.StreamingPullRequest{}).Recv()
	wantCode(t, err, codes.PermissionDenied)
	f.SetFault(func(method string, req any) error {
		if method == "StreamingPull.Send" {
			if req != (SendInfo{Subscription: testSub, Messages: 3}) {
				t.Errorf("%#v", req)
			}
			return status.Error(codes.Internal, "cut")
		}
		return nil
	})
	_, err = f.stream(&pubsubpb.StreamingPullRequest{}).Recv()
	wantCode(t, err, codes.Internal)
	f.wantStats(Stats{Leased: 3, Delivered: 3})
}

func TestCloseEndsEverything(t *testing.T) {
	f := newFixture(t)
	stream := f.stream(&pubsubpb.StreamingPullRequest{})
	eventually(t, "a stream", func() bool { return f.Streams(testSub) == 1 })
	must(t, f.Close())
	must(t, f.Close())
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
}

func TestHighLevelClient(t *testing.T) {
	f := newFixture(t)
	client := f.client()
	publisher := client.Publisher(testTopic)
	const n = 500
	var results []*pubsub.PublishResult
	for range n {
		results = append(results, publisher.Publish(f.ctx, &pubsub.Message{Data: []byte("x"), Attributes: map[string]string{"k": "v"}}))
	}
	published := map[string]bool{}
	for _, r := range results {
		id, err := r.Get(f.ctx)
		must(t, err)
		published[id] = true
	}
	publisher.Stop()

	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	var mu sync.Mutex
	nacked := map[string]bool{}
	var acked atomic.Int64
	err := client.Subscriber(testSub).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		mu.Lock()
		defer mu.Unlock()
		if !published[m.ID] {
			t.Errorf("unknown message %s", m.ID)
		}
		if !nacked[m.ID] {
			nacked[m.ID] = true
			m.Nack()
			return
		}
		m.Ack()
		if acked.Add(1) == n {
			cancel()
		}
	})
	must(t, err)
	if got := f.Stats(testSub); got.Acked != n || got.Backlog != 0 || got.Redelivered < n {
		t.Errorf("%+v", got)
	}
}

func TestSeveralConsumers(t *testing.T) {
	f := newFixture(t)
	const n, consumers = 20_000, 4
	var seen sync.Map
	var received atomic.Int64
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	for range consumers {
		group.Go(func() {
			stream, err := f.subs.StreamingPull(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if err := stream.Send(&pubsubpb.StreamingPullRequest{Subscription: testSub, StreamAckDeadlineSeconds: 60, MaxOutstandingMessages: 500}); err != nil {
				t.Error(err)
				return
			}
			for {
				resp, err := stream.Recv()
				if err != nil {
					return
				}
				for _, m := range resp.GetReceivedMessages() {
					if _, twice := seen.LoadOrStore(m.GetMessage().GetMessageId(), true); twice {
						t.Errorf("delivered twice: %s", m.GetMessage().GetMessageId())
					}
				}
				if err := f.ack(ackIDs(resp.GetReceivedMessages())...); err != nil {
					t.Error(err)
				}
				if received.Add(int64(len(resp.GetReceivedMessages()))) == n {
					cancel()
				}
			}
		})
	}
	for range n / 1000 {
		f.publish(1000)
	}
	group.Wait()
	f.wantStats(Stats{Acked: n, Delivered: n})
}

func TestAddressCanBeChosen(t *testing.T) {
	f := newFixture(t)
	addr := f.Addr()
	must(t, f.Close())
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	var s *Server
	eventually(t, "listening again", func() (ok bool) {
		var err error
		s, err = Start(ctx, Options{Addr: addr})
		return err == nil
	})
	if s.Addr() != addr {
		t.Errorf("listens on %s", s.Addr())
	}
	must(t, s.Close())
	_, err := Start(ctx, Options{Addr: "256.0.0.1:0"})
	if err == nil {
		t.Error("started on an address that does not exist")
	}
}
