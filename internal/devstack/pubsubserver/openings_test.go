package pubsubserver

import (
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestStreamOpeningsAreChecked(t *testing.T) {
	f := newFixture(t)
	first := &pubsubpb.StreamingPullRequest{
		Subscription: testSub, StreamAckDeadlineSeconds: 60, ClientId: "client", ProtocolVersion: 1, MaxOutstandingMessages: 7,
	}
	ctx := metadata.AppendToOutgoingContext(f.ctx, "x-goog-request-params", "subscription="+testSub)
	stream, err := f.subs.StreamingPull(ctx)
	must(t, err)
	must(t, stream.Send(first))
	f.publish(1)
	receive(t, stream, 1)
	got := f.Openings(testSub)
	if len(got) != 1 {
		t.Fatalf("%d openings", len(got))
	}
	o := got[0]
	if !proto.Equal(o.Request, first) || o.Refused != nil || o.Peer == "" || time.Since(o.Time) > testTimeout {
		t.Errorf("%+v", o)
	}
	for key, want := range map[string]string{"content-type": "application/grpc", "x-goog-request-params": "subscription=" + testSub} {
		if got := o.Metadata.Get(key); len(got) == 0 || got[0] != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if n := len(f.Openings(testDLQSub)); n != 0 {
		t.Errorf("%d openings of another subscription", n)
	}
}

func TestRefuseStreams(t *testing.T) {
	f := newFixture(t)
	open := f.stream(&pubsubpb.StreamingPullRequest{})
	eventually(t, "a stream", func() bool { return f.Streams(testSub) == 1 })
	refused := func() error {
		_, err := f.stream(&pubsubpb.StreamingPullRequest{}).Recv()
		return err
	}
	f.RefuseStreams(2, status.Error(codes.Unauthenticated, "no token"))
	wantCode(t, refused(), codes.Unauthenticated)
	wantCode(t, refused(), codes.Unauthenticated)
	again := f.stream(&pubsubpb.StreamingPullRequest{})
	f.publish(1)
	eventually(t, "a delivery", func() bool { return f.Stats(testSub).Leased == 1 })
	f.RefuseStreams(-1, status.Error(codes.PermissionDenied, "no"))
	for range 3 {
		wantCode(t, refused(), codes.PermissionDenied)
	}
	f.RefuseStreams(0, nil)
	must(t, again.CloseSend())
	must(t, open.CloseSend())
	var codesSeen []codes.Code
	for _, o := range f.Openings(testSub) {
		codesSeen = append(codesSeen, status.Code(o.Refused))
	}
	if len(codesSeen) != 7 || codesSeen[0] != codes.OK || codesSeen[2] != codes.Unauthenticated || codesSeen[3] != codes.OK || codesSeen[6] != codes.PermissionDenied {
		t.Errorf("openings: %v", codesSeen)
	}
}

func TestFaultSeesTheOpening(t *testing.T) {
	f := newFixture(t)
	f.SetFault(func(method string, req any) error {
		if o, ok := req.(Opening); ok {
			if method != "StreamingPull.Open" {
				t.Errorf("the method is %s", method)
			}
			if o.Request.GetClientId() == "unwelcome" {
				return status.Error(codes.FailedPrecondition, "a key is disabled")
			}
		}
		return nil
	})
	_, err := f.stream(&pubsubpb.StreamingPullRequest{ClientId: "unwelcome"}).Recv()
	wantCode(t, err, codes.FailedPrecondition)
	welcome := f.stream(&pubsubpb.StreamingPullRequest{ClientId: "welcome"})
	f.publish(1)
	receive(t, welcome, 1)
}

func TestReceiptDelays(t *testing.T) {
	f := newFixture(t)
	f.publish(5)
	must(t, f.ack(ackIDs(f.pull(1))...)) // a pull awaits no receipt
	stream := f.stream(&pubsubpb.StreamingPullRequest{})
	ids := ackIDs(receive(t, stream, 4))
	if got := f.ReceiptDelays(testSub); len(got) != 0 {
		t.Errorf("before any receipt: %v", got)
	}
	const wait = 100 * time.Millisecond
	time.Sleep(wait)
	must(t, f.modack(60, ids[:2]...))
	must(t, f.modack(60, ids[0])) // the second one is no receipt
	must(t, f.ack(ids[1:3]...))   // the third's is its acknowledgement
	must(t, f.modack(0, ids[3]))  // a release answers, too
	got := f.ReceiptDelays(testSub)
	if len(got) != 4 {
		t.Fatalf("%d receipts: %v", len(got), got)
	}
	for _, d := range got {
		if d < wait || d > testTimeout {
			t.Errorf("a receipt after %v", d)
		}
	}
}

func TestReceiptsAreBounded(t *testing.T) {
	var r receipts
	for i := range maxReceipts + 10 {
		r.add(time.Duration(i))
	}
	if got := r.all(); len(got) != maxReceipts || got[0] != 10 || got[maxReceipts-1] != maxReceipts+9 {
		t.Errorf("%d delays, from %d", len(got), got[0])
	}
}
