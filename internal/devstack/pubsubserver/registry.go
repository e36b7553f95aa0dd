package pubsubserver

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// registry has the topics and the subscriptions of a Server.
type registry struct {
	keepSettings bool // Options.KeepSettings
	sequence     sequence

	mu            sync.RWMutex // guards everything below, and the topics' fields
	topics        map[string]*topic
	subscriptions map[string]*subscription
}

// sequence gives messages their numbers.
type sequence struct {
	// mu is read-locked while the numbers of messages are given and the messages come into
	// the subscriptions. A snapshot locks it, so that it sees either all of a request or
	// nothing.
	mu   sync.RWMutex
	last atomic.Uint64 // the last message's number
}

// reserve returns the first of n new numbers. The caller holds the read lock.
func (s *sequence) reserve(n int) uint64 { return s.last.Add(uint64(n)) - uint64(n) + 1 }

type topic struct {
	proto *pubsubpb.Topic // replaced, never changed
	// subscriptions is replaced, never changed, so that a publisher can use it
	// without the lock.
	subscriptions []*subscription
}

func newRegistry(keepSettings bool) *registry {
	r := &registry{
		keepSettings:  keepSettings,
		topics:        map[string]*topic{},
		subscriptions: map[string]*subscription{},
	}
	// Ids must differ from those of an earlier server, because consumers derive ids of
	// events from them.
	r.sequence.last.Store(uint64(time.Now().UnixMicro()))
	return r
}

func notFound(name string) error {
	return status.Errorf(codes.NotFound, "Resource not found (resource=%s).", name)
}

func (r *registry) createTopic(t *pubsubpb.Topic) (*pubsubpb.Topic, error) {
	if err := checkName(t.GetName(), "topics"); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.topics[t.GetName()] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "Resource already exists in the project (resource=%s).", t.GetName())
	}
	t = proto.CloneOf(t)
	t.State = pubsubpb.Topic_ACTIVE
	r.topics[t.GetName()] = &topic{proto: t}
	return t, nil
}

func (r *registry) topic(name string) (*pubsubpb.Topic, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if t := r.topics[name]; t != nil {
		return t.proto, nil
	}
	return nil, notFound(name)
}

// listTopics returns a page of the topics of a project, by name.
func (r *registry) listTopics(project string, size int32, token string) (part []*pubsubpb.Topic, next string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	names, next := page(namesIn(r.topics, project), size, token)
	for _, name := range names {
		part = append(part, r.topics[name].proto)
	}
	return part, next
}

func (r *registry) deleteTopic(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.topics[name]
	if t == nil {
		return notFound(name)
	}
	delete(r.topics, name)
	for _, sub := range t.subscriptions {
		changed := proto.CloneOf(sub.proto.Load())
		changed.Topic = deletedTopic
		sub.proto.Store(changed)
	}
	return nil
}

// subscribers returns the subscriptions to a topic. The caller must not change the slice.
func (r *registry) subscribers(topic string) ([]*subscription, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t := r.topics[topic]
	if t == nil {
		return nil, notFound(topic)
	}
	return t.subscriptions, nil
}

func (r *registry) createSubscription(p *pubsubpb.Subscription) (*pubsubpb.Subscription, error) {
	if err := checkName(p.GetName(), "subscriptions"); err != nil {
		return nil, err
	}
	p = proto.CloneOf(p)
	p.State = pubsubpb.Subscription_ACTIVE
	if err := completeSubscription(p, r.keepSettings); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.topics[p.GetTopic()]
	if t == nil {
		return nil, notFound(p.GetTopic())
	}
	if r.subscriptions[p.GetName()] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "Resource already exists in the project (resource=%s).", p.GetName())
	}
	sub := &subscription{
		name:     p.GetName(),
		registry: r,
		born:     r.sequence.last.Load(),
		queue:    newQueue(subscriptionTag(p.GetName()), int(p.GetDeadLetterPolicy().GetMaxDeliveryAttempts())),
	}
	sub.proto.Store(p)
	r.subscriptions[p.GetName()] = sub
	t.subscriptions = append(slices.Clone(t.subscriptions), sub)
	return p, nil
}

func (r *registry) subscription(name string) (*subscription, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if sub := r.subscriptions[name]; sub != nil {
		return sub, nil
	}
	return nil, notFound(name)
}

// listSubscriptions returns a page of the subscriptions of a project, by name.
func (r *registry) listSubscriptions(project string, size int32, token string) (part []*pubsubpb.Subscription, next string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	names, next := page(namesIn(r.subscriptions, project), size, token)
	for _, name := range names {
		part = append(part, r.subscriptions[name].proto.Load())
	}
	return part, next
}

func (r *registry) updateSubscription(from *pubsubpb.Subscription, paths []string) (*pubsubpb.Subscription, error) {
	if len(paths) == 0 {
		return nil, status.Error(codes.InvalidArgument, "The update_mask in the request must be set.")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	sub := r.subscriptions[from.GetName()]
	if sub == nil {
		return nil, notFound(from.GetName())
	}
	changed := proto.CloneOf(sub.proto.Load())
	for _, path := range paths {
		set, ok := updatable[path]
		if !ok {
			return nil, status.Errorf(codes.InvalidArgument, "Invalid update_mask provided in the request: %s", path)
		}
		set(changed, proto.CloneOf(from))
	}
	if err := completeSubscription(changed, r.keepSettings); err != nil {
		return nil, err
	}
	sub.proto.Store(changed)
	sub.queue.setMaxAttempts(int(changed.GetDeadLetterPolicy().GetMaxDeliveryAttempts()))
	return changed, nil
}

func (r *registry) deleteSubscription(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	sub := r.subscriptions[name]
	if sub == nil {
		return notFound(name)
	}
	delete(r.subscriptions, name)
	if t := r.topics[sub.proto.Load().GetTopic()]; t != nil {
		t.subscriptions = slices.DeleteFunc(slices.Clone(t.subscriptions), func(o *subscription) bool { return o == sub })
	}
	sub.queue.close(notFound(name))
	return nil
}

// exists reports whether there is a topic or a subscription of this full name.
func (r *registry) exists(resource string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.topics[resource] != nil || r.subscriptions[resource] != nil
}

func (r *registry) allSubscriptions() []*subscription {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.subscriptions))
}

// expireLeases is the one goroutine that ends the leases of all subscriptions.
func (r *registry) expireLeases(ctx context.Context) {
	ticker := time.NewTicker(leaseTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, sub := range r.allSubscriptions() {
				sub.deadLetter(sub.queue.expire(now))
			}
		}
	}
}
