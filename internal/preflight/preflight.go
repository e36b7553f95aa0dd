// Package preflight checks Pub/Sub before anything is pulled: that topics, subscriptions
// and permissions exist. For `worker check` it also checks settings, SAMS and the gateway.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/provision"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// Run waits as long as Pub/Sub cannot be reached. It waits for missing resources and
// permissions for a while, as Wait does. Its error names everything that is still missing.
func Run(ctx context.Context, needs provision.Needs, wait time.Duration, log *slog.Logger, opts ...option.ClientOption) (err error) {
	admin, err := provision.Connect(ctx, opts...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	admin.Waiting = func(about string, err error) {
		log.Warn("Pub/Sub does not answer; asking again", "about", about, "error", err)
	}
	return run(ctx, admin, needs, wait, log)
}

// resources is the part of provision.Admin that Run needs.
type resources interface {
	Subscription(ctx context.Context, name string) (*pubsubpb.Subscription, error)
	Topic(ctx context.Context, name string) (*pubsubpb.Topic, error)
	HoldsOnSubscription(ctx context.Context, name, permission string) (bool, error)
	HoldsOnTopic(ctx context.Context, name, permission string) (bool, error)
}

func run(ctx context.Context, r resources, needs provision.Needs, wait time.Duration, log *slog.Logger) error {
	var last *checker
	err := Wait(ctx, wait, log, func() (error, bool) {
		last = &checker{resources: r}
		last.subscription(ctx, needs.Subscription)
		last.deadLetterTopic(ctx, needs.DeadLetterTopic)
		last.topic(ctx, needs)
		return errors.Join(last.faults...), !last.final
	})
	if ctx.Err() != nil {
		// The run ended before Pub/Sub answered. That is no fault of a resource.
		return fmt.Errorf("ask Pub/Sub for the subscription and the topics: %w", context.Cause(ctx))
	}
	for _, warn := range last.notes {
		warn(log)
	}
	return err
}

// checker does one round of checks.
type checker struct {
	resources
	faults []error
	final  bool // at least one fault does not pass by itself
	// notes are warnings about things that are no fault.
	notes []func(*slog.Logger)
}

// fault notes a fault, which may pass by itself or not.
func (c *checker) fault(passes bool, format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf(format, args...))
	c.final = c.final || !passes
}

func (c *checker) subscription(ctx context.Context, name string) {
	const variable = "PUBSUB_SUBSCRIPTION"
	got, err := c.Subscription(ctx, name)
	switch {
	case !c.judge(variable, "subscription", name, err):
	case provision.TopicDeleted(got):
		c.fault(false, "PUBSUB_TOPIC: the topic of the subscription %s was deleted, so no event will arrive. Create the topic and the subscription again", name)
	default:
		c.permission(ctx, variable, name, provision.ConsumePermission, c.HoldsOnSubscription)
	}
}

func (c *checker) deadLetterTopic(ctx context.Context, name string) {
	const variable = "DLQ_TOPIC"
	_, err := c.Topic(ctx, name)
	if c.judge(variable, "dead-letter topic", name, err) {
		c.permission(ctx, variable, name, provision.PublishPermission, c.HoldsOnTopic)
	}
}

func (c *checker) topic(ctx context.Context, needs provision.Needs) {
	_, err := c.Topic(ctx, needs.Topic)
	switch code := status.Code(err); {
	case code == codes.NotFound && !needs.TopicGiven:
		c.notes = append(c.notes, func(log *slog.Logger) {
			log.Warn("The default topic does not exist; set PUBSUB_TOPIC for replays", "topic", needs.Topic)
		})
	case code == codes.PermissionDenied: // the worker itself does not need it
	default:
		c.judge("PUBSUB_TOPIC", "topic", needs.Topic, err)
	}
}

// judge turns the answer to a request for settings into faults, and reports whether the
// resource exists.
func (c *checker) judge(variable, kind, name string, err error) bool {
	switch status.Code(err) {
	case codes.OK:
		return true
	case codes.NotFound:
		c.fault(true, "%s: the %s %s does not exist", variable, kind, name)
		return false
	case codes.PermissionDenied:
		// Least privilege does not include reading settings.
		c.notes = append(c.notes, func(log *slog.Logger) {
			log.Warn("The worker may not read the settings of a resource, and continues without them", "kind", kind, "name", name)
		})
		return true
	}
	c.fault(passes(err), "%s: the %s %s cannot be used: %w", variable, kind, name, err)
	return false
}

type holder func(ctx context.Context, name, permission string) (bool, error)

// permission checks a permission of the worker, if the server supports that request.
func (c *checker) permission(ctx context.Context, variable, name, permission string, holds holder) {
	held, err := holds(ctx, name, permission)
	switch code := status.Code(err); {
	case code == codes.OK && held:
	case code == codes.OK:
		c.fault(true, "%s: the worker does not have the permission %s on %s", variable, permission, name)
	case code == codes.Unimplemented: // an emulator
	case code == codes.NotFound:
		c.fault(true, "%s: %s does not exist", variable, name)
	default:
		c.fault(passes(err), "%s: whether the worker has the permission %s on %s cannot be asked: %w", variable, permission, name, err)
	}
}

// passes reports whether an answer that looks final is known to pass.
func passes(err error) bool { return retry.ClassOf(err) == retry.Refusal }
