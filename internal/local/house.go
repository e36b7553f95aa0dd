// Package local runs embedded versions of Pub/Sub, SAMS and Telemetry Gateway in one
// process, for `worker local` and for tests.
package local

import (
	"context"
	"errors"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sourcegraph/telemetry-relay/internal/local/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/local/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/local/samsserver"
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
	// Environment is the embedded environment's id.
	Environment = "local"
)

// House is the worker's surroundings.
type House struct {
	// PubSub is nil if an emulator is used instead.
	PubSub  *pubsubserver.Server
	SAMS    *samsserver.Server
	Gateway *gatewayserver.Server

	emulator *emulator
}

// Options of a house.
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
func Start(ctx context.Context, opts Options) (h *House, err error) {
	h = &House{}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if opts.EmulatorHost != "" {
		if h.emulator, err = connect(ctx, opts.EmulatorHost, opts.EmulatorProject); err != nil {
			return h, err
		}
	} else if h.PubSub, err = pubsubserver.Start(ctx, pubsubserver.Options{Addr: opts.PubSubAddr}); err != nil {
		return h, err
	}
	if h.SAMS, err = samsserver.Start(ctx, samsserver.Options{}); err != nil {
		return h, err
	}
	h.Gateway, err = gatewayserver.Start(ctx, gatewayserver.Options{Introspector: h.SAMS, Discard: true, OnRecord: opts.OnRecord})
	if err != nil {
		return h, err
	}
	if err != nil || h.PubSub == nil {
		return h, err
	}
	return h, errors.Join(
		h.PubSub.CreateTopic(Topic),
		h.PubSub.CreateTopic(DeadLetterTopic),
		h.PubSub.CreateSubscription(DeadLetterSubscription, DeadLetterTopic, lasting),
		h.PubSub.CreateSubscription(Subscription, Topic, lasting),
	)
}

// lasting is a subscription with the longest retention of Pub/Sub.
func lasting(s *pubsubpb.Subscription) {
	s.AckDeadlineSeconds = 60
	s.MessageRetentionDuration = durationpb.New(31 * 24 * time.Hour)
	s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{}
}

// Close stops the servers.
func (h *House) Close() error {
	var errs []error
	if h.Gateway != nil {
		errs = append(errs, h.Gateway.Close())
	}
	if h.SAMS != nil {
		errs = append(errs, h.SAMS.Close())
	}
	if h.PubSub != nil {
		errs = append(errs, h.PubSub.Close())
	}
	if h.emulator != nil {
		errs = append(errs, h.emulator.close())
	}
	return errors.Join(errs...)
}

// Environ is the configuration of a worker that uses these servers.
func (h *House) Environ() []string {
	return append(h.PublisherEnviron(),
		"TELEMETRY_GATEWAY_URL="+h.Gateway.URL(),
		"SAMS_URL="+h.SAMS.URL(),
		"SAMS_CLIENT_ID="+h.SAMS.ClientID(),
		"SAMS_CLIENT_SECRET="+h.SAMS.ClientSecret(),
		"ENVIRONMENT_ID="+Environment,
		"WORKER_INSECURE_DEV=true",
	)
}

// PublisherEnviron is the configuration of a service that publishes to the topic.
func (h *House) PublisherEnviron() []string {
	if h.emulator != nil {
		return []string{"PUBSUB_EMULATOR_HOST=" + h.emulator.host, "GOOGLE_CLOUD_PROJECT=" + h.emulator.project}
	}
	return []string{
		"PUBSUB_EMULATOR_HOST=" + h.PubSub.Addr(),
		"GOOGLE_CLOUD_PROJECT=" + Project,
	}
}

// Publish publishes messages to the topic.
func (h *House) Publish(messages []ndjson.Message) error {
	for len(messages) > 0 {
		n := min(len(messages), topic.MaxRequestMessages)
		request := make([]*pubsubpb.PubsubMessage, n)
		for i, m := range messages[:n] {
			request[i] = &pubsubpb.PubsubMessage{Data: m.Data, Attributes: m.Attributes, OrderingKey: m.OrderingKey}
		}
		if err := h.publish(request); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

func (h *House) publish(messages []*pubsubpb.PubsubMessage) error {
	if h.emulator != nil {
		return h.emulator.publish(messages)
	}
	_, err := h.PubSub.Publish(Topic, messages...)
	return err
}

// DeadLetters returns the messages in the dead-letter queue; of an emulator's, those
// since the start.
func (h *House) DeadLetters() []*pubsubpb.PubsubMessage {
	if h.emulator != nil {
		return h.emulator.deadLetters()
	}
	return h.PubSub.Messages(DeadLetterSubscription)
}

// DeadLetterCount is how many DeadLetters has.
func (h *House) DeadLetterCount() int {
	if h.emulator != nil {
		return len(h.emulator.deadLetters())
	}
	return h.PubSub.Stats(DeadLetterSubscription).Backlog
}
