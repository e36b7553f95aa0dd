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

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

const (
	defaultMaxReplays = 3
	defaultStopAfter  = 10
)

func (root commands) replayCommand() *cli.Command {
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
			r, err := newReplay(c)
			if err != nil {
				return err
			}
			return root.changeQueue(ctx, c, r.begin, func(*session) error { return r.run(ctx) })
		},
	}
}

// newReplay returns the replay that the flags ask for, without a session.
func newReplay(c *cli.Command) (*replay, error) {
	if err := command.NoArguments(c); err != nil {
		return nil, err
	}
	if c.IsSet("canary-wait") && c.Int("canary") == 0 {
		return nil, command.Usagef("--canary-wait: expected --canary N with it")
	}
	if err := unused(c.String("backup")); err != nil {
		return nil, err
	}
	r := &replay{
		publisher:  publisher{id: newReplayID(), maxReplays: c.Int("max-replays"), rate: c.Int("rate")},
		backupPath: c.String("backup"), dry: c.Bool("dry-run"), unchecked: c.Bool("no-check"),
		stopAfter: c.Int("stop-after"), canaries: c.Int("canary"), canaryWait: c.Duration("canary-wait"),
	}
	if c.IsSet("jq") {
		var err error
		r.expression = c.String("jq")
		if r.publisher.fix, err = dlq.CompileFix(r.expression); err != nil {
			return nil, command.Usagef("--jq: expected a jq expression: %w", err)
		}
	}
	return r, nil
}

// replay has the flags of a replay and its state.
type replay struct {
	session    *session
	publisher  publisher
	expression string // of the fix; empty without one
	dry        bool   // nothing is changed
	canaries   int    // how many are replayed first
	canaryWait time.Duration
	backupPath string // empty without a backup
	unchecked  bool
	surveyed   bool
	watch      watch
	replayed   dlq.Replayed
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

// begin binds the replay to its session, and describes the change.
func (r *replay) begin(d *session) change {
	r.session = d
	r.watch.say, r.publisher.say = d.console.say, d.console.say
	if !r.unchecked {
		r.publisher.check = checkOf(d.cfg)
	}
	return change{
		action: "replay", done: "replayed", where: " to " + d.cfg.TopicName() + r.first(), quiet: r.dry, dryRun: r.dry,
		audit: []any{"topic", d.cfg.TopicName(), "replay_id", r.publisher.id, "jq", r.expression, "checked", !r.unchecked, "canaries", r.canaries, "backup", r.backupPath},
	}
}

// late notes a message that came after the start, if it is an event of this replay.
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

// first returns the part of the question about canaries.
func (r *replay) first() string {
	if r.canaries == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of them %v before the rest", r.canaries, r.canaryWait)
}

func (r *replay) run(ctx context.Context) (err error) {
	d := r.session
	if r.backupPath != "" && !r.dry {
		file, err := create(r.backupPath)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		r.publisher.backup = newBackup(file)
	}
	return r.publisher.connected(ctx, d, func() error {
		work := r.replayAll
		switch {
		case r.dry:
			work = r.dryRun
		case r.canaries > 0:
			work = r.replayAfterCanaries
		}
		run := func() error { return d.run(ctx, func(n *counts) error { return work(ctx, n) }) }
		if r.dry && d.reveal {
			d.console.makePrivate(d.env.Stderr)
			return d.audit.reading(ctx, "replay --dry-run --reveal", d.filter, run, "jq", r.expression)
		}
		return run()
	})
}

// replayer returns the publisher's replayer, and notes each message that it has replayed.
func (r *replay) replayer(sink dlq.Sink, report func(*dlq.Stored, error)) *dlq.Replayer {
	replayer := r.publisher.replayer(sink, report)
	replayer.OnReplayed = func(s *dlq.Stored, m *pubsubpb.PubsubMessage) {
		r.watch.kinds.Add(s)
		r.replayed.Add(m)
		r.session.audit.touched.add(s.ID)
	}
	return replayer
}

// survey counts the messages, unless that was done for the question, and compares the
// services lists. It needs a reading of its own, because only the whole queue tells
// which rejection is the newest. nothing reports that no message matches. A slow replay
// needs the count for its remaining time.
func (r *replay) survey(ctx context.Context, n *counts) (nothing bool, err error) {
	d := r.session
	if r.surveyed {
		return false, nil
	}
	r.surveyed = true
	if !d.selected.counted && (!r.unchecked || r.publisher.rate > 0 && d.console.watched()) {
		counted, err := d.countQuickly(ctx, d.filter) // a missed message matters little here
		n.matched, n.left = counted.matched, counted.left
		if err != nil || n.matched == 0 {
			return true, err
		}
	}
	if r.unchecked {
		return false, nil
	}
	return false, d.services.compare(d.selected.reasons, d.selected.running)
}

// replayAll replays all selected messages.
func (r *replay) replayAll(ctx context.Context, n *counts) error {
	d := r.session
	if nothing, err := r.survey(ctx, n); err != nil || nothing {
		return err
	}
	total := -1.0
	if d.selected.expected > 0 {
		total = float64(d.selected.expected)
	}
	return d.queue.pass(ctx, d.filter, n, func(w *dlq.Walk) error {
		d.console.showBar("replaying", total, "events")
		// The bar counts every message that is read, because a filter may match none for long.
		read := 0
		w.OnProgress = func(n int) {
			read += n
			d.console.describe("replaying; " + command.Plural(read, "message") + " read")
		}
		w.OnLate = r.late
		w.Ours = r.replayed.Returned
		report := d.skipped.add
		replayer := r.replayer(r.publisher.sink(w), func(s *dlq.Stored, why error) {
			report(s, why)
			d.console.advance(1)
		})
		kind := replayer.OnReplayed
		replayer.OnReplayed = func(s *dlq.Stored, m *pubsubpb.PubsubMessage) {
			kind(s, m)
			d.console.advance(1)
		}
		err := w.Each(ctx, func(s *dlq.Stored) error {
			if err := r.stop(); err != nil {
				return err
			}
			return r.publisher.add(ctx, replayer, s)
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
	d := r.session
	return d.queue.pass(ctx, d.filter, n, func(w *dlq.Walk) error {
		dry := &dryRun{changes: fieldChangesOf(d, d.env.Stderr), expression: r.expression}
		replayer := r.replayer(dry, d.skipped.add)
		replayer.Rate, replayer.OnFixed = 0, dry.add
		reasons := map[event.Reason]int{}
		err := w.Each(ctx, func(s *dlq.Stored) error {
			dry.groups.Add(s)
			reasons[s.Reason]++
			return replayer.Add(ctx, s)
		}, func() error { return replayer.Flush(ctx) })
		if err == nil && !r.unchecked {
			err = d.services.compare(reasons, w.Newest)
		}
		n.done, n.failed = replayer.Counts()
		n.skipped = replayer.Skipped
		if err == nil {
			dry.print(n.done, n.failed, n.skipped)
		}
		return err
	})
}
