package pubsubserver

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	pubsub "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// wantFailures checks the answer to a request of which ids failed, as the
// official client reads it.
func wantFailures(t testing.TB, err error, want map[string]string) {
	t.Helper()
	wantCode(t, err, codes.InvalidArgument)
	apiErr, ok := apierror.FromError(err)
	if !ok {
		t.Fatalf("no API error: %v", err)
	}
	if apiErr.Reason() != "EXACTLY_ONCE_ACKID_FAILURE" || apiErr.Domain() != "pubsub.googleapis.com" {
		t.Errorf("reason %q of %q", apiErr.Reason(), apiErr.Domain())
	}
	got := apiErr.Metadata()
	if len(got) != len(want) {
		t.Errorf("%d ids failed, want %d", len(got), len(want))
	}
	for id, reason := range want {
		if got[id] != reason {
			t.Errorf("%.40s…: %q, want %q", id, got[id], reason)
		}
	}
}

func TestExactlyOnce(t *testing.T) {
	f := newFixture(t, WithExactlyOnce())
	messages := f.publish(2500)
	stream := f.stream(&pubsubpb.StreamingPullRequest{ProtocolVersion: 1, MaxOutstandingMessages: 2500})
	var all []*pubsubpb.ReceivedMessage
	for len(all) < 2500 {
		resp, err := stream.Recv()
		must(t, err)
		if !resp.GetSubscriptionProperties().GetExactlyOnceDeliveryEnabled() {
			t.Error("a response does not say that delivery is exactly once")
		}
		all = append(all, resp.GetReceivedMessages()...)
	}
	ids := ackIDs(all)
	must(t, stream.CloseSend())
	eventually(t, "the stream ends", func() bool { return f.Streams(testSub) == 0 })

	// Half of the leases expire: the others are acknowledged nevertheless.
	f.ExpireLeases(testSub, messages[:1250]...)
	f.wantStats(Stats{Backlog: 1250, Leased: 1250, Delivered: 2500})
	expired := map[string]string{}
	for _, id := range ids[:1250] {
		expired[id] = InvalidAckID
	}
	wantFailures(t, f.ack(ids...), expired)
	f.wantStats(Stats{Backlog: 1250, Acked: 1250, Delivered: 2500})

	// An id that is acknowledged, of an older delivery or malformed fails alone.
	again := ackIDs(f.pull(2))
	wantFailures(t, f.modack(30, ids[0], "nonsense", again[0], ids[2400]), map[string]string{
		ids[0]: InvalidAckID, "nonsense": InvalidAckID, ids[2400]: InvalidAckID,
	})
	must(t, f.modack(0, again[1]))
	must(t, f.ack(again[0]))
	wantFailures(t, f.ack(again[0]), map[string]string{again[0]: InvalidAckID})
}

func TestExactlyOncePings(t *testing.T) {
	f := newFixture(t, WithExactlyOnce())
	stream := f.stream(&pubsubpb.StreamingPullRequest{ProtocolVersion: 1})
	must(t, stream.Send(&pubsubpb.StreamingPullRequest{}))
	resp, err := stream.Recv()
	must(t, err)
	if !resp.GetSubscriptionProperties().GetExactlyOnceDeliveryEnabled() || len(resp.GetReceivedMessages()) != 0 {
		t.Errorf("answered %v", resp)
	}
	// A failure of single ids does not end the stream.
	must(t, stream.Send(&pubsubpb.StreamingPullRequest{
		AckIds: []string{"nonsense"}, ModifyDeadlineAckIds: []string{"nonsense"}, ModifyDeadlineSeconds: []int32{10},
	}))
	f.publish(1)
	receive(t, stream, 1)
}

func TestExactlyOnceIsSwitched(t *testing.T) {
	f := newFixture(t)
	sub, err := f.subs.CreateSubscription(f.ctx, &pubsubpb.Subscription{
		Name: "projects/p/subscriptions/once", Topic: testTopic, EnableExactlyOnceDelivery: true,
	})
	must(t, err)
	if !sub.GetEnableExactlyOnceDelivery() {
		t.Errorf("created %v", sub)
	}
	f.publish(1)
	id := f.pull(1)[0].GetAckId()
	must(t, f.ack(id))
	must(t, f.ack(id)) // without exactly-once delivery nobody minds
	_, err = f.subs.UpdateSubscription(f.ctx, &pubsubpb.UpdateSubscriptionRequest{
		Subscription: &pubsubpb.Subscription{Name: testSub, EnableExactlyOnceDelivery: true},
		UpdateMask:   &fieldmaskpb.FieldMask{Paths: []string{"enable_exactly_once_delivery"}},
	})
	must(t, err)
	wantFailures(t, f.ack(id), map[string]string{id: InvalidAckID})
}

func TestChosenIDsFail(t *testing.T) {
	f := newFixture(t, WithExactlyOnce())
	f.publish(3)
	ids := ackIDs(f.pull(3))
	failures := map[string]string{ids[0]: TransientFailure, ids[1]: "PERMANENT_FAILURE_OTHER"}
	f.SetFault(func(string, any) error { return FailIDs(failures) })
	wantFailures(t, f.modack(60, ids...), failures)
	wantFailures(t, f.ack(ids...), failures)
	f.wantStats(Stats{Leased: 2, Acked: 1, Delivered: 3})
	f.publish(1) // other calls are served
	f.pull(1)
	f.SetFault(nil)
	must(t, f.ack(ids[:2]...))
}

// The official client retries what failed for a moment and says what has failed
// for good. It has one message at a time, because it takes every id of a request that
// failed in part for a failure.
func TestHighLevelClientExactlyOnce(t *testing.T) {
	f := newFixture(t, WithExactlyOnce())
	f.publish(3)
	client := f.client()
	var retried atomic.Int64
	f.SetFault(func(method string, req any) error {
		if r, ok := req.(*pubsubpb.AcknowledgeRequest); ok && retried.Add(1) == 1 {
			return FailIDs(map[string]string{r.GetAckIds()[0]: TransientFailure})
		}
		return nil
	})
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	var done, lost atomic.Int64
	subscriber := client.Subscriber(testSub)
	subscriber.ReceiveSettings.MaxOutstandingMessages = 1
	err := subscriber.Receive(ctx, func(ctx context.Context, m *pubsub.Message) {
		if string(m.Data) == "message 2" && lost.Load() == 0 {
			lost.Add(1)
			f.ExpireLeases(testSub, m.ID)
			result, err := m.AckWithResult().Get(ctx)
			if result != pubsub.AcknowledgeStatusInvalidAckID || err == nil || !strings.Contains(err.Error(), InvalidAckID) {
				t.Errorf("an expired id: %v, %v", result, err)
			}
			return
		}
		result, err := m.AckWithResult().Get(ctx)
		if result != pubsub.AcknowledgeStatusSuccess || err != nil {
			t.Errorf("%s: %v, %v", m.Data, result, err)
		}
		if done.Add(1) == 3 {
			cancel()
		}
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got := f.Stats(testSub); got.Acked != 3 || retried.Load() < 2 {
		t.Errorf("%+v, %d requests", got, retried.Load())
	}
}
