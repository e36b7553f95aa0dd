package live_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/uuid"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

const (
	// prefix begins the name of everything that is created.
	prefix = "telemetry-relay-live-"
	// label is on everything that is created. Its value is the run.
	label = "telemetry-relay-live"
	// expiration is after how long without use Pub/Sub itself deletes a subscription,
	// should nobody else have: the shortest that it takes.
	expiration = 24 * time.Hour
	// cleanupTime bounds the deletion of everything.
	cleanupTime = 90 * time.Second
	// settleTime is how long a request is tried again that is refused, since what was
	// just created is not known everywhere at once (java-pubsub#81).
	settleTime = 20 * time.Second
	// requestTime bounds one request.
	requestTime = 10 * time.Second
)

// resource is a topic, a subscription or a snapshot.
type resource struct {
	kind string // as gcloud calls it: topics, subscriptions or snapshots
	name string // in full
}

// command deletes it by hand.
func (r resource) command() string {
	_, rest, _ := strings.Cut(r.name, "/")
	project, _, _ := strings.Cut(rest, "/")
	return fmt.Sprintf("gcloud pubsub %s delete %s --project=%s", r.kind, r.name[strings.LastIndex(r.name, "/")+1:], project)
}

// leftover is a resource that could not be deleted, or may be there still.
type leftover struct {
	resource
	err error
}

// clients are those of one target.
type clients struct {
	topics *pubsub.TopicAdminClient
	subs   *pubsub.SubscriptionAdminClient
}

func connect(ctx context.Context, opts ...option.ClientOption) (*clients, error) {
	topics, err := pubsub.NewTopicAdminClient(ctx, opts...)
	if err != nil {
		return nil, err
	}
	subs, err := pubsub.NewSubscriptionAdminClient(ctx, opts...)
	if err != nil {
		return nil, errors.Join(err, topics.Close())
	}
	// A row wants to see each answer itself.
	topics.CallOptions, subs.CallOptions = &pubsub.TopicAdminCallOptions{}, &pubsub.SubscriptionAdminCallOptions{}
	return &clients{topics, subs}, nil
}

func (c *clients) close() error { return errors.Join(c.topics.Close(), c.subs.Close()) }

// insist repeats a request that fails with a code that is known to pass. The end of ctx
// does not cut a request: what it creates must be known before everything is deleted.
func insist[T any](ctx context.Context, try func(context.Context) (T, error)) (T, error) {
	bounds := &retry.Bounds{Outage: settleTime, Refusal: settleTime}
	return retry.Bounded(ctx, bounds, func() (T, error) {
		request, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
		defer cancel()
		return try(request)
	}, func(error, retry.Class) {})
}

// estate is everything that a run has created.
type estate struct {
	*clients
	project string
	run     string        // a random suffix
	settle  time.Duration // for how long a deletion may have no effect

	mu   sync.Mutex // guards made
	made []resource
}

func newEstate(c *clients, project string) *estate {
	return &estate{clients: c, project: project, run: uuid.NewString()[:8], settle: settleTime}
}

func (e *estate) labels() map[string]string { return map[string]string{label: e.run} }

