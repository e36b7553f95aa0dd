package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/dlqcmd"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/devstack"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/sample"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// localQueue serves the pages of the dead-letter queue of `worker local`.
type localQueue struct {
	pages   *dlqcmd.Pages
	address string // admits one browser
	plans   string // folder
	stop    context.CancelFunc
	served  chan error
}

// localQueueOptions have shorter waits than the defaults, because Pub/Sub is on this
// machine.
var localQueueOptions = dlqcmd.Options{
	Queue:      dlq.QueueOptions{WaitingPull: 300 * time.Millisecond},
	CanaryLook: 2 * time.Second, LookAgain: 2 * time.Second, ReceiptsLook: 500 * time.Millisecond,
}

// localQueue serves the pages of the queue until close. Their plans are in a temporary
// folder. It first puts rejected samples into the queue, unless the queue is on an emulator,
// which may have data of its own.
func (env environment) localQueue(ctx context.Context, stack *devstack.Stack, cfg *config.Config, opts localOptions) (*localQueue, error) {
	if opts.emulatorHost == "" && opts.events > 0 {
		if err := publishRejects(ctx, stack, cfg); err != nil {
			return nil, err
		}
	}
	plans, err := os.MkdirTemp("", "worker-local-plans-")
	if err != nil {
		return nil, err
	}
	e := env.Env
	e.Vars, e.Stdout, e.Stderr = env.localVariables(stack, opts), io.Discard, io.Discard
	pages, err := dlqcmd.NewPages(ctx, e, localQueueOptions, plans)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(plans))
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	q := &localQueue{pages: pages, address: pages.Address(), plans: plans, stop: stop, served: make(chan error, 1)}
	go func() { q.served <- pages.Serve(serving) }()
	return q, nil
}

// close ends the pages, and removes their plans.
func (q *localQueue) close() error {
	q.stop()
	return errors.Join(<-q.served, os.RemoveAll(q.plans))
}

// firstSampleID is the message id of the first rejected sample, in Pub/Sub's form.
const firstSampleID = 7_000_000_000_000

// publishRejects publishes rejected samples to the dead-letter queue, so that its pages have
// faults to show.
func publishRejects(ctx context.Context, stack *devstack.Stack, cfg *config.Config) error {
	rejects, err := sample.Rejects()
	if err != nil {
		return err
	}
	decoder, now := event.NewDecoder(cfg.Services, cfg.Environment), time.Now()
	var messages []*dlq.DeadLetter
	for i, r := range rejects {
		m := event.Message{ID: strconv.Itoa(firstSampleID + i), PublishTime: now.Add(-r.Ago), Data: r.Data, Attributes: r.Attributes}
		_, rejection := decoder.Decode(m)
		if rejection == nil {
			continue // another services list allows it
		}
		messages = append(messages, &dlq.DeadLetter{
			MessageID: m.ID, PublishTime: m.PublishTime, Data: m.Data, Attributes: m.Attributes, Rejection: *rejection, RejectedAt: m.PublishTime.Add(time.Second),
		})
	}
	writer := dlq.NewWriter(deadLetterTopic{stack}, dlq.Origin{
		Subscription: devstack.Subscription, WorkerVersion: version().Version, ServicesDigest: cfg.Services.Digest(),
	})
	return errors.Join(writer.Write(ctx, messages)...)
}

// deadLetterTopic is the dead-letter topic of `worker local`.
type deadLetterTopic struct{ stack *devstack.Stack }

func (t deadLetterTopic) Publish(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
	return t.stack.DeadLetter(messages...)
}
