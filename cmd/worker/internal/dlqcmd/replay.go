package dlqcmd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

const (
	defaultMaxReplays = 3
	defaultStopAfter  = 10
	// lookEvery is how many seconds a slow replay publishes before it reads on.
	lookEvery = 5
)

func (env commands) replaycommand() *cli.Command {
	return &cli.Command{
		Name:  "replay",
		Usage: "publish dead-lettered messages again, fixed or as they are",
		Description: "Publishes the original messages to PUBSUB_TOPIC, and removes each from the queue when\n" +
			"that is confirmed. Only messages that are in the queue at the start are replayed; later\n" +
			"ones are reported and stay. Each event is first checked as the worker checks it; one that\n" +
			"it would reject stays, and the exit status is 1. One that was replayed --max-replays times\n" +
			"stays, too, and counts as neither replayed nor failed. Set ENVIRONMENT_ID and WORKER_SERVICES\n" +
			"as the worker has them.\n\n" +
			"With --canary N some go ahead, and all others are back in the queue for --canary-wait.\n" +
			"The rest follows as soon as receipts say that all N were recorded (RECEIPTS_SUBSCRIPTION).\n" +
			"Without receipts it follows if none of the N was seen again in the queue by then, which\n" +
			"does not prove that they arrived; else the exit status is 1.\n\n" +
			"A replay with several fixes, one that can be interrupted and go on, and one that is\n" +
			"followed to the end is a plan: see plan, apply and status.\n\n" +
			"A dry run's exit status is 0, also if some would fail.\n\n" +
			"Examples:\n\n" +
			"   worker dlq replay --reason gateway_rejected --dry-run\n" +
			"   worker dlq replay --reason gateway_rejected --canary 5\n" +
			"   worker dlq replay --service sams --jq 'del(.typo)' --rate 100 --yes",
		DisableSliceFlagSeparator: true,
		Flags: changeFlags(revealFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "change nothing; say what a replay would do, with a sample"},
			countFlag("rate", 0, "at most `N` events a second; 0 means as fast as possible"),
			countFlag("max-replays", defaultMaxReplays, "skip events that were replayed `N` times before"),
			&cli.StringFlag{Name: "jq", Usage: "fix the data with the jq `EXPR`, which must yield one object"},
			countFlag("stop-after", defaultStopAfter, "stop when `N` events of this replay were rejected again; 0 means never"),
			&cli.BoolFlag{Name: "services-anyway", Usage: "check also with another services list than the running worker has"},
			&cli.BoolFlag{Name: "no-check", Usage: "also replay events that the worker would reject"},
			countFlag("canary", 0, "replay `N` events, wait, and go on only if none of them is rejected again"),
			canaryWaitFlag(),
			&cli.StringFlag{Name: "backup", Usage: "write the replayed messages to `FILE`, which must not exist, as they were before"}),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			if c.IsSet("canary-wait") && c.Int("canary") == 0 {
				return command.Usagef("--canary-wait: expected --canary N with it")
			}
			if err := unused(c.String("backup")); err != nil {
				return err
			}
			r := replay{
				backupPath: c.String("backup"),
				maxReplays: c.Int("max-replays"), rate: c.Int("rate"), unchecked: c.Bool("no-check"),
				stopAfter: c.Int("stop-after"), id: newReplayID(),
				canaries: c.Int("canary"), canaryWait: c.Duration("canary-wait"),
			}
			if c.IsSet("jq") {
				var err error
				r.expression = c.String("jq")
				if r.fix, err = dlq.CompileFix(r.expression); err != nil {
					return command.Usagef("--jq: expected a jq expression: %w", err)
				}
			}
			return env.changeQueue(ctx, c, func(d *session) change {
				dry := c.Bool("dry-run")
				return change{
					action: "replay", done: "replayed", where: " to " + d.cfg.TopicName() + r.first(), quiet: dry, dryRun: dry,
					audit: []any{"topic", d.cfg.TopicName(), "replay_id", r.id, "jq", r.expression, "checked", !r.unchecked, "canaries", r.canaries, "backup", r.backupPath},
				}
			}, func(d *session) error {
				r.session = d
				return r.run(ctx)
			})
		},
	}
}

func canaryWaitFlag() cli.Flag {
	return &cli.DurationFlag{Name: "canary-wait", Value: defaultCanaryWait, Usage: "the `TIME` that --canary waits, such as 20m: longer than a job's interval", Validator: func(d time.Duration) error {
		if d <= 0 {
			return fmt.Errorf("expected a duration such as 20m, got %v", d)
		}
		return nil
	}}
}

