// Package preflight checks, before anything is pulled, that Pub/Sub has what the
// worker needs.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/cenkalti/backoff/v5"
	gax "github.com/googleapis/gax-go/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Needs are the resources that the worker uses, by full name.
type Needs struct {
	Subscription    string
	DeadLetterTopic string
	// Topic is where the events come from; only `publish` and `replay` use it.
	Topic string
	// TopicGiven says that the topic was set on purpose, not by default.
	TopicGiven bool
}

const (
	consumePermission = "pubsub.subscriptions.consume"
	publishPermission = "pubsub.topics.publish"
	// deletedTopic is what Pub/Sub names the topic of a subscription whose topic
	// was deleted.
	deletedTopic = "_deleted-topic_"

	askTimeout  = 10 * time.Second
	remindEvery = time.Minute
)

// Run checks until everything could be asked; it waits as long as Pub/Sub cannot
// be reached. The error names everything that is missing.
func Run(ctx context.Context, needs Needs, log *slog.Logger, opts ...option.ClientOption) (err error) {
	subscriptions, err := pubsub.NewSubscriptionAdminClient(ctx, opts...)
	if err != nil {
		return fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	defer func() { err = errors.Join(err, subscriptions.Close()) }()
	topics, err := pubsub.NewTopicAdminClient(ctx, opts...)
	if err != nil {
		return fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	defer func() { err = errors.Join(err, topics.Close()) }()

	// Each question is asked here again and again, so that the log can tell.
	subscriptions.CallOptions.GetSubscription = nil
	topics.CallOptions.GetTopic = nil
	c := checker{log: log, subscriptions: subscriptions, topics: topics}
	err = errors.Join(
		c.subscription(ctx, needs.Subscription),
		c.deadLetterTopic(ctx, needs.DeadLetterTopic),
		c.topic(ctx, needs),
	)
	if ctx.Err() != nil {
		// Nothing is wrong with what could not be asked any more.
		return fmt.Errorf("ask Pub/Sub for the subscription and the topics: %w", context.Cause(ctx))
	}
	return err
}

type checker struct {
	log           *slog.Logger
	subscriptions *pubsub.SubscriptionAdminClient
	topics        *pubsub.TopicAdminClient
}

func (c *checker) subscription(ctx context.Context, name string) error {
	const variable = "PUBSUB_SUBSCRIPTION"
	got, err := ask(ctx, c.log, name, func(ctx context.Context) (*pubsubpb.Subscription, error) {
		return c.subscriptions.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: name})
	})
	if err := c.judge(variable, "subscription", name, err); err != nil {
		return err
	}
	if got.GetTopic() == deletedTopic {
		return fmt.Errorf("PUBSUB_TOPIC: the topic of the subscription %s has been deleted; nothing will come any more. Create both anew", name)
	}
	return c.permission(ctx, variable, name, consumePermission, c.subscriptions.TestIamPermissions)
}

func (c *checker) deadLetterTopic(ctx context.Context, name string) error {
	const variable = "DLQ_TOPIC"
	_, err := ask(ctx, c.log, name, func(ctx context.Context) (*pubsubpb.Topic, error) {
		return c.topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: name})
	})
	if err := c.judge(variable, "dead-letter topic", name, err); err != nil {
		return err
	}
	return c.permission(ctx, variable, name, publishPermission, c.topics.TestIamPermissions)
}

func (c *checker) topic(ctx context.Context, needs Needs) error {
	_, err := ask(ctx, c.log, needs.Topic, func(ctx context.Context) (*pubsubpb.Topic, error) {
		return c.topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: needs.Topic})
	})
	if status.Code(err) == codes.NotFound && !needs.TopicGiven {
		c.log.Warn("The default topic does not exist; set PUBSUB_TOPIC for replays", "topic", needs.Topic)
		return nil
	}
	if status.Code(err) == codes.PermissionDenied {
		return nil // the worker itself does not need it
	}
	return c.judge("PUBSUB_TOPIC", "topic", needs.Topic, err)
}

// judge turns the answer to a question about settings into a verdict.
func (c *checker) judge(variable, kind, name string, err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.NotFound:
		return fmt.Errorf("%s: the %s %s does not exist", variable, kind, name)
	case codes.PermissionDenied:
		// Least privilege does not include reading settings.
		c.log.Warn("The worker may not read the settings of a resource; it goes on without", "kind", kind, "name", name)
		return nil
	}
	return fmt.Errorf("%s: the %s %s cannot be used: %w", variable, kind, name, err)
}

type tester func(context.Context, *iampb.TestIamPermissionsRequest, ...gax.CallOption) (*iampb.TestIamPermissionsResponse, error)

// permission asks whether the worker holds a permission, where the server knows
// the question.
func (c *checker) permission(ctx context.Context, variable, name, permission string, test tester) error {
	got, err := ask(ctx, c.log, name, func(ctx context.Context) (*iampb.TestIamPermissionsResponse, error) {
		return test(ctx, &iampb.TestIamPermissionsRequest{Resource: name, Permissions: []string{permission}})
	})
	switch status.Code(err) {
	case codes.OK:
		if slices.Contains(got.GetPermissions(), permission) {
			return nil
		}
		return fmt.Errorf("%s: the worker does not have the permission %s on %s", variable, permission, name)
	case codes.Unimplemented:
		return nil // an emulator
	case codes.NotFound:
		return fmt.Errorf("%s: %s does not exist", variable, name)
	}
	return fmt.Errorf("%s: whether the worker has the permission %s on %s cannot be asked: %w", variable, permission, name, err)
}

// ask asks until there is an answer, of whatever kind.
func ask[T any](ctx context.Context, log *slog.Logger, name string, question func(context.Context) (T, error)) (T, error) {
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = 5 * time.Second
	var told time.Time
	return backoff.Retry(ctx, func() (T, error) {
		rpc, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		answer, err := question(rpc)
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unknown, codes.Canceled:
			if ctx.Err() == nil && time.Since(told) > remindEvery {
				told = time.Now()
				log.Warn("Pub/Sub does not answer; asking again", "about", name, "error", err)
			}
			return answer, err
		}
		if err != nil {
			return answer, backoff.Permanent(err)
		}
		return answer, nil
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0))
}
