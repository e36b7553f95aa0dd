package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	gax "github.com/googleapis/gax-go/v2"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// The permissions that the worker uses.
const (
	ConsumePermission = "pubsub.subscriptions.consume"
	PublishPermission = "pubsub.topics.publish"
)

const (
	askTimeout  = 10 * time.Second
	remindEvery = time.Minute
	askPause    = 5 * time.Second // at most, between two tries
)

// Admin reads, creates and changes resources of Pub/Sub. It repeats each request until
// Pub/Sub answers, even with an error, or the context ends. The error is then the last
// one.
type Admin struct {
	subscriptions *pubsub.SubscriptionAdminClient
	topics        *pubsub.TopicAdminClient
	// Waiting, if set, is called now and then while Pub/Sub does not answer.
	Waiting func(about string, err error)
}

// Connect returns an Admin; it connects when it is first used.
func Connect(ctx context.Context, opts ...option.ClientOption) (*Admin, error) {
	// It asks one question at a time.
	opts = append(slices.Clone(opts), option.WithGRPCConnectionPool(1))
	subscriptions, err := pubsub.NewSubscriptionAdminClient(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	topics, err := pubsub.NewTopicAdminClient(ctx, opts...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to Pub/Sub: %w", err), subscriptions.Close())
	}
	// The clients must not retry themselves, because Waiting reports each try.
	subscriptions.CallOptions = &pubsub.SubscriptionAdminCallOptions{}
	topics.CallOptions = &pubsub.TopicAdminCallOptions{}
	return &Admin{subscriptions: subscriptions, topics: topics}, nil
}

// Close closes the connections.
func (a *Admin) Close() error { return errors.Join(a.subscriptions.Close(), a.topics.Close()) }

// Subscription returns a subscription with its settings.
func (a *Admin) Subscription(ctx context.Context, name string) (*pubsubpb.Subscription, error) {
	return insist(ctx, a, name, func(ctx context.Context) (*pubsubpb.Subscription, error) {
		return a.subscriptions.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: name})
	})
}

// Topic returns a topic.
func (a *Admin) Topic(ctx context.Context, name string) (*pubsubpb.Topic, error) {
	return insist(ctx, a, name, func(ctx context.Context) (*pubsubpb.Topic, error) {
		return a.topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: name})
	})
}

// HasSubscription reports whether a topic has a subscription, any one.
func (a *Admin) HasSubscription(ctx context.Context, topic string) (bool, error) {
	return insist(ctx, a, topic, func(ctx context.Context) (bool, error) {
		_, err := a.topics.ListTopicSubscriptions(ctx, &pubsubpb.ListTopicSubscriptionsRequest{Topic: topic}).Next()
		if errors.Is(err, iterator.Done) {
			return false, nil
		}
		return err == nil, err
	})
}

// HoldsOnSubscription reports whether the caller has a permission on a subscription. An emulator answers with Unimplemented.
func (a *Admin) HoldsOnSubscription(ctx context.Context, name, permission string) (bool, error) {
	return a.holds(ctx, name, permission, a.subscriptions.TestIamPermissions)
}

// HoldsOnTopic is HoldsOnSubscription for a topic.
func (a *Admin) HoldsOnTopic(ctx context.Context, name, permission string) (bool, error) {
	return a.holds(ctx, name, permission, a.topics.TestIamPermissions)
}

type tester func(context.Context, *iampb.TestIamPermissionsRequest, ...gax.CallOption) (*iampb.TestIamPermissionsResponse, error)

func (a *Admin) holds(ctx context.Context, name, permission string, test tester) (bool, error) {
	got, err := insist(ctx, a, name, func(ctx context.Context) (*iampb.TestIamPermissionsResponse, error) {
		return test(ctx, &iampb.TestIamPermissionsRequest{Resource: name, Permissions: []string{permission}})
	})
	return slices.Contains(got.GetPermissions(), permission), err
}

// CreateTopic creates a topic.
func (a *Admin) CreateTopic(ctx context.Context, name string) error {
	_, err := insist(ctx, a, name, func(ctx context.Context) (*pubsubpb.Topic, error) {
		return a.topics.CreateTopic(ctx, &pubsubpb.Topic{Name: name})
	})
	return err
}

// CreateSubscription creates a subscription.
func (a *Admin) CreateSubscription(ctx context.Context, s *pubsubpb.Subscription) error {
	_, err := insist(ctx, a, s.GetName(), func(ctx context.Context) (*pubsubpb.Subscription, error) {
		return a.subscriptions.CreateSubscription(ctx, s)
	})
	return err
}

// UpdateSubscription changes the fields of a subscription that paths name.
func (a *Admin) UpdateSubscription(ctx context.Context, s *pubsubpb.Subscription, paths ...string) error {
	_, err := insist(ctx, a, s.GetName(), func(ctx context.Context) (*pubsubpb.Subscription, error) {
		return a.subscriptions.UpdateSubscription(ctx, &pubsubpb.UpdateSubscriptionRequest{
			Subscription: s, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
	})
	return err
}

// insist repeats a request until Pub/Sub answers, even with an error.
func insist[T any](ctx context.Context, a *Admin, about string, question func(context.Context) (T, error)) (T, error) {
	var reminded time.Time
	return retry.Until(ctx, askPause, func() (T, error) {
		rpc, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		answer, err := question(rpc)
		if err != nil && kindOf(err) != retry.Final && ctx.Err() == nil && a.Waiting != nil && time.Since(reminded) > remindEvery {
			reminded = time.Now()
			a.Waiting(about, err)
		}
		return answer, err
	}, kindOf)
}

// kindOf says whether an error is an answer of Pub/Sub or the lack of one.
func kindOf(err error) retry.Kind {
	switch {
	case status.Code(err) == codes.DeadlineExceeded:
		return retry.Late
	case retry.ClassOf(err) == retry.Outage:
		return retry.Transient
	}
	return retry.Final
}
