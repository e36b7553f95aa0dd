package pubsubserver

import (
	"context"
	"testing"
	"time"

	apiv1 "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
)

func TestAfterDelay(t *testing.T) {
	const delay = 200 * time.Millisecond
	f := newFixture(t)
	f.publish(1)
	id := f.pull(1)[0].GetAckId()
	f.SetFault(func(method string, _ any) error {
		if method == "Acknowledge" || method == "StreamingPull.Send" {
			return AfterDelay(delay)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(f.ctx, delay/4)
	defer cancel()
	wantCode(t, f.subs.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: testSub, AckIds: []string{id}}), codes.DeadlineExceeded)
	f.wantStats(Stats{Leased: 1, Delivered: 1})
	start := time.Now()
	must(t, f.ack(id))
	f.wantStats(Stats{Acked: 1, Delivered: 1})
	f.publish(1)
	receive(t, f.stream(&pubsubpb.StreamingPullRequest{}), 1)
	if elapsed := time.Since(start); elapsed < 2*delay {
		t.Errorf("two delays took %v", elapsed)
	}
}

func TestAnswerAfter(t *testing.T) {
	const delay = 200 * time.Millisecond
	f := newFixture(t)
	f.publish(1)
	id := f.pull(1)[0].GetAckId()
	f.SetFault(func(string, any) error { return AnswerAfter(time.Hour) })
	ctx, cancel := context.WithCancel(f.ctx)
	answered := make(chan error, 1)
	go func() {
		answered <- f.subs.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: testSub, AckIds: []string{id}})
	}()
	eventually(t, "it is served before it is answered", func() bool { return f.Stats(testSub).Acked == 1 })
	cancel()
	wantCode(t, <-answered, codes.Canceled)
	f.SetFault(func(string, any) error { return AnswerAfter(delay) })
	start := time.Now()
	must(t, f.ack(id))
	if elapsed := time.Since(start); elapsed < delay {
		t.Errorf("the answer took %v", elapsed)
	}
}

func TestErrEmpty(t *testing.T) {
	f := newFixtureWith(t, Options{PullWait: 200 * time.Millisecond})
	f.publish(3)
	f.SetFault(func(string, any) error { return ErrEmpty })
	start := time.Now()
	resp, err := f.subs.Pull(f.ctx, &pubsubpb.PullRequest{Subscription: testSub, MaxMessages: 3, ReturnImmediately: true}) //nolint:staticcheck // deprecated, and yet served
	must(t, err)
	if len(resp.GetReceivedMessages()) != 0 {
		t.Errorf("answered %v", resp)
	}
	if got := f.pull(3); len(got) != 0 || time.Since(start) < 200*time.Millisecond {
		t.Errorf("pulled %d after %v", len(got), time.Since(start))
	}
	f.wantStats(Stats{Backlog: 3})
	f.publish(1) // other calls are served
	f.SetFault(nil)
	if got := f.pull(10); len(got) != 4 {
		t.Errorf("pulled %d", len(got))
	}
}

func TestExpireLeasesOfSome(t *testing.T) {
	f := newFixture(t)
	messages := f.publish(3)
	ids := ackIDs(f.pull(3))
	f.ExpireLeases(testSub, messages[1], "no number", "1")
	f.wantStats(Stats{Backlog: 1, Leased: 2, Delivered: 3})
	again := f.pull(3)
	if len(again) != 1 || again[0].GetMessage().GetMessageId() != messages[1] {
		t.Errorf("pulled %v", again)
	}
	must(t, f.ack(ids...)) // the second is out of date
	f.wantStats(Stats{Leased: 1, Acked: 2, Delivered: 4, Redelivered: 1})
}

func TestRefuseRequests(t *testing.T) {
	f := newFixture(t)
	f.Front().Refuse(2)
	_, err := f.stream(&pubsubpb.StreamingPullRequest{}).Recv()
	wantCode(t, err, codes.Unimplemented)
	wantCode(t, f.ack("id"), codes.Unimplemented)
	wantCode(t, f.ack("id"), codes.InvalidArgument)
}

func TestFreezeConnection(t *testing.T) {
	f := newFixture(t)
	f.publish(1)
	stream := f.stream(&pubsubpb.StreamingPullRequest{MaxOutstandingMessages: 1})
	receive(t, stream, 1)
	before := len(f.Front().Peers())
	if !f.Front().Freeze(f.Openings(testSub)[0].Peer) || f.Front().Freeze("127.0.0.1:1") {
		t.Error("not the only one")
	}
	ctx, cancel := context.WithTimeout(f.ctx, 100*time.Millisecond)
	defer cancel()
	_, err := f.subs.Pull(ctx, &pubsubpb.PullRequest{Subscription: testSub, MaxMessages: 1})
	wantCode(t, err, codes.DeadlineExceeded)
	f.publish(1)
	subs, err := apiv1.NewSubscriptionAdminClient(f.ctx, clientOptions(f.Server)...)
	must(t, err)
	defer func() { _ = subs.Close() }()
	resp, err := subs.Pull(f.ctx, &pubsubpb.PullRequest{Subscription: testSub, MaxMessages: 1})
	must(t, err)
	if len(resp.GetReceivedMessages()) != 1 || len(f.Front().Peers()) != before+1 {
		t.Errorf("%d connections, pulled %v", len(f.Front().Peers()), resp)
	}
}