// replay has the flags of a replay and its state.
type replay struct {
	*session
	topic            topic.Publisher
	bounds           *retry.Bounds // of requests to the topic
	fix              *dlq.Fix
	expression       string // of the fix; empty without one
	maxReplays, rate int
	canaries         int // how many are replayed first
	canaryWait       time.Duration
	unchecked        bool
	surveyed         bool
	watch            watch
	replayed         dlq.Replayed
	id               string // of the operation: each replayed message has it
	// backup keeps the replayed messages as they were, in the file backupPath; nil keeps
	// none.
	backup     *backup
	backupPath string
	// verdicts are those of the receipts that were read, by origin.
	verdicts map[string]plan.Verdict
	// stopAfter is how many events of the replay may be rejected again; rejectedAgain are
	// their message ids in the queue.
	stopAfter     int
	rejectedAgain map[string]struct{}
}

// newReplayID returns an id that sorts by time.
func newReplayID() string {
	return time.Now().UTC().Format("20060102T150405Z") + "-" + strings.ToLower(rand.Text()[:6])
}

// late sees a message that came after the start.
func (r *replay) late(s *dlq.Stored) {
	r.watch.add(s)
	if r.replayed.Returned(s) && len(r.rejectedAgain) < maxWatched {
		if r.rejectedAgain == nil {
			r.rejectedAgain = map[string]struct{}{}
		}
		r.rejectedAgain[s.ID] = struct{}{}
	}
}

// stop returns an error when too many events of the replay were rejected again.
func (r *replay) stop() error {
	if r.stopAfter == 0 || len(r.rejectedAgain) < r.stopAfter {
		return nil
	}
	return fmt.Errorf("stopped: %s of this replay were rejected again (--stop-after %d); every event that was not replayed is in the queue", command.Plural(len(r.rejectedAgain), "event"), r.stopAfter)
}

// first is the part of the question about canaries.
func (r *replay) first() string {
	if r.canaries == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of them %v before the rest", r.canaries, r.canaryWait)
}

func (r *replay) run(ctx context.Context) (err error) {
	if r.backupPath != "" && !r.change.dryRun {
		file, err := create(r.backupPath)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		r.backup = newBackup(file)
	}
	return r.publishing(ctx, func() error {
		work := r.replayAll
		switch {
		case r.change.dryRun:
			work = r.dryRun
		case r.canaries > 0:
			work = r.replayAfterCanaries
		}
		run := func() error { return r.session.run(ctx, func(n *counts) error { return work(ctx, n) }) }
		if r.change.dryRun && r.reveal {
			r.makePrivate(r.env.Stderr)
			return r.reading(ctx, "replay --dry-run --reveal", run, "jq", r.expression)
		}
		return run()
	})
}

// publishing calls work with a connection to the topic, and adds the remedy to an error
// of the topic.
func (r *replay) publishing(ctx context.Context, work func() error) error {
	client, err := topic.NewClient(ctx, r.cfg.TopicName(), app.PubSubOptions(r.cfg)...)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // Everything is confirmed by then.
	r.topic, r.bounds, r.watch.say = client, command.PublishBounds(r.env.opts.RefusalPatience), r.say
	if r.rate > 0 {
		// Between the parts the replay sees which events are rejected meanwhile.
		r.maxMessages = min(1000, max(1, lookEvery*r.rate))
	}
	err = work()
	if refused, ok := errors.AsType[*dlq.PublishError](err); ok && ctx.Err() == nil {
		return fmt.Errorf("publish to %s (PUBSUB_TOPIC): %w%s; every event that was not confirmed is back in the queue", r.cfg.TopicName(), refused.Err, publisherHint(refused.Err))
	}
	return err
}

// publisherHint names the role that an error of a topic shows to be missing.
func publisherHint(err error) string {
	if code := status.Code(err); code == codes.PermissionDenied || code == codes.Unauthenticated {
		return "; expected roles/pubsub.publisher on it"
	}
	return ""
}

// sink publishes to the topic and removes from the queue of a walk.
func (r *replay) sink(w *dlq.Walk) *topicSink {
	return &topicSink{session: r.session, topic: r.topic, bounds: r.bounds, queue: w.Queue}
}

// replayer replays messages to a sink, and calls report for each that it skips.
func (r *replay) replayer(sink dlq.Sink, report func(*dlq.Stored, error)) *dlq.Replayer {
	replayer := &dlq.Replayer{
		Sink: sink, MaxReplays: r.maxReplays, Rate: r.rate, ID: r.id,
		Report: report,
		OnReplayed: func(s *dlq.Stored, m *pubsubpb.PubsubMessage) {
			r.watch.kinds.Add(s)
			r.replayed.Add(m)
			r.touched.add(s.ID)
		},
	}
	if r.backup != nil {
		replayer.Sink = &backupSink{replayer.Sink, r.backup}
		replayer.Report = func(s *dlq.Stored, why error) {
			r.backup.drop(s.ID)
			report(s, why)
		}
	}
	if r.fix != nil {
		replayer.FixOf = func(*dlq.Stored) *dlq.Fix { return r.fix }
	}
	if !r.unchecked {
		replayer.Check = r.check()
	}
	return replayer
}

