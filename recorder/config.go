package recorder

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
)

// Config says who records events, where they go, and what happens if Pub/Sub is
// unavailable. Service and one of Topic and Publisher are required.
type Config struct {
	// Service is the service that records.
	Service Service

	// Topic is the full name of the relay's topic: projects/PROJECT/topics/TOPIC.
	// The recorder makes a client of its own for it, which honours
	// PUBSUB_EMULATOR_HOST.
	Topic string
	// ClientOptions are options of that client, such as credentials.
	ClientOptions []option.ClientOption
	// Publisher is used instead of Topic. It stays the caller's: its settings apply, and
	// Close does not stop it.
	Publisher *pubsub.Publisher

	// BufferEvents and BufferBytes bound the events in memory that Pub/Sub has not
	// confirmed. Default: 10,000 events and 32 MiB of their data.
	BufferEvents int
	BufferBytes  int64
	// BlockFor is how long Record waits for space in a full buffer, at most. The default,
	// 0, drops the new event at once.
	BlockFor time.Duration
	// RetryFor is how long an event is retried while Pub/Sub is unavailable, or refuses
	// with NotFound, PermissionDenied or Unauthenticated, which usually pass. After that it
	// counts as failed. Default: 10 minutes. A Publisher has its own settings.
	RetryFor time.Duration

	// Process, if set, sees each event before it is checked and sent, and may change it: to
	// add values that only it knows, or to remove values that must not leave the service.
	// It is called in the goroutine that records. An event during which it panics is not
	// recorded.
	Process func(ctx context.Context, e *Event)

	// Logger logs events that are invalid, dropped or failed: each kind at once when it
	// begins, then at most once a minute. It also logs events that wait for Pub/Sub, after
	// 30 s and then once a minute. Default: slog.Default(). Use
	// slog.New(slog.DiscardHandler) for no log.
	Logger *slog.Logger
	// Registerer was a prometheus.Registerer.
	//
	// Deprecated: call recorderprom.Register(registerer, rec) after New, so that a
	// service without Prometheus does not import it.
	Registerer UseRecorderpromRegister
}

// UseRecorderpromRegister is implemented by no type. Its name is in the compiler's message
// where Config.Registerer is still set.
type UseRecorderpromRegister interface{ useRecorderpromRegister() }

const (
	defaultBufferEvents = 10_000
	defaultBufferBytes  = 32 << 20
	defaultRetryFor     = 10 * time.Minute
)

// complete fills in the defaults. The error lists all faults.
func (c Config) complete() (Config, error) {
	var errs []error
	fault := func(text string) { errs = append(errs, errors.New("recorder: "+text)) }
	switch {
	case c.Publisher != nil && c.Topic != "":
		fault("Config: expected one of Topic and Publisher, got both")
	case c.Publisher == nil && c.Topic == "":
		fault("Config: expected a Topic or a Publisher")
	case c.Publisher == nil && topicProject(c.Topic) == "":
		fault("Config.Topic: expected projects/PROJECT/topics/TOPIC, got " + c.Topic)
	}
	if c.BufferEvents < 0 || c.BufferBytes < 0 || c.BlockFor < 0 || c.RetryFor < 0 {
		fault("Config: BufferEvents, BufferBytes, BlockFor and RetryFor must not be negative")
	}
	if c.BufferEvents == 0 {
		c.BufferEvents = defaultBufferEvents
	}
	if c.BufferBytes == 0 {
		c.BufferBytes = defaultBufferBytes
	}
	if c.RetryFor == 0 {
		c.RetryFor = defaultRetryFor
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, errors.Join(errs...)
}

// topicProject returns the project of a topic's full name, or "" if it is not one.
func topicProject(name string) string {
	parts := strings.Split(name, "/")
	if len(parts) != 4 || parts[0] != "projects" || parts[2] != "topics" || parts[3] == "" {
		return ""
	}
	return parts[1]
}
