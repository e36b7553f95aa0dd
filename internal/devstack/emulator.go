package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
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

	// watch is a subscription of the dead-letter topic's own, so that the queue's
	// subscription keeps its messages for the dlq commands.
	watch  string
	cancel context.CancelFunc // ends read
	done   chan struct{}      // closed when read has ended

	mu      sync.Mutex
	letters []*pubsubpb.PubsubMessage
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
		done: make(chan struct{}),
	}
	e.watch = fmt.Sprintf("projects/%s/subscriptions/telemetry-events-dlq-local-%d-%d", project, os.Getpid(), time.Now().UnixNano())
	if err := e.create(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("PUBSUB_EMULATOR_HOST: the emulator at %s: %w", host, err), conn.Close())
	}
	reading, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel = cancel
	go e.read(reading)
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
	main, dead := e.named("topics", "telemetry-events"), e.named("topics", "telemetry-events-dlq")
	for _, topic := range []string{main, dead} {
		if _, err := e.publisher.CreateTopic(ctx, &pubsubpb.Topic{Name: topic}); err != nil && status.Code(err) != codes.AlreadyExists {
			return err
		}
	}
	for _, s := range []struct{ name, topic string }{
		{e.named("subscriptions", "telemetry-events-dlq-oncall"), dead},
		{e.watch, dead},
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

// read collects the messages that are dead-lettered from now on.
func (e *emulator) read(ctx context.Context) {
	defer close(e.done)
	for ctx.Err() == nil {
		response, err := e.subscriber.Pull(ctx, &pubsubpb.PullRequest{Subscription: e.watch, MaxMessages: 100})
		if err != nil {
			select {
			case <-time.After(time.Second): // the emulator may be restarted
			case <-ctx.Done():
			}
			continue
		}
		if len(response.GetReceivedMessages()) == 0 {
			continue
		}
		var ids []string
		e.mu.Lock()
		for _, m := range response.GetReceivedMessages() {
			e.letters = append(e.letters, m.GetMessage())
			ids = append(ids, m.GetAckId())
		}
		e.mu.Unlock()
		// One that is not acknowledged is only shown again.
		_, _ = e.subscriber.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: e.watch, AckIds: ids})
	}
}

func (e *emulator) deadLetters() []*pubsubpb.PubsubMessage {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.letters)
}

func (e *emulator) publish(messages []*pubsubpb.PubsubMessage) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectPatience)
	defer cancel()
	_, err := e.publisher.Publish(ctx, &pubsubpb.PublishRequest{Topic: e.named("topics", "telemetry-events"), Messages: messages})
	return err
}

// close removes the subscription for watching; everything else stays.
func (e *emulator) close() error {
	e.cancel()
	<-e.done
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = e.subscriber.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: e.watch}) // the emulator may be gone
	return e.conn.Close()
}