// keep keeps a message as it is for the backup, if there is one.
func (r *replay) keep(s *dlq.Stored) error {
	if r.backup == nil {
		return nil
	}
	return r.backup.keep(s)
}

// add replays a message, and keeps it as it is for the backup.
func (r *replay) add(ctx context.Context, replayer *dlq.Replayer, s *dlq.Stored) error {
	if err := r.keep(s); err != nil {
		return err
	}
	return replayer.Add(ctx, s)
}

// survey counts the messages, unless that was done for the question, and compares the
// services lists. It needs a reading of its own, because only the whole queue tells
// which rejection is the newest; nothing reports that no message matches. A slow replay needs the count for its remaining time.
func (r *replay) survey(ctx context.Context, n *counts) (nothing bool, err error) {
	if r.surveyed {
		return false, nil
	}
	r.surveyed = true
	if !r.counted && (!r.unchecked || r.rate > 0 && r.watched()) {
		r.quick = true // a missed message matters little here
		counted, _, err := r.count(ctx)
		r.quick = false
		n.matched, n.left = counted.matched, counted.left
		if err != nil || n.matched == 0 {
			return true, err
		}
	}
	if r.unchecked {
		return false, nil
	}
	return false, r.checkServices(r.reasons, r.running)
}

// replayAll replays all selected messages.
func (r *replay) replayAll(ctx context.Context, n *counts) error {
	if nothing, err := r.survey(ctx, n); err != nil || nothing {
		return err
	}
	total := -1.0
	if r.expected > 0 {
		total = float64(r.expected)
	}
	return r.pass(ctx, n, func(w *dlq.Walk) error {
		r.showBar("replaying", total, "events")
		// A filter may match nothing for long; the bar moves on all the same.
		read := 0
		w.OnProgress = func(n int) {
			read += n
			r.describe("replaying; " + command.Plural(read, "message") + " read")
		}
		w.OnLate = r.late
		w.Ours = r.replayed.Returned
		report := r.skipped.add
		replayer := r.replayer(r.sink(w), func(s *dlq.Stored, why error) {
			report(s, why)
			r.advance(1)
		})
		kind := replayer.OnReplayed
		replayer.OnReplayed = func(s *dlq.Stored, m *pubsubpb.PubsubMessage) {
			kind(s, m)
			r.advance(1)
		}
		err := w.Each(ctx, func(s *dlq.Stored) error {
			if err := r.stop(); err != nil {
				return err
			}
			return r.add(ctx, replayer, s)
		}, func() error {
			if err := replayer.Flush(ctx); err != nil {
				return err
			}
			return r.stop()
		})
		if err == nil {
			err = r.stop() // the last pulls may have brought some
		}
		n.done, n.failed = replayer.Counts()
		n.skipped = replayer.Skipped
		r.watch.report()
		return err
	})
}

// dryRun says what a replay would do.
func (r *replay) dryRun(ctx context.Context, n *counts) error {
	return r.pass(ctx, n, func(w *dlq.Walk) error {
		dry := &dryRun{fieldChanges: fieldChanges{styler: r.env.styler(r.env.Stderr), out: r.env.Stderr, reveal: r.reveal}, expression: r.expression}
		replayer := r.replayer(dry, r.skipped.add)
		replayer.Rate, replayer.OnFixed = 0, dry.add
		reasons := map[event.Reason]int{}
		err := w.Each(ctx, func(s *dlq.Stored) error {
			dry.groups.Add(s)
			reasons[s.Reason]++
			return replayer.Add(ctx, s)
		}, func() error { return replayer.Flush(ctx) })
		if err == nil && !r.unchecked {
			err = r.checkServices(reasons, w.Newest)
		}
		n.done, n.failed = replayer.Counts()
		n.skipped = replayer.Skipped
		if err == nil {
			dry.print(n.done, n.failed, n.skipped)
		}
		return err
	})
}

// backupSink writes messages to the backup before the queue forgets them.
type backupSink struct {
	dlq.Sink
	backup *backup
}

func (s *backupSink) Remove(ctx context.Context, messageIDs []string) error {
	if err := s.backup.write(messageIDs); err != nil {
		return err
	}
	return s.Sink.Remove(ctx, messageIDs)
}

// topicSink publishes to the topic and removes from the queue.
type topicSink struct {
	session *session
	topic   topic.Publisher
	bounds  *retry.Bounds
	queue   *dlq.Queue
}

func (s *topicSink) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	return topic.PublishPatiently(ctx, s.topic, messages, s.bounds, command.SayRetrying(s.session.say))
}

func (s *topicSink) Remove(ctx context.Context, messageIDs []string) error {
	return s.queue.Remove(ctx, messageIDs)
}
