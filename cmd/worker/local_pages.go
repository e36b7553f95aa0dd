package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/livepage"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/devstack"
)

// localPages are the pages of `worker local --keep-running`: the events as they arrive, and
// the dead-letter queue.
type localPages struct {
	live   *livepage.Server
	queue  *localQueue
	sample string // the command that publishes a sample event
}

// startLocalPages serves the pages until close. The live page shows the events of feed.
func (env environment) startLocalPages(ctx context.Context, stack *devstack.Stack, cfg *config.Config, opts localOptions, feed *livepage.Feed) (*localPages, error) {
	queue, err := env.localQueue(ctx, stack, cfg, opts)
	if err != nil {
		return nil, err
	}
	sample := sampleCommand(cfg.Services, cfg.ServicesYAML != "" || cfg.ServicesFile != "")
	live, err := livepage.Start(ctx, livepage.Options{Feed: feed, Publisher: stack.PublisherEnviron(), Sample: sample, Queue: queue.address})
	if err != nil {
		return nil, errors.Join(err, queue.close())
	}
	queue.pages.Link("live events", live.URL())
	return &localPages{live: live, queue: queue, sample: sample}, nil
}

func (p *localPages) close() error { return errors.Join(p.live.Close(), p.queue.close()) }

// welcome says how to use what keeps running.
func (env environment) welcome(stack *devstack.Stack, pages *localPages, endpoints string, total int) {
	fmt.Fprintf(env.Stdout, "Relaying %d sample events; after that, everything that is published here.\n\n", total)
	fmt.Fprintf(env.Stdout, "Point a service at it, or publish by hand from another terminal:\n\n")
	for _, v := range stack.PublisherEnviron() {
		fmt.Fprintf(env.Stdout, "   export %s\n", v)
	}
	fmt.Fprintf(env.Stdout, "   %s\n\n", pages.sample)
	fmt.Fprintf(env.Stdout, "WORKER_SERVICES or WORKER_SERVICES_FILE lists your service.\n")
	fmt.Fprintf(env.Stdout, "What becomes of each event is shown here, and at %s\n", pages.live.URL())
	fmt.Fprintf(env.Stdout, "Rejected events, to look at, to fix and to replay, are at %s\n", pages.queue.address)
	fmt.Fprintf(env.Stdout, "Metrics: http://%s/metrics. Stop with Ctrl-C.\n\n", endpoints)
}
