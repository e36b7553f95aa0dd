// Package devstack runs embedded versions of Pub/Sub, SAMS and Telemetry Gateway in one
// process, for `worker local` and for tests.
package devstack

import (
	"context"
	"errors"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// The names of the resources in the embedded Pub/Sub: the worker's defaults.
const (
	Project                = "local"
	Topic                  = "projects/" + Project + "/topics/telemetry-events"
	Subscription           = "projects/" + Project + "/subscriptions/telemetry-events-relay"
	DeadLetterTopic        = "projects/" + Project + "/topics/telemetry-events-dlq"
	DeadLetterSubscription = "projects/" + Project + "/subscriptions/telemetry-events-dlq-oncall"
	// ReceiptsTopic has what became of replayed events.
	ReceiptsTopic        = "projects/" + Project + "/topics/telemetry-events-receipts"
	ReceiptsSubscription = "projects/" + Project + "/subscriptions/telemetry-events-receipts-oncall"
	// Environment is the embedded environment's id.
	Environment = "local"
)

// Stack is the servers that a worker needs, with their topics and subscriptions.
type Stack struct {
	// PubSub is nil if an emulator is used instead.
	PubSub  *pubsubserver.Server
	SAMS    *samsserver.Server
	Gateway *gatewayserver.Server

	emulator *emulator
}

// Options of a Stack.
type Options struct {
	// PubSubAddr is where the embedded Pub/Sub listens; empty means any free
	// port on 127.0.0.1.
	PubSubAddr string
	// EmulatorHost, if set, is the host:port of a Pub/Sub emulator that is used instead
	// of the embedded Pub/Sub, and EmulatorProject the project there.
	EmulatorHost, EmulatorProject string
	// OnRecord, if set, is called for each event that the gateway records, from
	// several goroutines.
	OnRecord func(gatewayserver.Record)
}

// Start starts the servers and creates topics and subscriptions.
func Start(ctx context.Context, opts Options) (s *Stack, err error) {
	s = &Stack{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if opts.EmulatorHost != "" {
		if s.emulator, err = connect(ctx, opts.EmulatorHost, opts.EmulatorProject); err != nil {
			return s, err
		}
	} else if s.PubSub, err = pubsubserver.Start(ctx, pubsubserver.Options{Addr: opts.PubSubAddr}); err != nil {
		return s, err
	}
	if s.SAMS, err = samsserver.Start(ctx, samsserver.Options{}); err != nil {
		return s, err
	}
	s.Gateway, err = gatewayserver.Start(ctx, gatewayserver.Options{Introspector: s.SAMS, Discard: true, OnRecord: opts.OnRecord})
	if err != nil {
		return s, err
	}
	if err != nil || s.PubSub == nil {
		return s, err
	}
	return s, errors.Join(
		s.PubSub.CreateTopic(Topic),
		s.PubSub.CreateTopic(DeadLetterTopic),
		s.PubSub.CreateTopic(ReceiptsTopic),
		s.PubSub.CreateSubscription(DeadLetterSubscription, DeadLetterTopic, lasting),
		s.PubSub.CreateSubscription(ReceiptsSubscription, ReceiptsTopic, lasting),
		s.PubSub.CreateSubscription(Subscription, Topic, lasting),
	)
}

// lasting is a subscription with the longest retention of Pub/Sub.
func lasting(s *pubsubpb.Subscription) {
	s.AckDeadlineSeconds = 60
	s.MessageRetentionDuration = durationpb.New(31 * 24 * time.Hour)
	s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{}
}

// Close stops the servers.
func (s *Stack) Close() error {
	var errs []error
	if s.Gateway != nil {
		errs = append(errs, s.Gateway.Close())
	}
	if s.SAMS != nil {
		errs = append(errs, s.SAMS.Close())
	}
	if s.PubSub != nil {
		errs = append(errs, s.PubSub.Close())
	}
	if s.emulator != nil {
		errs = append(errs, s.emulator.close())
	}
	return errors.Join(errs...)
}

// Environ is the configuration of a worker that uses these servers.
func (s *Stack) Environ() []string {
	return append(s.PublisherEnviron(),
		"TELEMETRY_GATEWAY_URL="+s.Gateway.URL(),
		"SAMS_URL="+s.SAMS.URL(),
		"SAMS_CLIENT_ID="+s.SAMS.ClientID(),
		"SAMS_CLIENT_SECRET="+s.SAMS.ClientSecret(),
		"ENVIRONMENT_ID="+Environment,
		"RECEIPTS_TOPIC=telemetry-events-receipts",
		"RECEIPTS_SUBSCRIPTION=telemetry-events-receipts-oncall",
		"WORKER_INSECURE_DEV=true",
	)
}

// PublisherEnviron is the configuration of a service that publishes to the topic.
func (s *Stack) PublisherEnviron() []string {
	if s.emulator != nil {
		return []string{
			"PUBSUB_EMULATOR_HOST=" + s.emulator.host,
			"GOOGLE_CLOUD_PROJECT=" + s.emulator.project,
			"TELEMETRY_TOPIC=" + s.emulator.named("topics", "telemetry-events"),
		}
	}
	return []string{
		"PUBSUB_EMULATOR_HOST=" + s.PubSub.Addr(),
		"GOOGLE_CLOUD_PROJECT=" + Project,
		"TELEMETRY_TOPIC=" + Topic,
	}
}

// Publish publishes messages to the topic.
func (s *Stack) Publish(messages []ndjson.Message) error {
	for len(messages) > 0 {
		n := min(len(messages), topic.MaxRequestMessages)
		request := make([]*pubsubpb.PubsubMessage, n)
		for i, m := range messages[:n] {
			request[i] = &pubsubpb.PubsubMessage{Data: m.Data, Attributes: m.Attributes, OrderingKey: m.OrderingKey}
		}
		if err := s.publish(request); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

func (s *Stack) publish(messages []*pubsubpb.PubsubMessage) error {
	if s.emulator != nil {
		return s.emulator.publish("telemetry-events", messages)
	}
	_, err := s.PubSub.Publish(Topic, messages...)
	return err
}

// DeadLetter publishes messages to the dead-letter topic, as a worker does.
func (s *Stack) DeadLetter(messages ...*pubsubpb.PubsubMessage) error {
	if s.emulator != nil {
		return s.emulator.publish("telemetry-events-dlq", messages)
	}
	_, err := s.PubSub.Publish(DeadLetterTopic, messages...)
	return err
}
