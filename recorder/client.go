package recorder

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// topicSender publishes to a topic.
type topicSender struct {
	publisher  *pubsub.Publisher
	attributes map[string]string
	// copies is set if the publisher may change the attributes.
	copies bool
}

func (s topicSender) send(ctx context.Context, data []byte) result {
	attributes := s.attributes
	if s.copies {
		attributes = maps.Clone(attributes)
	}
	return s.publisher.Publish(ctx, &pubsub.Message{Data: data, Attributes: attributes})
}

// target returns log attributes that say where events go.
func target(cfg Config) []slog.Attr {
	topic := cfg.Topic
	if cfg.Publisher != nil {
		topic = cfg.Publisher.String()
	}
	attrs := []slog.Attr{slog.String("topic", topic)}
	if host := os.Getenv("PUBSUB_EMULATOR_HOST"); host != "" {
		attrs = append(attrs, slog.String("emulator", host))
	}
	return attrs
}

// client is the recorder's own Pub/Sub client.
type client struct {
	client    *pubsub.Client
	publisher *pubsub.Publisher
	closing   atomic.Bool
	once      sync.Once
	why       *cause // why the last try failed
}

const (
	// publishDelay is how long an event waits for others to share its request.
	publishDelay = 50 * time.Millisecond
	// publishEvents and publishBytes are the events and bytes with which a request is sent
	// at once.
	publishEvents = 500
	publishBytes  = 1 << 20
	// maxRetryPause is the longest pause between two tries, and so bounds how long the
	// client takes to notice that it was closed.
	maxRetryPause = 5 * time.Second
)

func newClient(ctx context.Context, cfg Config, why *cause) (*client, error) {
	c, err := pubsub.NewClient(ctx, topicProject(cfg.Topic), cfg.ClientOptions...)
	if err != nil {
		return nil, fmt.Errorf("recorder: connect to Pub/Sub: %w", err)
	}
	owned := &client{client: c, publisher: c.Publisher(cfg.Topic), why: why}
	// The pipeline bounds the outstanding events. The client's own flow control would act
	// too late for Record to report a full buffer.
	settings := &owned.publisher.PublishSettings
	settings.DelayThreshold = publishDelay
	settings.CountThreshold = publishEvents
	settings.ByteThreshold = publishBytes
	settings.Timeout = cfg.RetryFor
	owned.boundRetries()
	return owned, nil
}

// boundRetries keeps the client's choice of errors that are retried, adds those that
// usually pass, shortens the pauses, and stops retrying when the client is closed.
func (c *client) boundRetries() {
	var defaults gax.CallSettings
	for _, option := range c.client.TopicAdminClient.CallOptions.Publish {
		option.Resolve(&defaults)
	}
	c.client.TopicAdminClient.CallOptions.Publish = append(c.client.TopicAdminClient.CallOptions.Publish,
		gax.WithRetry(func() gax.Retryer {
			return &retryer{
				Retryer: defaults.Retry(),
				backoff: gax.Backoff{Initial: 100 * time.Millisecond, Max: maxRetryPause, Multiplier: 2},
				closing: &c.closing,
				why:     c.why,
			}
		}))
}

type retryer struct {
	gax.Retryer
	backoff gax.Backoff
	closing *atomic.Bool
	why     *cause
}

func (r *retryer) Retry(err error) (time.Duration, bool) {
	r.why.set(err)
	if _, again := r.Retryer.Retry(err); !again && !passes(err) || r.closing.Load() {
		return 0, false
	}
	return r.backoff.Pause(), true
}

// passes reports whether a refusal usually passes, because the topic is created or the
// permission granted after the service has started, or a token is renewed.
func passes(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	return false
}

// close closes the client. With unsettled events it does not wait for the client's
// goroutines, which end within maxRetryPause.
func (c *client) close(settled bool) (err error) {
	c.once.Do(func() {
		c.closing.Store(true)
		if settled {
			c.publisher.Stop()
			err = c.client.Close()
			return
		}
		// Running calls end with the connection.
		err = c.client.Close()
		go c.publisher.Stop()
	})
	return err
}
