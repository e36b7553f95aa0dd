package pubsubserver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

func TestPullReturnsMessages(t *testing.T) {
	f := newFixture(t)
	f.publish(25)
	first, second, none := f.pull(20), f.pull(20), f.pull(20)
	if len(first) != 20 || len(second) != 5 || len(none) != 0 {
		t.Fatalf("pulled %d, %d, %d", len(first), len(second), len(none))
	}
	if string(first[7].GetMessage().GetData()) != "message 7" || first[7].GetMessage().GetAttributes()["n"] != "7" {
		t.Errorf("the eighth: %v", first[7])
	}
	f.wantStats(Stats{Leased: 25, Delivered: 25})
	must(t, f.ack(ackIDs(first)...))
	f.wantStats(Stats{Leased: 5, Acked: 20, Delivered: 25})
	must(t, f.modack(0, ackIDs(second)...))
	f.wantStats(Stats{Backlog: 5, Acked: 20, Delivered: 25})
	again := f.pull(20)
	if len(again) != 5 || again[0].GetAckId() == second[0].GetAckId() ||
		again[0].GetMessage().GetMessageId() != second[0].GetMessage().GetMessageId() {
		t.Errorf("delivered again: %v", again)
	}
	f.wantStats(Stats{Leased: 5, Acked: 20, Delivered: 30, Redelivered: 5})
	// The ids of the first delivery are no longer valid.
	must(t, f.ack(ackIDs(second)...))
	f.wantStats(Stats{Leased: 5, Acked: 20, Delivered: 30, Redelivered: 5})
}

func TestPullWaits(t *testing.T) {
	f := newFixtureWith(t, Options{PullWait: testTimeout})
	done := make(chan []*pubsubpb.ReceivedMessage)
	go func() {
		resp, err := f.subs.Pull(f.ctx, &pubsubpb.PullRequest{Subscription: testSub, MaxMessages: 10})
		if err != nil {
			t.Error(err)
		}
		done <- resp.GetReceivedMessages()
	}()
	eventually(t, "the pull waits", func() bool {
		sub, err := f.registry.subscription(testSub)
		must(t, err)
		sub.queue.mu.Lock()
		defer sub.queue.mu.Unlock()
		return len(sub.queue.waiters) == 1
	})
	f.publish(1)
	if got := <-done; len(got) != 1 {
		t.Errorf("pulled %d", len(got))
	}

	ctx, cancel := context.WithTimeout(f.ctx, 50*time.Millisecond)
	defer cancel()
	_, err := f.subs.Pull(ctx, &pubsubpb.PullRequest{Subscription: testSub, MaxMessages: 10})
	wantCode(t, err, codes.DeadlineExceeded)
	// One that would wait does so for longer than the test.
	_, err = f.subs.Pull(f.ctx, &pubsubpb.PullRequest{Subscription: testSub, MaxMessages: 10, ReturnImmediately: true}) //nolint:staticcheck // deprecated, and yet served
	must(t, err)
}

