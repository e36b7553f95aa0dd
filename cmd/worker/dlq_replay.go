package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

const defaultMaxReplays = 3

func (env environment) dlqReplayCommand() *cli.Command {
	number := func(name string, value, least int, usage string) cli.Flag {
		return &cli.IntFlag{Name: name, Value: value, Usage: usage, Validator: func(n int) error {
			if n < least {
				return fmt.Errorf("expected at least %d, got %d", least, n)
			}
			return nil
		}}
	}
	return &cli.Command{
		Name:  "replay",
		Usage: "publish dead letters again, mended or as they are",
		Description: "Publishes the original messages to PUBSUB_TOPIC, and removes each from the queue when\n" +
			"that is confirmed. Only what is in the queue at the start is replayed. Each event is\n" +
			"checked first as the worker will; one that it would reject stays, and the exit status\n" +
			"is 1. Set ENVIRONMENT_ID and WORKER_SERVICES as the worker has them.\n\n" +
			"Examples:\n\n" +
			"   worker dlq replay --reason gateway_rejected --dry-run\n" +
			"   worker dlq replay --service sams --jq 'del(.typo)' --rate 100 --yes",
		DisableSliceFlagSeparator: true,
		Flags: append(filterFlags(), formatFlag("table", "json", "ndjson"), yesFlag(), revealFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "change nothing; say what would be done, with samples"},
			number("rate", 0, 0, "at most `N` events a second; 0 means as fast as possible"),
			number("max-replays", defaultMaxReplays, 0, "leave events that were replayed `N` times before"),
			&cli.StringFlag{Name: "jq", Usage: "mend the data with the jq `EXPR`, which must yield one object"},
			&cli.BoolFlag{Name: "no-check", Usage: "also replay what the worker would reject"}),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			var mender *dlq.Mender
			if c.IsSet("jq") {
				var err error
				if mender, err = dlq.NewMender(c.String("jq")); err != nil {
					return usagef("--jq: expected a jq expression: %w", err)
				}
			}
			dryRun := c.Bool("dry-run")
			if !dryRun {
				if err := env.canAsk(c); err != nil {
					return err
				}
			}
			d, err := env.openDesk(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			client, err := topic.NewClient(ctx, d.cfg.TopicName(), app.PubSubOptions(d.cfg)...)
			if err != nil {
				return err
			}
			defer client.Close() //nolint:errcheck // Everything is confirmed by then.
			ch := change{
				action: "replay", done: "replayed", plan: "published to " + d.cfg.TopicName() + ", and removed from the queue",
				quiet: dryRun, dryRun: dryRun, format: c.String("output"),
			}
			if ok, err := d.agree(ctx, c.Bool("yes"), ch); !ok {
				return err
			}
			r := &dlq.Replayer{Mender: mender, MaxReplays: c.Int("max-replays"), Rate: c.Int("rate"), Report: d.report()}
			if !c.Bool("no-check") {
				decoder := event.NewDecoder(d.cfg.Services, d.cfg.Environment)
				r.Check = func(m event.Message) *event.Rejection {
					_, rejection := decoder.Decode(m)
					return rejection
				}
			}
			trial := &rehearsal{env: env, reveal: c.Bool("reveal")}
			err = d.run(ctx, ch, func(w *dlq.Walk, n *counts) error {
				r.Exit = &stage{desk: d, topic: client, queue: w.Queue}
				if dryRun {
					r.Exit, r.Rate = trial, 0
				}
				err := w.Each(ctx, func(s *dlq.Stored) error {
					trial.groups.Add(s)
					return r.Letter(ctx, s)
				}, func() error { return r.Flush(ctx) })
				n.done, n.failed = r.Counts()
				if dryRun && err == nil {
					trial.print(n.done, n.failed, r.Spared)
				}
				return err
			})
			if refused, ok := errors.AsType[*dlq.PublishError](err); ok && ctx.Err() == nil {
				return fmt.Errorf("publish to %s (PUBSUB_TOPIC): %w; what was not confirmed is back in the queue", d.cfg.TopicName(), refused.Err)
			}
			return err
		},
	}
}

// stage is where a replay is for real.
type stage struct {
	desk  *desk
	topic topic.Publisher
	queue *dlq.Queue
}

func (s *stage) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	return topic.PublishPatiently(ctx, s.topic, messages, publishPatience, func(err error) {
		fmt.Fprintf(s.desk.env.stderr, "worker: Pub/Sub does not take events; trying again: %v\n", err)
	})
}

func (s *stage) Remove(ctx context.Context, messageIDs []string) error {
	return s.queue.Remove(ctx, messageIDs)
}

// rehearsal is a replay's exit that leads nowhere.
type rehearsal struct {
	env    environment
	reveal bool
	groups dlq.Stats
	sample atomic.Pointer[pubsubpb.PubsubMessage] // of any request
}

func (r *rehearsal) Publish(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
	r.sample.CompareAndSwap(nil, messages[0])
	return nil
}

func (r *rehearsal) Remove(context.Context, []string) error { return nil }

// print says what would have been done. The result itself goes to stdout.
func (r *rehearsal) print(would, fail, spared int) {
	w := r.env.stderr
	for _, g := range r.groups.Groups() {
		fmt.Fprintf(w, "%7d  %s  %s  %s  %s\n", g.Count, cell(g.Reason), cell(g.Service), eventName(g.Feature, g.Action), cell(g.Detail))
	}
	if m := r.sample.Load(); m != nil {
		fmt.Fprintf(w, "One of them would be published as:\n%s\n", dlq.Show(m.GetData(), r.reveal))
	}
	fmt.Fprintf(w, "A dry run at %s: %d would be replayed, %d would fail, %d were replayed too often before. Nothing was changed.\n",
		time.Now().UTC().Format(time.RFC3339), would, fail, spared)
}
