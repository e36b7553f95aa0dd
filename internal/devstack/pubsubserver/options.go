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
	defaultStreamIdle  = 60 * time.Second
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
	// StreamIdle is how long a StreamingPull lives without a request from its client; 60 s
	// if zero. The service ends streams without traffic (the official client says so in
	// pubsub/v2, iterator.go; google-cloud-dotnet#1505 saw it after two minutes), and the
	// official clients ping every 30 s.
	StreamIdle time.Duration
	// DeliveryLease is the lease that a StreamingPull gives with a message, whatever
	// the client asks for in stream_ack_deadline_seconds, until its first ModifyAckDeadline; ten
	// minutes if zero, as observed with the service (google-cloud-rust#4519,
	// google-cloud-go#11642). It is rounded up to seconds; ten minutes are the most.
	DeliveryLease time.Duration
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
	if o.StreamIdle <= 0 {
		o.StreamIdle = defaultStreamIdle
	}
	if o.DeliveryLease <= 0 {
		o.DeliveryLease = MaxAckDeadline
	}
	return o
}

func (o Options) leaseSeconds() int {
	return min(int((o.DeliveryLease+time.Second-1)/time.Second), maxLeaseSeconds)
}

// SubscriptionOption changes the subscription that is to be created.
type SubscriptionOption func(*pubsubpb.Subscription)

// WithExactlyOnce enables exactly-once delivery.
func WithExactlyOnce() SubscriptionOption {
	return func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true }
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
