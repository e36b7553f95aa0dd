package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/api/option"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/backlog"
)

// monitoring asks Cloud Monitoring about subscriptions.
type monitoring struct {
	// endpoint is another Cloud Monitoring, which asks for no credentials; empty: Google's.
	endpoint string
	emulated bool // an emulator has no Cloud Monitoring
}

// errEmulator says why the size of an emulator's queue is not known.
var errEmulator = errors.New("an emulator has no Cloud Monitoring")

// options returns the options of a client.
func (m monitoring) options() ([]option.ClientOption, error) {
	switch {
	case m.endpoint != "":
		return []option.ClientOption{option.WithEndpoint(m.endpoint), option.WithoutAuthentication()}, nil
	case m.emulated:
		return nil, errEmulator
	}
	return nil, nil
}

// messages asks how many messages a subscription has.
func (m monitoring) messages(ctx context.Context, subscription string) (backlog.Count, error) {
	opts, err := m.options()
	if err != nil {
		return backlog.Count{}, err
	}
	counted, err := backlog.Newest(ctx, subscription, opts...)
	if err != nil {
		return backlog.Count{}, fmt.Errorf("Cloud Monitoring cannot be asked: %w", err) //nolint:staticcheck // a name
	}
	return counted, nil
}

// oldestAge asks for how long the oldest message of a subscription has waited.
func (m monitoring) oldestAge(ctx context.Context, subscription string) (time.Duration, error) {
	opts, err := m.options()
	if err != nil {
		return 0, err
	}
	return backlog.OldestAge(ctx, subscription, opts...)
}

// counter counts the messages of a subscription without reading them.
type counter interface {
	messages(ctx context.Context, subscription string) (backlog.Count, error)
}

// compareWith compares the last walk with the count of Cloud Monitoring, and says when the
// walk has seen fewer messages. A reader does not get the messages that another reader has
// leased, and Pub/Sub does not say how many they are. Without a count to compare with, the
// number of messages read is a lower bound.
func (q *queueReader) compareWith(ctx context.Context, c counter) {
	if q.viewed || !q.complete { // walk has said why it is not
		return
	}
	counted, err := c.messages(ctx, q.cfg.DeadLetterSubscriptionName())
	switch {
	case err != nil:
		q.complete = false
		q.console.say("worker: whether another process has leased more messages is not known: %v", err)
	case counted.Messages > q.read:
		q.complete = false
		q.console.say("worker: Cloud Monitoring counted %s messages in the queue at %s, and %s came: another process has leased the rest, or removed it since",
			command.Comma(counted.Messages), shortTime(counted.At), command.Comma(q.read))
	}
}
