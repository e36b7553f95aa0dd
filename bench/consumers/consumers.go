// Package consumers has the consumers that the worker is compared with. They only
// acknowledge.
package consumers

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2"
	apiv1 "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/bench/load"
)

const (
	project      = "bench"
	subscription = "projects/bench/subscriptions/events"
	streams      = 4
	outstanding  = 20_000
)

func options(addr string) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(addr), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

// Null is the official client at its best settings: it acknowledges the
// plan's messages and ends.
func Null(ctx context.Context, addr string, plan load.Plan) error {
	client, err := pubsub.NewClient(ctx, project, options(addr)...)
	if err != nil {
		return err
	}
	s := client.Subscriber("events")
	s.ReceiveSettings.NumGoroutines = streams
	s.ReceiveSettings.MaxOutstandingMessages = outstanding
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var count atomic.Int64
	err = s.Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		m.Ack()
		if count.Add(1) == int64(plan.Events) {
			cancel()
		}
	})
	if err != nil {
		return err
	}
	return client.Close()
}

// Raw is the low-level client with streams and bulk acks only. It extends no lease, and
// ends when it has acked the plan's messages.
func Raw(ctx context.Context, addr string, plan load.Plan) error {
	client, err := apiv1.NewSubscriptionAdminClient(ctx, options(addr)...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		count atomic.Int64
		wg    sync.WaitGroup
		acks  = make(chan []string, streams)
	)
	for range streams {
		stream, err := client.StreamingPull(ctx)
		if err != nil {
			return err
		}
		err = stream.Send(&pubsubpb.StreamingPullRequest{
			Subscription: subscription, StreamAckDeadlineSeconds: 60, MaxOutstandingMessages: outstanding / streams,
		})
		if err != nil {
			return err
		}
		wg.Go(func() {
			for {
				response, err := stream.Recv()
				if err != nil {
					return
				}
				ids := make([]string, len(response.GetReceivedMessages()))
				for i, m := range response.GetReceivedMessages() {
					ids[i] = m.GetAckId()
				}
				select {
				case acks <- ids:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	for count.Load() < int64(plan.Events) {
		ids := <-acks
		rpc, cancelRPC := context.WithTimeout(ctx, 10*time.Second)
		err := client.Acknowledge(rpc, &pubsubpb.AcknowledgeRequest{Subscription: subscription, AckIds: ids})
		cancelRPC()
		if err != nil {
			return err
		}
		count.Add(int64(len(ids)))
	}
	cancel()
	wg.Wait()
	return client.Close()
}
