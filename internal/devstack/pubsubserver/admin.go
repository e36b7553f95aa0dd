package pubsubserver

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// deletedTopic is the topic of a subscription whose own was deleted.
	deletedTopic = "_deleted-topic_"

	defaultRetention  = 7 * 24 * time.Hour
	minRetention      = 10 * time.Minute
	maxRetention      = 31 * 24 * time.Hour
	defaultExpiration = 31 * 24 * time.Hour
)

var resourceID = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._~%+-]{2,254}$`)

func checkName(name, kind string) error {
	projects, project, k, id := splitName(name)
	if projects != "projects" || project == "" || k != kind || !resourceID.MatchString(id) || strings.HasPrefix(id, "goog") {
		return status.Errorf(codes.InvalidArgument, "Invalid resource name given (name=%s).", name)
	}
	return nil
}

func (s *Server) createTopic(t *pubsubpb.Topic) (*pubsubpb.Topic, error) {
	if err := checkName(t.GetName(), "topics"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics[t.GetName()] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "Resource already exists in the project (resource=%s).", t.GetName())
	}
	t = proto.CloneOf(t)
	t.State = pubsubpb.Topic_ACTIVE
	s.topics[t.GetName()] = &topic{proto: t}
	return t, nil
}

func (s *Server) deleteTopic(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[name]
	if t == nil {
		return status.Errorf(codes.NotFound, "Resource not found (resource=%s).", name)
	}
	delete(s.topics, name)
	for _, sub := range t.subscriptions {
		changed := proto.CloneOf(sub.proto.Load())
		changed.Topic = deletedTopic
		sub.proto.Store(changed)
	}
	return nil
}

func (s *Server) createSubscription(p *pubsubpb.Subscription) (*pubsubpb.Subscription, error) {
	if err := checkName(p.GetName(), "subscriptions"); err != nil {
		return nil, err
	}
	p = proto.CloneOf(p)
	p.State = pubsubpb.Subscription_ACTIVE
	if err := completeSubscription(p, s.opts.KeepSettings); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[p.GetTopic()]
	if t == nil {
		return nil, status.Errorf(codes.NotFound, "Resource not found (resource=%s).", p.GetTopic())
	}
	if s.subscriptions[p.GetName()] != nil {
		return nil, status.Errorf(codes.AlreadyExists, "Resource already exists in the project (resource=%s).", p.GetName())
	}
	sub := &subscription{
		name:  p.GetName(),
		born:  s.number.Load(),
		queue: newQueue(subscriptionTag(p.GetName()), int(p.GetDeadLetterPolicy().GetMaxDeliveryAttempts())),
	}
	sub.proto.Store(p)
	s.subscriptions[p.GetName()] = sub
	t.subscriptions = append(slices.Clone(t.subscriptions), sub)
	return p, nil
}

// updatable are the fields of a subscription that an update may name.
var updatable = map[string]func(to, from *pubsubpb.Subscription){
	"ack_deadline_seconds": func(to, from *pubsubpb.Subscription) { to.AckDeadlineSeconds = from.GetAckDeadlineSeconds() },
	"message_retention_duration": func(to, from *pubsubpb.Subscription) {
		to.MessageRetentionDuration = from.GetMessageRetentionDuration()
	},
	"retain_acked_messages": func(to, from *pubsubpb.Subscription) { to.RetainAckedMessages = from.GetRetainAckedMessages() },
	"expiration_policy":     func(to, from *pubsubpb.Subscription) { to.ExpirationPolicy = from.GetExpirationPolicy() },
	"dead_letter_policy":    func(to, from *pubsubpb.Subscription) { to.DeadLetterPolicy = from.GetDeadLetterPolicy() },
	"labels":                func(to, from *pubsubpb.Subscription) { to.Labels = from.GetLabels() },
	"retry_policy":          func(to, from *pubsubpb.Subscription) { to.RetryPolicy = from.GetRetryPolicy() },
	"push_config":           func(to, from *pubsubpb.Subscription) { to.PushConfig = from.GetPushConfig() },
	"enable_exactly_once_delivery": func(to, from *pubsubpb.Subscription) {
		to.EnableExactlyOnceDelivery = from.GetEnableExactlyOnceDelivery()
	},
}

func (s *Server) updateSubscription(from *pubsubpb.Subscription, paths []string) (*pubsubpb.Subscription, error) {
	if len(paths) == 0 {
		return nil, status.Error(codes.InvalidArgument, "The update_mask in the request must be set.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subscriptions[from.GetName()]
	if sub == nil {
		return nil, status.Errorf(codes.NotFound, "Resource not found (resource=%s).", from.GetName())
	}
	changed := proto.CloneOf(sub.proto.Load())
	for _, path := range paths {
		set, ok := updatable[path]
		if !ok {
			return nil, status.Errorf(codes.InvalidArgument, "Invalid update_mask provided in the request: %s", path)
		}
		set(changed, proto.CloneOf(from))
	}
	if err := completeSubscription(changed, s.opts.KeepSettings); err != nil {
		return nil, err
	}
	sub.proto.Store(changed)
	sub.queue.setMaxAttempts(int(changed.GetDeadLetterPolicy().GetMaxDeliveryAttempts()))
	return changed, nil
}

func (s *Server) deleteSubscription(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subscriptions[name]
	if sub == nil {
		return status.Errorf(codes.NotFound, "Resource not found (resource=%s).", name)
	}
	delete(s.subscriptions, name)
	if t := s.topics[sub.proto.Load().GetTopic()]; t != nil {
		t.subscriptions = slices.DeleteFunc(slices.Clone(t.subscriptions), func(o *subscription) bool { return o == sub })
	}
	sub.queue.close(status.Errorf(codes.NotFound, "Resource not found (resource=%s).", name))
	return nil
}

// completeSubscription fills in the service's defaults and refuses what is out
// of range, or not supported and would be missed, unless that is kept for show.
func completeSubscription(p *pubsubpb.Subscription, keep bool) error {
	switch {
	case keep:
	case p.GetFilter() != "":
		return status.Error(codes.Unimplemented, "filters are not supported")
	case p.GetRetryPolicy() != nil:
		return status.Error(codes.Unimplemented, "retry policies are not supported")
	case p.GetPushConfig().GetPushEndpoint() != "", p.GetBigqueryConfig() != nil, p.GetCloudStorageConfig() != nil:
		return status.Error(codes.Unimplemented, "only pull subscriptions are supported")
	case len(p.GetMessageTransforms()) > 0:
		return status.Error(codes.Unimplemented, "message transforms are not supported")
	}
	if p.GetAckDeadlineSeconds() == 0 {
		p.AckDeadlineSeconds = defaultAckDeadline
	}
	if n := p.GetAckDeadlineSeconds(); n < 10 || n > int32(maxLeaseSeconds) {
		return status.Errorf(codes.InvalidArgument, "ack_deadline_seconds must be between 10 and %d, not %d", maxLeaseSeconds, n)
	}
	if p.GetMessageRetentionDuration() == nil {
		p.MessageRetentionDuration = durationpb.New(defaultRetention)
	}
	if d := p.GetMessageRetentionDuration().AsDuration(); d < minRetention || d > maxRetention {
		return status.Errorf(codes.InvalidArgument, "message_retention_duration must be between %s and %s, not %s", minRetention, maxRetention, d)
	}
	if p.GetExpirationPolicy() == nil {
		p.ExpirationPolicy = &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(defaultExpiration)}
	}
	if policy := p.GetDeadLetterPolicy(); policy != nil {
		if policy.GetDeadLetterTopic() == "" {
			return status.Error(codes.InvalidArgument, "dead_letter_topic is required")
		}
		if policy.GetMaxDeliveryAttempts() == 0 {
			policy.MaxDeliveryAttempts = 5
		}
		if n := policy.GetMaxDeliveryAttempts(); n < 5 || n > 100 {
			return status.Errorf(codes.InvalidArgument, "max_delivery_attempts must be between 5 and 100, not %d", n)
		}
	}
	return nil
}

// SetSubscription makes a subscription tell other settings, whatever they are. How it
// delivers does not change, except that exactly-once delivery is switched.
func (s *Server) SetSubscription(p *pubsubpb.Subscription) error {
	sub, err := s.subscription(p.GetName())
	if err != nil {
		return err
	}
	sub.proto.Store(proto.CloneOf(p))
	return nil
}

// page returns the part of the sorted names that a list request asks for.
func page(names []string, size int32, token string) (part []string, next string) {
	slices.Sort(names)
	if token != "" {
		from, found := slices.BinarySearch(names, token)
		if found {
			from++
		}
		names = names[from:]
	}
	if size <= 0 || size > 1000 {
		size = 1000
	}
	if len(names) <= int(size) {
		return names, ""
	}
	return names[:size], names[size-1]
}
