package devstack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// emulator is a Pub/Sub emulator that runs already, such as Google's, which also
// speaks REST. Topics and subscriptions are made where they are missing, and stay.
type emulator struct {
	host, project string
	conn          *grpc.ClientConn
	publisher     pubsubpb.PublisherClient
	subscriber    pubsubpb.SubscriberClient
}

// connectPatience bounds the first calls: an emulator is there, or is not.
const connectPatience = 10 * time.Second

func connect(ctx context.Context, host, project string) (*emulator, error) {
	conn, err := grpc.NewClient(host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("PUBSUB_EMULATOR_HOST: %w", err)
	}
	e := &emulator{
		host: host, project: project, conn: conn,
		publisher: pubsubpb.NewPublisherClient(conn), subscriber: pubsubpb.NewSubscriberClient(conn),
	}
	if err := e.create(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("PUBSUB_EMULATOR_HOST: the emulator at %s: %w", host, err), conn.Close())
	}
	return e, nil
}

// named is the name of a resource of this project instead of the embedded one's.
func (e *emulator) named(kind, id string) string {
	return "projects/" + e.project + "/" + kind + "/" + id
}

// create makes what is missing.
func (e *emulator) create(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	main, dead, receipts := e.named("topics", "telemetry-events"), e.named("topics", "telemetry-events-dlq"), e.named("topics", "telemetry-events-receipts")
	for _, topic := range []string{main, dead, receipts} {
		if _, err := e.publisher.CreateTopic(ctx, &pubsubpb.Topic{Name: topic}); err != nil && status.Code(err) != codes.AlreadyExists {
			return err
		}
	}
	for _, s := range []struct{ name, topic string }{
		{e.named("subscriptions", "telemetry-events-dlq-oncall"), dead},
		{e.named("subscriptions", "telemetry-events-receipts-oncall"), receipts},
		{e.named("subscriptions", "telemetry-events-relay"), main},
	} {
		subscription := &pubsubpb.Subscription{Name: s.name, Topic: s.topic}
		lasting(subscription)
		subscription.MessageRetentionDuration = durationpb.New(7 * 24 * time.Hour) // the emulator's longest
		if _, err := e.subscriber.CreateSubscription(ctx, subscription); err != nil && status.Code(err) != codes.AlreadyExists {
			return err
		}
	}
	return nil
}

func (e *emulator) publish(topic string, messages []*pubsubpb.PubsubMessage) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectPatience)
	defer cancel()
	_, err := e.publisher.Publish(ctx, &pubsubpb.PublishRequest{Topic: e.named("topics", topic), Messages: messages})
	return err
}

// close ends the connection; topics and subscriptions stay.
func (e *emulator) close() error { return e.conn.Close() }
