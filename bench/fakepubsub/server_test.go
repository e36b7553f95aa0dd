package fakepubsub

import (
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/bench/load"
)

func TestPingsAndReceipts(t *testing.T) {
	s, addr, err := Start(load.Plan{Events: 3, Publishers: 1})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := pubsubpb.NewSubscriberClient(conn)
	stream, err := client.StreamingPull(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(req *pubsubpb.StreamingPullRequest) []*pubsubpb.ReceivedMessage {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetReceivedMessages()
	}
	msgs := exchange(&pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 10, ProtocolVersion: 1})
	if len(msgs) != 3 {
		t.Fatalf("received %d messages", len(msgs))
	}
	s.mu.Lock()
	if lease := time.Duration(s.events[0].until-s.until(0)) * time.Millisecond; lease < 9*time.Minute {
		t.Errorf("a lease of %v", lease)
	}
	s.mu.Unlock()
	if got := exchange(&pubsubpb.StreamingPullRequest{}); len(got) != 0 {
		t.Errorf("a ping was answered with %d messages", len(got))
	}
	for range 2 {
		_, err := client.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{
			AckIds: []string{msgs[0].GetAckId(), msgs[1].GetAckId()}, AckDeadlineSeconds: 30,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Close(); got.Receipts != 2 || got.ModifyIDs != 2 || got.Pings != 1 {
		t.Errorf("%+v", got)
	}
}