func TestLeaseExpiresByItself(t *testing.T) {
	f := newFixture(t)
	f.publish(1)
	msgs := f.pull(1)
	must(t, f.modack(1, ackIDs(msgs)...))
	f.wantStats(Stats{Leased: 1, Delivered: 1})
	eventually(t, "the lease expires", func() bool { return f.Stats(testSub).Backlog == 1 })
	// Not delivered again yet: the old id is as good as ever.
	must(t, f.ack(ackIDs(msgs)...))
	f.wantStats(Stats{Acked: 1, Delivered: 1})
	if got := f.Messages(testSub); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestAckRequestsAreChecked(t *testing.T) {
	f := newFixture(t)
	f.publish(1)
	id := f.pull(1)[0].GetAckId()
	wantCode(t, f.ack(), codes.InvalidArgument)
	wantCode(t, f.ack(id, "nonsense"), codes.InvalidArgument)
	wantCode(t, f.modack(60), codes.InvalidArgument)
	wantCode(t, f.modack(601, id), codes.InvalidArgument)
	wantCode(t, f.modack(-1, id), codes.InvalidArgument)
	wantCode(t, f.ack(strings.Split(strings.Repeat(id+" ", 3000), " ")[:3000]...), codes.InvalidArgument)
	wantCode(t, f.subs.Acknowledge(f.ctx, &pubsubpb.AcknowledgeRequest{Subscription: testDLQSub, AckIds: []string{id}}), codes.InvalidArgument)
	wantCode(t, f.subs.Acknowledge(f.ctx, &pubsubpb.AcknowledgeRequest{Subscription: testSub + "x", AckIds: []string{id}}), codes.NotFound)
	f.wantStats(Stats{Leased: 1, Delivered: 1})
	must(t, f.ack(strings.Split(strings.Repeat(id+" ", 2500), " ")[:2500]...))
	f.wantStats(Stats{Acked: 1, Delivered: 1})
}

func TestDeadLetterPolicy(t *testing.T) {
	f := newFixture(t, WithDeadLetterPolicy(testDLQ, 5))
	ids := f.publish(1)
	for attempt := 1; attempt <= 5; attempt++ {
		msgs := f.pull(10)
		if len(msgs) != 1 || int(msgs[0].GetDeliveryAttempt()) != attempt {
			t.Fatalf("attempt %d: %v", attempt, msgs)
		}
		if attempt%2 == 0 {
			must(t, f.modack(0, ackIDs(msgs)...))
		} else {
			f.ExpireLeases(testSub)
		}
	}
	f.wantStats(Stats{Delivered: 5, Redelivered: 4})
	dead := f.Messages(testDLQSub)
	if len(dead) != 1 {
		t.Fatalf("%d dead letters", len(dead))
	}
	m := dead[0]
	if string(m.GetData()) != "message 0" || m.GetMessageId() == ids[0] || m.GetAttributes()["n"] != "0" ||
		m.GetAttributes()["CloudPubSubDeadLetterSourceDeliveryCount"] != "5" ||
		m.GetAttributes()["CloudPubSubDeadLetterSourceSubscription"] != "relay" ||
		m.GetAttributes()["CloudPubSubDeadLetterSourceSubscriptionProject"] != "p" {
		t.Errorf("dead letter: %v", m)
	}
	if _, err := time.Parse(time.RFC3339, m.GetAttributes()["CloudPubSubDeadLetterSourceTopicPublishTime"]); err != nil {
		t.Error(err)
	}
}

func TestDeadLettersStayWithoutATopic(t *testing.T) {
	f := newFixture(t, WithDeadLetterPolicy(testDLQ, 5))
	f.publish(1)
	must(t, f.topics.DeleteTopic(f.ctx, &pubsubpb.DeleteTopicRequest{Topic: testDLQ}))
	for attempt := 1; attempt <= 7; attempt++ {
		msgs := f.pull(1)
		if len(msgs) != 1 || int(msgs[0].GetDeliveryAttempt()) != attempt {
			t.Fatalf("attempt %d: %v", attempt, msgs)
		}
		must(t, f.modack(0, ackIDs(msgs)...))
	}
}

func TestTopicsAndSubscriptions(t *testing.T) {
	f := newFixture(t)
	_, err := f.topics.CreateTopic(f.ctx, &pubsubpb.Topic{Name: testTopic})
	wantCode(t, err, codes.AlreadyExists)
	for _, name := range []string{"", "events", "projects/p/topics/", "projects/p/topics/1st", "projects/p/topics/goog-x", "projects/p/subscriptions/events"} {
		_, err = f.topics.CreateTopic(f.ctx, &pubsubpb.Topic{Name: name})
		wantCode(t, err, codes.InvalidArgument)
	}
	_, err = f.topics.GetTopic(f.ctx, &pubsubpb.GetTopicRequest{Topic: "projects/p/topics/away"})
	wantCode(t, err, codes.NotFound)
	topic, err := f.topics.GetTopic(f.ctx, &pubsubpb.GetTopicRequest{Topic: testTopic})
	must(t, err)
	if topic.GetName() != testTopic {
		t.Errorf("topic %v", topic)
	}
	names := map[string]bool{}
	for topics := f.topics.ListTopics(f.ctx, &pubsubpb.ListTopicsRequest{Project: "projects/p", PageSize: 1}); ; {
		topic, err := topics.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		must(t, err)
		names[topic.GetName()] = true
	}
	if len(names) != 2 || !names[testTopic] {
		t.Errorf("topics %v", names)
	}
	name, err := f.topics.ListTopicSubscriptions(f.ctx, &pubsubpb.ListTopicSubscriptionsRequest{Topic: testTopic}).Next()
	must(t, err)
	if name != testSub {
		t.Errorf("subscription %s", name)
	}
	sub, err := f.subs.ListSubscriptions(f.ctx, &pubsubpb.ListSubscriptionsRequest{Project: "projects/p"}).Next()
	must(t, err)
	if sub.GetName() != testDLQSub {
		t.Errorf("subscription %v", sub)
	}

	for want, sub := range map[codes.Code]*pubsubpb.Subscription{
		codes.AlreadyExists:   {Name: testSub, Topic: testTopic},
		codes.NotFound:        {Name: "projects/p/subscriptions/new", Topic: "projects/p/topics/away"},
		codes.InvalidArgument: {Name: "projects/p/subscriptions/new", Topic: testTopic, AckDeadlineSeconds: 9},
		codes.Unimplemented:   {Name: "projects/p/subscriptions/new", Topic: testTopic, Filter: "attributes.a"},
	} {
		_, err = f.subs.CreateSubscription(f.ctx, sub)
		wantCode(t, err, want)
	}

	f.publish(1)
	must(t, f.topics.DeleteTopic(f.ctx, &pubsubpb.DeleteTopicRequest{Topic: testTopic}))
	sub, err = f.subs.GetSubscription(f.ctx, &pubsubpb.GetSubscriptionRequest{Subscription: testSub})
	must(t, err)
	if sub.GetTopic() != deletedTopic || sub.GetAckDeadlineSeconds() != 10 || len(f.pull(10)) != 1 {
		t.Errorf("subscription without topic: %v", sub)
	}
	must(t, f.subs.DeleteSubscription(f.ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: testSub}))
	_, err = f.subs.GetSubscription(f.ctx, &pubsubpb.GetSubscriptionRequest{Subscription: testSub})
	wantCode(t, err, codes.NotFound)
}

