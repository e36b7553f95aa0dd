package pubsubserver

import (
	"errors"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	testView = "projects/p/subscriptions/view"
	testSnap = "projects/p/snapshots/snap"
)

func (f *fixture) snapshot(name, subscription string) (*pubsubpb.Snapshot, error) {
	return f.subs.CreateSnapshot(f.ctx, &pubsubpb.CreateSnapshotRequest{Name: name, Subscription: subscription, Labels: map[string]string{"a": "b"}})
}

func (f *fixture) seek(subscription, snapshot string) error {
	_, err := f.subs.Seek(f.ctx, &pubsubpb.SeekRequest{Subscription: subscription, Target: &pubsubpb.SeekRequest_Snapshot{Snapshot: snapshot}})
	return err
}

// has makes sure of the unacknowledged messages of a subscription.
func (f *fixture) has(subscription string, want ...string) {
	f.t.Helper()
	var got []string
	for _, m := range f.Messages(subscription) {
		got = append(got, m.GetMessageId())
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("%s has %q, want %q", subscription, got, want)
	}
}

// TestSeekToSnapshot: a view that is sought to a snapshot of another subscription has what
// is unacknowledged there, leased or not, and takes no lease.
func TestSeekToSnapshot(t *testing.T) {
	f := newFixture(t)
	early := f.publish(1)
	must(t, f.CreateSubscription(testView, testTopic))
	ids := f.publish(4)
	pulled := f.pull(3)
	must(t, f.ack(pulled[1].GetAckId()))
	left := slices.DeleteFunc(slices.Concat(early, ids), func(id string) bool { return id == pulled[1].GetMessage().GetMessageId() })

	snap, err := f.snapshot(testSnap, testSub)
	must(t, err)
	if snap.GetName() != testSnap || snap.GetTopic() != testTopic || snap.GetLabels()["a"] != "b" {
		t.Errorf("got %v", snap)
	}
	oldest := f.Messages(testSub)[0].GetPublishTime().AsTime()
	if got := snap.GetExpireTime().AsTime(); !got.Equal(oldest.Add(snapshotLifetime)) {
		t.Errorf("it expires at %v, want %v", got, oldest.Add(snapshotLifetime))
	}
	later := f.publish(1)
	must(t, f.seek(testView, testSnap))
	before := f.Stats(testSub)
	// The view was created after the first message.
	inView := slices.Concat(left[1:], later)
	if left[0] != early[0] {
		inView = slices.Concat(left, later)
	}
	f.has(testView, inView...)
	resp, err := f.subs.Pull(f.ctx, &pubsubpb.PullRequest{Subscription: testView, MaxMessages: 10})
	must(t, err)
	if got := len(resp.GetReceivedMessages()); got != len(inView) {
		t.Errorf("%d messages pulled from the view, want %d", got, len(inView))
	}
	if after := f.Stats(testSub); after != before {
		t.Errorf("the subscription is %+v, was %+v", after, before)
	}

	// All of it is acknowledged, and the view follows; leased messages, too.
	must(t, f.ack(pulled[0].GetAckId(), pulled[2].GetAckId()))
	for _, m := range f.pull(10) {
		must(t, f.ack(m.GetAckId()))
	}
	must(t, f.subs.DeleteSnapshot(f.ctx, &pubsubpb.DeleteSnapshotRequest{Snapshot: testSnap}))
	_, err = f.snapshot(testSnap, testSub)
	must(t, err)
	must(t, f.seek(testView, testSnap))
	f.has(testView)
	if got := f.Stats(testView); got.Leased != 0 || got.Backlog != 0 {
		t.Errorf("the view is %+v", got)
	}
}

// TestSeekBringsBack: a seek makes messages unacknowledged again.
func TestSeekBringsBack(t *testing.T) {
	f := newFixture(t)
	ids := f.publish(2)
	_, err := f.snapshot(testSnap, testSub)
	must(t, err)
	for _, m := range f.pull(2) {
		must(t, f.ack(m.GetAckId()))
	}
	f.has(testSub)
	must(t, f.seek(testSub, testSnap))
	f.has(testSub, ids...)
	if got := f.pull(5); len(got) != 2 {
		t.Errorf("%d messages pulled, want 2", len(got))
	}
}

// TestSnapshotRefusals: everything that the service refuses.
func TestSnapshotRefusals(t *testing.T) {
	f := newFixture(t)
	must(t, f.CreateSubscription(testView, testTopic))
	wantCode := func(what string, err error, want codes.Code) {
		t.Helper()
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	_, err := f.snapshot("projects/p/snapshots/x", testSub)
	wantCode("a short name", err, codes.InvalidArgument)
	_, err = f.snapshot("projects/p/subscriptions/snap", testSub)
	wantCode("a name of another kind", err, codes.InvalidArgument)
	_, err = f.snapshot(testSnap, "projects/p/subscriptions/none")
	wantCode("no subscription", err, codes.NotFound)
	wantCode("no snapshot", f.seek(testView, testSnap), codes.NotFound)
	_, err = f.subs.GetSnapshot(f.ctx, &pubsubpb.GetSnapshotRequest{Snapshot: testSnap})
	wantCode("no snapshot to get", err, codes.NotFound)
	wantCode("no snapshot to delete", f.subs.DeleteSnapshot(f.ctx, &pubsubpb.DeleteSnapshotRequest{Snapshot: testSnap}), codes.NotFound)

	f.publish(1)
	f.AgeMessages(snapshotLifetime - minSnapshotLifetime + time.Second)
	_, err = f.snapshot(testSnap, testSub)
	wantCode("an old backlog", err, codes.FailedPrecondition)
	f.AgeMessages(snapshotLifetime - minSnapshotLifetime - time.Minute)
	snap, err := f.snapshot(testSnap, testSub)
	must(t, err)
	if left := time.Until(snap.GetExpireTime().AsTime()); left < minSnapshotLifetime || left > minSnapshotLifetime+time.Minute {
		t.Errorf("it lives for %v", left)
	}
	_, err = f.snapshot(testSnap, testSub)
	wantCode("the name twice", err, codes.AlreadyExists)
	wantCode("a view of another topic", f.seek(testDLQSub, testSnap), codes.FailedPrecondition)
	wantCode("no view", f.seek("projects/p/subscriptions/none", testSnap), codes.NotFound)
	wantCode("no target", f.seek(testView, ""), codes.InvalidArgument)
	_, err = f.subs.Seek(f.ctx, &pubsubpb.SeekRequest{Subscription: testView, Target: &pubsubpb.SeekRequest_Time{}})
	wantCode("a time", err, codes.Unimplemented)

	f.SetFault(func(method string, _ any) error {
		if method == "Seek" || method == "CreateSnapshot" {
			return status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
		}
		return nil
	})
	_, err = f.snapshot("projects/p/snapshots/other", testSub)
	wantCode("no permission", err, codes.PermissionDenied)
	wantCode("no permission to seek", f.seek(testView, testSnap), codes.PermissionDenied)
	f.SetFault(nil)
	f.SetFault(func(method string, _ any) error {
		if method == "DeleteSnapshot" {
			return AfterServing(errors.New("lost"))
		}
		return nil
	})
	if err := f.subs.DeleteSnapshot(f.ctx, &pubsubpb.DeleteSnapshotRequest{Snapshot: testSnap}); err == nil || len(f.Snapshots()) != 0 {
		t.Errorf("%v, and %d snapshots", err, len(f.Snapshots()))
	}
}
