package pubsubserver

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

// splitName takes "projects/p/topics/t" apart.
func splitName(name string) (projects, project, kind, id string) {
	parts := strings.SplitN(name, "/", 4)
	if len(parts) != 4 {
		return "", "", "", ""
	}
	return parts[0], parts[1], parts[2], parts[3]
}

func checkName(name, kind string) error {
	projects, project, k, id := splitName(name)
	if projects != "projects" || project == "" || k != kind || !resourceID.MatchString(id) || strings.HasPrefix(id, "goog") {
		return status.Errorf(codes.InvalidArgument, "Invalid resource name given (name=%s).", name)
	}
	return nil
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

// namesIn returns the names of a project's resources.
func namesIn[T any](resources map[string]T, project string) []string {
	var names []string
	for name := range resources {
		if strings.HasPrefix(name, project+"/") {
			names = append(names, name)
		}
	}
	return names
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