func TestUpdateSubscription(t *testing.T) {
	f := newFixture(t)
	update := func(sub *pubsubpb.Subscription, paths ...string) (*pubsubpb.Subscription, error) {
		sub.Name = testSub
		return f.subs.UpdateSubscription(f.ctx, &pubsubpb.UpdateSubscriptionRequest{
			Subscription: sub, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
	}
	got, err := update(&pubsubpb.Subscription{
		AckDeadlineSeconds:       600,
		MessageRetentionDuration: durationpb.New(31 * 24 * time.Hour),
		ExpirationPolicy:         &pubsubpb.ExpirationPolicy{},
		DeadLetterPolicy:         &pubsubpb.DeadLetterPolicy{DeadLetterTopic: testDLQ, MaxDeliveryAttempts: 100},
	}, "ack_deadline_seconds", "message_retention_duration", "expiration_policy", "dead_letter_policy")
	must(t, err)
	if got.GetAckDeadlineSeconds() != 600 || got.GetMessageRetentionDuration().AsDuration() != 31*24*time.Hour ||
		got.GetExpirationPolicy() == nil || got.GetExpirationPolicy().GetTtl() != nil || got.GetDeadLetterPolicy().GetMaxDeliveryAttempts() != 100 {
		t.Errorf("updated: %v", got)
	}
	for _, test := range []struct {
		sub  *pubsubpb.Subscription
		path string
	}{
		{&pubsubpb.Subscription{}, "topic"},
		{&pubsubpb.Subscription{AckDeadlineSeconds: 601}, "ack_deadline_seconds"},
		{&pubsubpb.Subscription{MessageRetentionDuration: durationpb.New(32 * 24 * time.Hour)}, "message_retention_duration"},
		{&pubsubpb.Subscription{DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: testDLQ, MaxDeliveryAttempts: 4}}, "dead_letter_policy"},
	} {
		_, err := update(test.sub, test.path)
		wantCode(t, err, codes.InvalidArgument)
	}
	_, err = update(&pubsubpb.Subscription{})
	wantCode(t, err, codes.InvalidArgument)
	f.publish(1)
	if msgs := f.pull(1); msgs[0].GetDeliveryAttempt() != 1 {
		t.Errorf("delivered %v", msgs)
	}
}

func TestPermissionsAreChecked(t *testing.T) {
	f := newFixture(t)
	test := func(resource string, want int) {
		t.Helper()
		resp, err := f.subs.TestIamPermissions(f.ctx, &iampb.TestIamPermissionsRequest{
			Resource: resource, Permissions: []string{"pubsub.subscriptions.consume", "pubsub.subscriptions.get"},
		})
		must(t, err)
		if len(resp.GetPermissions()) != want {
			t.Errorf("permissions on %s: %v, want %d", resource, resp.GetPermissions(), want)
		}
	}
	test(testSub, 2)
	test("projects/p/subscriptions/away", 0)
	f.SetPermit(func(_, permission string) bool { return strings.HasSuffix(permission, ".consume") })
	test(testSub, 1)
	f.SetPermit(nil)
	test(testTopic, 2)
}

func TestFaultsAreInjected(t *testing.T) {
	f := newFixture(t)
	f.publish(2)
	msgs := f.pull(2)
	f.SetFault(func(method string, req any) error {
		switch r := req.(type) {
		case *pubsubpb.AcknowledgeRequest:
			if method != "Acknowledge" || r.GetSubscription() != testSub {
				t.Errorf("%s %v", method, r)
			}
			return AfterServing(status.Error(codes.Internal, "the response is lost"))
		case *pubsubpb.ModifyAckDeadlineRequest:
			return status.Error(codes.PermissionDenied, "no")
		case *pubsubpb.PullRequest:
			return ErrHang
		}
		return nil
	})
	wantCode(t, f.ack(msgs[0].GetAckId()), codes.Internal)
	wantCode(t, f.modack(0, msgs[1].GetAckId()), codes.PermissionDenied)
	f.wantStats(Stats{Leased: 1, Acked: 1, Delivered: 2})
	ctx, cancel := context.WithTimeout(f.ctx, 50*time.Millisecond)
	defer cancel()
	_, err := f.subs.Pull(ctx, &pubsubpb.PullRequest{Subscription: testSub, MaxMessages: 1, ReturnImmediately: true}) //nolint:staticcheck // deprecated, and yet served
	wantCode(t, err, codes.DeadlineExceeded)
	f.SetFault(nil)
	must(t, f.modack(0, msgs[1].GetAckId()))
}
