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
	// copies is set where the publisher may change the attributes.
	copies bool
}

func (s topicSender) send(ctx context.Context, data []byte) result {
	attributes := s.attributes
	if s.copies {
		attributes = maps.Clone(attributes)
	}
	return s.publisher.Publish(ctx, &pubsub.Message{Data: data, Attributes: attributes})
}

// target says in the log where events go.
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

// client is a Pub/Sub client of a recorder's own.
type client struct {
	client    *pubsub.Client
	publisher *pubsub.Publisher
	closing   atomic.Bool
	once      sync.Once
	why       *cause // of the tries
}

const (
	// publishDelay is how long an event waits for company.
	publishDelay = 50 * time.Millisecond
	// publishEvents and publishBytes are when it need not wait.
	publishEvents = 500
	publishBytes  = 1 << 20
	// maxRetryPause bounds the pause between two tries, and so how long the client
	// takes to notice that it was closed.
	maxRetryPause = 5 * time.Second
)

func newClient(ctx context.Context, cfg Config, why *cause) (*client, error) {
	c, err := pubsub.NewClient(ctx, topicProject(cfg.Topic), cfg.ClientOptions...)
	if err != nil {
		return nil, fmt.Errorf("recorder: connect to Pub/Sub: %w", err)
	}
	owned := &client{client: c, publisher: c.Publisher(cfg.Topic), why: why}
	// What is outstanding is bounded by the pipeline, which alone knows of events
	// before the client does; the client's own flow control would come too late to
	// tell Record.
	settings := &owned.publisher.PublishSettings
	settings.DelayThreshold = publishDelay
	settings.CountThreshold = publishEvents
	settings.ByteThreshold = publishBytes
	settings.Timeout = cfg.RetryFor
	owned.boundRetries()
	return owned, nil
}

// boundRetries keeps the client's choice of what is tried again, adds what passes
// too, shortens the pauses, and ends when the client is closed.
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

// passes reports whether a refusal usually passes: the topic is created, or the
// permission granted, after the service has started, or a token is renewed.
func passes(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	return false
}

// close ends the client. With anything unsettled it does not wait for the
// client's goroutines: they end within maxRetryPause.
func (c *client) close(settled bool) (err error) {
	c.once.Do(func() {
		c.closing.Store(true)
		if settled {
			c.publisher.Stop()
			err = c.client.Close()
			return
		}
		// Calls under way end with the connection.
		err = c.client.Close()
		go c.publisher.Stop()
	})
	return err
}
