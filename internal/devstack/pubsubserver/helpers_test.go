package pubsubserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2"
	apiv1 "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.uber.org/goleak"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	testTopic   = "projects/p/topics/events"
	testSub     = "projects/p/subscriptions/relay"
	testDLQ     = "projects/p/topics/dead"
	testDLQSub  = "projects/p/subscriptions/dead-oncall"
	testTimeout = 20 * time.Second
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// A dependency of the clients starts it when the program does.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
		// The high-level client's goroutine notices only at its next tick, up to
		// 10 s later, that its Receive has ended.
		goleak.IgnoreTopFunction("cloud.google.com/go/pubsub/v2.(*messageIterator).streamKeepAliveHandler"),
	)
}

// fixture is a server with a topic and a subscription, and clients of it.
type fixture struct {
	*Server
	t      testing.TB
	ctx    context.Context
	topics *apiv1.TopicAdminClient
	subs   *apiv1.SubscriptionAdminClient
}

func newFixture(t testing.TB, opts ...SubscriptionOption) *fixture {
	t.Helper()
	return newFixtureWith(t, Options{}, opts...)
}

func newFixtureWith(t testing.TB, options Options, opts ...SubscriptionOption) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	if options.PullWait == 0 {
		options.PullWait = 100 * time.Millisecond
	}
	s, err := Start(ctx, options)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.CreateTopic(testTopic))
	must(t, s.CreateTopic(testDLQ))
	must(t, s.CreateSubscription(testDLQSub, testDLQ))
	must(t, s.CreateSubscription(testSub, testTopic, opts...))

	topics, err := apiv1.NewTopicAdminClient(ctx, clientOptions(s)...)
	must(t, err)
	t.Cleanup(func() { _ = topics.Close() })
	subs, err := apiv1.NewSubscriptionAdminClient(ctx, clientOptions(s)...)
	must(t, err)
	t.Cleanup(func() { _ = subs.Close() })
	return &fixture{Server: s, t: t, ctx: ctx, topics: topics, subs: subs}
}

func clientOptions(s *Server) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(s.Addr()),
		option.WithoutAuthentication(),
		option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

func (f *fixture) client() *pubsub.Client {
	f.t.Helper()
	c, err := pubsub.NewClient(f.ctx, "p", clientOptions(f.Server)...)
	must(f.t, err)
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// publish publishes n numbered messages in-process.
func (f *fixture) publish(n int) []string {
	f.t.Helper()
	msgs := make([]*pubsubpb.PubsubMessage, n)
	for i := range msgs {
		msgs[i] = &pubsubpb.PubsubMessage{Data: fmt.Appendf(nil, "message %d", i), Attributes: map[string]string{"n": fmt.Sprint(i)}}
	}
	ids, err := f.Publish(testTopic, msgs...)
	must(f.t, err)
	return ids
}

func (f *fixture) pull(n int) []*pubsubpb.ReceivedMessage {
	f.t.Helper()
	resp, err := f.subs.Pull(f.ctx, &pubsubpb.PullRequest{Subscription: testSub, MaxMessages: int32(n)})
	must(f.t, err)
	return resp.GetReceivedMessages()
}

func (f *fixture) ack(ids ...string) error {
	return f.subs.Acknowledge(f.ctx, &pubsubpb.AcknowledgeRequest{Subscription: testSub, AckIds: ids})
}

func (f *fixture) modack(seconds int, ids ...string) error {
	return f.subs.ModifyAckDeadline(f.ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription: testSub, AckIds: ids, AckDeadlineSeconds: int32(seconds),
	})
}

// stream opens a StreamingPull.
func (f *fixture) stream(first *pubsubpb.StreamingPullRequest) pubsubpb.Subscriber_StreamingPullClient {
	f.t.Helper()
	stream, err := f.subs.StreamingPull(f.ctx)
	must(f.t, err)
	if first.GetSubscription() == "" {
		first.Subscription = testSub
	}
	if first.GetStreamAckDeadlineSeconds() == 0 {
		first.StreamAckDeadlineSeconds = 60
	}
	// EOF says that the server has ended the stream; receiving says why.
	if err := stream.Send(first); err != nil && !errors.Is(err, io.EOF) {
		f.t.Fatal(err)
	}
	return stream
}

// receive reads a stream until it has n messages.
func receive(t testing.TB, stream pubsubpb.Subscriber_StreamingPullClient, n int) []*pubsubpb.ReceivedMessage {
	t.Helper()
	var all []*pubsubpb.ReceivedMessage
	for len(all) < n {
		resp, err := stream.Recv()
		must(t, err)
		all = append(all, resp.GetReceivedMessages()...)
	}
	if len(all) != n {
		t.Fatalf("received %d messages, want %d", len(all), n)
	}
	return all
}

func ackIDs(msgs []*pubsubpb.ReceivedMessage) []string {
	ids := make([]string, len(msgs))
	for i, m := range msgs {
		ids[i] = m.GetAckId()
	}
	return ids
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("code %v (%v), want %v", got, err, want)
	}
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func (f *fixture) wantStats(want Stats) {
	f.t.Helper()
	if got := f.Stats(testSub); got != want {
		f.t.Errorf("stats %+v, want %+v", got, want)
	}
}
