package pubsubserver

import (
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// The service's limits that the server enforces.
const (
	// MaxPublishMessages is the most messages in a publish request.
	MaxPublishMessages = 1000
	// MaxPublishBytes is the largest publish request, encoded.
	MaxPublishBytes = 10 << 20
	// MaxAttributes is the most attributes of a message.
	MaxAttributes = 100
	// MaxAttributeKeyBytes and MaxAttributeValueBytes bound an attribute.
	MaxAttributeKeyBytes   = 256
	MaxAttributeValueBytes = 1024
	// MaxAckRequestBytes is the largest request to acknowledge or to modify
	// deadlines, encoded.
	MaxAckRequestBytes = 512 << 10
	// MinStreamAckDeadline and MaxAckDeadline bound a lease.
	MinStreamAckDeadline = 10 * time.Second
	MaxAckDeadline       = 600 * time.Second
)

const (
	defaultAddr        = "127.0.0.1:0"
	defaultPullWait    = 3 * time.Second
	defaultAckDeadline = 10 // seconds, as in the service

	// A response to a pull ends at this many messages, or when another message
	// would take it beyond this size; a larger message goes alone.
	maxResponseMessages = 1000
	maxResponseBytes    = 4 << 20

	// maxRequestBytes is what the server receives at all: more than what it
	// accepts, so that the refusal is the service's own.
	maxRequestBytes = 64 << 20

	// leaseTick is how exactly leases expire.
	leaseTick = 50 * time.Millisecond
)

// Options configures a Server; the zero value is usable.
type Options struct {
	// Addr is the TCP address to listen on; "127.0.0.1:0" if empty.
	Addr string
	// PullWait is how long a Pull waits for its first message before it answers
	// with none; 3 s if zero.
	PullWait time.Duration
	// KeepSettings makes the server take, keep and tell settings of subscriptions
	// that it does not act on, such as filters: for tests of what asks for them.
	KeepSettings bool
}

func (o Options) withDefaults() Options {
	if o.Addr == "" {
		o.Addr = defaultAddr
	}
	if o.PullWait <= 0 {
		o.PullWait = defaultPullWait
	}
	return o
}

// SubscriptionOption changes the subscription that is to be created.
type SubscriptionOption func(*pubsubpb.Subscription)

// WithAckDeadline sets the lease that a Pull gives, 10 to 600 seconds.
func WithAckDeadline(seconds int) SubscriptionOption {
	return func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = int32(seconds) }
}

// WithDeadLetterPolicy forwards messages to topic, a full name, when the last of
// maxAttempts (5 to 100) deliveries was not acknowledged.
func WithDeadLetterPolicy(topic string, maxAttempts int) SubscriptionOption {
	return func(s *pubsubpb.Subscription) {
		s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{
			DeadLetterTopic: topic, MaxDeliveryAttempts: int32(maxAttempts),
		}
	}
}
