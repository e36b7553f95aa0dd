package pubsubserver

import (
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

func TestOtherContentTypesAreRefused(t *testing.T) {
	f := newFixture(t)
	conn, err := grpc.NewClient(f.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("proto")))
	must(t, err)
	defer func() { must(t, conn.Close()) }()
	subscriber, publisher := pubsubpb.NewSubscriberClient(conn), pubsubpb.NewPublisherClient(conn)
	_, err = publisher.Publish(f.ctx, &pubsubpb.PublishRequest{Topic: testTopic, Messages: []*pubsubpb.PubsubMessage{{Data: []byte("x")}}})
	wantCode(t, err, codes.Unimplemented)
	stream, err := subscriber.StreamingPull(f.ctx)
	must(t, err)
	_, err = stream.Recv()
	wantCode(t, err, codes.Unimplemented)
	f.wantStats(Stats{})
}
