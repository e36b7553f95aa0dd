package pubsubserver

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	apiv1 "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

const benchmarkMessageBytes = 350

func benchmarkMessages(n int) []*pubsubpb.PubsubMessage {
	msgs := make([]*pubsubpb.PubsubMessage, n)
	for i := range msgs {
		msgs[i] = &pubsubpb.PubsubMessage{
			Data:       bytes.Repeat([]byte("x"), benchmarkMessageBytes-40),
			Attributes: map[string]string{"service_id": "bench", "service_environment": "dev"},
		}
	}
	return msgs
}

// BenchmarkStreamingPull receives and acknowledges over gRPC, clients and server
// in one process.
func BenchmarkStreamingPull(b *testing.B) {
	for _, streams := range []int{1, 4} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			s, subs := benchmarkServer(b)
			msgs := benchmarkMessages(1000)
			for published := 0; published < b.N; published += len(msgs) {
				if _, err := s.Publish(testTopic, msgs[:min(len(msgs), b.N-published)]...); err != nil {
					b.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			var received atomic.Int64
			var group sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range streams {
				group.Go(func() { benchmarkConsume(ctx, cancel, b, subs, &received) })
			}
			group.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			if stats := s.Stats(testSub); stats.Acked != b.N {
				b.Errorf("%+v, want %d acknowledged", stats, b.N)
			}
		})
	}
}

func benchmarkServer(b *testing.B) (*Server, *apiv1.SubscriptionAdminClient) {
	b.Helper()
	s, err := Start(b.Context(), Options{})
	must(b, err)
	b.Cleanup(func() { must(b, s.Close()) })
	must(b, s.CreateTopic(testTopic))
	must(b, s.CreateSubscription(testSub, testTopic))
	subs, err := apiv1.NewSubscriptionAdminClient(b.Context(), clientOptions(s)...)
	must(b, err)
	b.Cleanup(func() { _ = subs.Close() })
	return s, subs
}

func benchmarkConsume(ctx context.Context, cancel context.CancelFunc, b *testing.B, subs *apiv1.SubscriptionAdminClient, received *atomic.Int64) {
	stream, err := subs.StreamingPull(ctx)
	if err != nil { // the others were faster
		return
	}
	if err := stream.Send(&pubsubpb.StreamingPullRequest{
		Subscription: testSub, StreamAckDeadlineSeconds: 60, MaxOutstandingMessages: 20_000,
	}); err != nil {
		return
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return
		}
		ids := ackIDs(resp.GetReceivedMessages())
		if err := subs.Acknowledge(b.Context(), &pubsubpb.AcknowledgeRequest{Subscription: testSub, AckIds: ids}); err != nil {
			b.Error(err)
			return
		}
		if received.Add(int64(len(ids))) == int64(b.N) {
			cancel()
		}
	}
}

// BenchmarkPublish publishes over gRPC, 1000 messages a request.
func BenchmarkPublish(b *testing.B) {
	s, _ := benchmarkServer(b)
	topics, err := apiv1.NewTopicAdminClient(b.Context(), clientOptions(s)...)
	must(b, err)
	b.Cleanup(func() { _ = topics.Close() })
	msgs := benchmarkMessages(1000)
	b.ReportAllocs()
	b.ResetTimer()
	for published := 0; published < b.N; published += len(msgs) {
		_, err := topics.Publish(b.Context(), &pubsubpb.PublishRequest{Topic: testTopic, Messages: msgs[:min(len(msgs), b.N-published)]})
		must(b, err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkQueue is the server's part alone: a batch of 1000 leased and
// acknowledged.
func BenchmarkQueue(b *testing.B) {
	q := newQueue(1, 0)
	c := newConsumer()
	msgs := make([]message, 1000)
	for i := range msgs {
		msgs[i] = message{encoded: make([]byte, benchmarkMessageBytes), number: uint64(i)}
	}
	var out []delivered
	ids := make([]string, 0, 1000)
	b.ReportAllocs()
	for n := 0; n < b.N; n += 1000 {
		q.put(msgs)
		out, _ = q.take(c, 1000, 10, out[:0])
		ids = ids[:0]
		for _, d := range out {
			ids = append(ids, string(appendAckID(nil, 1, d.slot, d.delivery)))
		}
		q.ack(ids)
	}
}
