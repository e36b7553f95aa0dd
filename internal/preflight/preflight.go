// Package preflight checks, before anything is pulled, that Pub/Sub has what the
// worker needs.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/provision"
)

// Run checks until everything could be asked; it waits as long as Pub/Sub cannot
// be reached. The error names everything that is missing.
func Run(ctx context.Context, needs provision.Needs, log *slog.Logger, opts ...option.ClientOption) (err error) {
	admin, err := provision.Connect(ctx, opts...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	admin.Waiting = func(about string, err error) {
		log.Warn("Pub/Sub does not answer; asking again", "about", about, "error", err)
	}
	c := checker{log: log, admin: admin}
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
	log   *slog.Logger
	admin *provision.Admin
}

func (c *checker) subscription(ctx context.Context, name string) error {
	const variable = "PUBSUB_SUBSCRIPTION"
	got, err := c.admin.Subscription(ctx, name)
	if err := c.judge(variable, "subscription", name, err); err != nil {
		return err
	}
	if provision.TopicDeleted(got) {
		return fmt.Errorf("PUBSUB_TOPIC: the topic of the subscription %s has been deleted; nothing will come any more. Create both anew", name)
	}
	return c.permission(ctx, variable, name, provision.ConsumePermission, c.admin.HoldsOnSubscription)
}

func (c *checker) deadLetterTopic(ctx context.Context, name string) error {
	const variable = "DLQ_TOPIC"
	_, err := c.admin.Topic(ctx, name)
	if err := c.judge(variable, "dead-letter topic", name, err); err != nil {
		return err
	}
	return c.permission(ctx, variable, name, provision.PublishPermission, c.admin.HoldsOnTopic)
}

func (c *checker) topic(ctx context.Context, needs provision.Needs) error {
	_, err := c.admin.Topic(ctx, needs.Topic)
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

type holder func(ctx context.Context, name, permission string) (bool, error)

// permission asks whether the worker holds a permission, where the server knows
// the question.
func (c *checker) permission(ctx context.Context, variable, name, permission string, holds holder) error {
	held, err := holds(ctx, name, permission)
	switch status.Code(err) {
	case codes.OK:
		if held {
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