// register notes a resource before it is created: a request may be served although its
// answer is lost.
func (e *estate) register(kind, id string) resource {
	r := resource{kind, fmt.Sprintf("projects/%s/%s/%s%s-%s", e.project, kind, prefix, e.run, id)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.made = append(e.made, r)
	return r
}

func (e *estate) createTopic(ctx context.Context, id string) (name string, err error) {
	r := e.register("topics", id)
	_, err = insist(ctx, func(ctx context.Context) (*pubsubpb.Topic, error) {
		return e.topics.CreateTopic(ctx, &pubsubpb.Topic{Name: r.name, Labels: e.labels()})
	})
	return r.name, e.created(r, err)
}

// created says what could not be created. That a repeated request finds the resource
// there is no error. What Pub/Sub refused to create need not be deleted.
func (e *estate) created(r resource, err error) error {
	if err == nil || status.Code(err) == codes.AlreadyExists {
		return nil
	}
	if retry.ClassOf(err) != retry.Outage {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.made = slices.DeleteFunc(e.made, func(other resource) bool { return other == r })
	}
	return fmt.Errorf("create %s: %w", r.name, err)
}

func (e *estate) createSubscription(ctx context.Context, id, topic string, change func(*pubsubpb.Subscription)) (name string, err error) {
	r := e.register("subscriptions", id)
	sub := &pubsubpb.Subscription{
		Name: r.name, Topic: topic, Labels: e.labels(), AckDeadlineSeconds: 10,
		ExpirationPolicy:         &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(expiration)},
		MessageRetentionDuration: durationpb.New(time.Hour),
	}
	if change != nil {
		change(sub)
	}
	_, err = insist(ctx, func(ctx context.Context) (*pubsubpb.Subscription, error) { return e.subs.CreateSubscription(ctx, sub) })
	return r.name, e.created(r, err)
}

func (e *estate) createSnapshot(ctx context.Context, id, subscription string) (name string, err error) {
	r := e.register("snapshots", id)
	_, err = insist(ctx, func(ctx context.Context) (*pubsubpb.Snapshot, error) {
		return e.subs.CreateSnapshot(ctx, &pubsubpb.CreateSnapshotRequest{Name: r.name, Subscription: subscription, Labels: e.labels()})
	})
	return r.name, e.created(r, err)
}

// deleteAll deletes everything that was created, makes sure that it is gone, and
// returns what may still be there.
func (e *estate) deleteAll(ctx context.Context) (left []leftover) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// A resource that depends on another one is deleted first.
	for _, kind := range []string{"snapshots", "subscriptions", "topics"} {
		var (
			all sync.WaitGroup
			mu  sync.Mutex
		)
		for _, r := range e.made {
			if r.kind != kind {
				continue
			}
			all.Go(func() {
				if err := e.delete(ctx, r); err != nil {
					mu.Lock()
					defer mu.Unlock()
					left = append(left, leftover{r, err})
				}
			})
		}
		all.Wait()
	}
	return left
}

// errStillThere: Pub/Sub has confirmed the deletion.
var errStillThere = errors.New("it is still there after its deletion")

func (e *estate) delete(ctx context.Context, r resource) error {
	_, err := retry.Bounded(ctx, &retry.Bounds{Outage: e.settle}, func() (struct{}, error) {
		return struct{}{}, e.call(ctx, r, e.deleteRequest)
	}, func(error, retry.Class) {})
	if err != nil && status.Code(err) != codes.NotFound {
		return err
	}
	_, err = retry.Bounded(ctx, &retry.Bounds{Outage: e.settle}, func() (struct{}, error) {
		switch err := e.call(ctx, r, e.getRequest); status.Code(err) {
		case codes.NotFound:
			return struct{}{}, nil
		case codes.OK:
			return struct{}{}, errStillThere
		default:
			return struct{}{}, fmt.Errorf("whether it is gone cannot be asked: %w", err)
		}
	}, func(error, retry.Class) {})
	return err
}

func (e *estate) call(ctx context.Context, r resource, do func(context.Context, resource) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	return do(ctx, r)
}

func (e *estate) deleteRequest(ctx context.Context, r resource) error {
	switch r.kind {
	case "snapshots":
		return e.subs.DeleteSnapshot(ctx, &pubsubpb.DeleteSnapshotRequest{Snapshot: r.name})
	case "subscriptions":
		return e.subs.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: r.name})
	}
	return e.topics.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: r.name})
}

func (e *estate) getRequest(ctx context.Context, r resource) (err error) {
	switch r.kind {
	case "snapshots":
		_, err = e.subs.GetSnapshot(ctx, &pubsubpb.GetSnapshotRequest{Snapshot: r.name})
	case "subscriptions":
		_, err = e.subs.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: r.name})
	default:
		_, err = e.topics.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: r.name})
	}
	return err
}
