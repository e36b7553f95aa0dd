package dlqcmd

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/api/option"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/backlog"
)

// errEmulator is why an emulator's queue has no known size.
var errEmulator = errors.New("an emulator has no Cloud Monitoring")

// compareWithBacklog compares the last walk with the number of messages that Cloud
// Monitoring has counted, and says when the walk has seen fewer: a reader gets only the
// messages that nobody else has leased, and Pub/Sub does not say how many the others are.
// Without a count to compare with, the number of messages read is a lower bound.
func (d *session) compareWithBacklog(ctx context.Context) {
	if d.viewed || !d.complete { // if it is not, a sentence has said so
		return
	}
	counted, err := d.backlog(ctx)
	switch {
	case err != nil:
		d.complete = false
		d.say("worker: whether somebody else has leased more messages is not known: %v", err)
	case counted.Messages > d.read:
		d.complete = false
		d.say("worker: Cloud Monitoring counted %s messages in the queue at %s, and %s came: somebody else has leased the rest, or removed it since",
			command.Comma(counted.Messages), shortTime(counted.At), command.Comma(d.read))
	}
}

// monitoring returns the options of a client for Cloud Monitoring.
func (d *session) monitoring() ([]option.ClientOption, error) {
	switch {
	case d.env.opts.MonitoringEndpoint != "":
		return []option.ClientOption{option.WithEndpoint(d.env.opts.MonitoringEndpoint), option.WithoutAuthentication()}, nil
	case d.cfg.EmulatorHost != "":
		return nil, errEmulator
	}
	return nil, nil
}

// backlog asks how many messages the queue has.
func (d *session) backlog(ctx context.Context) (backlog.Count, error) {
	opts, err := d.monitoring()
	if err != nil {
		return backlog.Count{}, err
	}
	counted, err := backlog.Newest(ctx, d.cfg.DeadLetterSubscriptionName(), opts...)
	if err != nil {
		return backlog.Count{}, fmt.Errorf("Cloud Monitoring cannot be asked: %w", err) //nolint:staticcheck // a name
	}
	return counted, nil
}
