package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// Options are how long the commands wait. Zero values are the defaults; tests set
// shorter times.
type Options struct {
	Queue dlq.QueueOptions
	// RefusalPatience is how long the topic may refuse the first events: 15 s.
	RefusalPatience time.Duration
	// CanaryLook is how long a canary waits before it looks through the queue, so
	// that a rejection is seen before the wait is over: 5 min.
	CanaryLook time.Duration
	// LookAgain is how long a canary waits for messages that somebody else has
	// leased, because a canary may be among them: 30 s.
	LookAgain time.Duration
}

func (o Options) withDefaults() Options {
	if o.CanaryLook == 0 {
		o.CanaryLook = 5 * time.Minute
	}
	if o.LookAgain == 0 {
		o.LookAgain = 30 * time.Second
	}
	return o
}

// commands are the commands below `worker dlq`.
type commands struct {
	command.Env
	opts Options
}

// New returns the command `worker dlq`.
func New(e command.Env, opts Options) *cli.Command {
	env := commands{e, opts.withDefaults()}
	return &cli.Command{
		Name:  "dlq",
		Usage: "the dead-letter queue: see, mend, replay, remove",
		Description: "Reads DLQ_SUBSCRIPTION. What a command does not act on is back in the queue at once.\n" +
			"\"At least N\" (as JSON: left_at_least, count_at_least) says that a command cannot know\n" +
			"whether it saw the whole queue; why is told on stderr.\n\n" +
			"Examples:\n\n" +
			"   worker dlq stats\n" +
			"   worker dlq show 019a0000-0000-7000-8000-000000000001\n" +
			"   worker dlq replay --reason invalid_event --dry-run",
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return command.Usagef("there is no command dlq %q", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
		Commands: []*cli.Command{
			env.statscommand(),
			env.listcommand(),
			env.showcommand(),
			env.exportcommand(),
			env.replaycommand(),
			env.purgecommand(),
		},
	}
}

// filterFlags are the same for all commands.
func filterFlags() []cli.Flag {
	moment := func(name, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Usage: usage, Validator: func(s string) error {
			_, err := dlq.ParseTime(s, time.Now())
			return err
		}}
	}
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "reason", Usage: "only those with the `REASON`, such as invalid_event; may be repeated, as may all that name something"},
		&cli.StringSliceFlag{Name: "service", Usage: "only those of the service `ID`"},
		&cli.StringSliceFlag{Name: "environment", Usage: "only those of the environment `ID`"},
		&cli.StringSliceFlag{Name: "feature", Usage: "only those of the `FEATURE`"},
		&cli.StringSliceFlag{Name: "action", Usage: "only those of the `ACTION`"},
		&cli.StringSliceFlag{Name: "event-id", Usage: "only the event `ID`"},
		&cli.StringSliceFlag{Name: "message-id", Usage: "only the message `ID`: the original one's or the dead letter's"},
		&cli.BoolFlag{Name: "private", Usage: "only those with private data, or with what may be: unknown fields that hold text, data that cannot be read"},
		moment("since", "only those rejected since `TIME`: RFC 3339, a date (UTC), or how long ago, such as 2h or 7d"),
		moment("until", "only those rejected until `TIME`"),
		&cli.IntFlag{Name: "limit", Usage: "at most `N` of them; 0 means all", Validator: func(n int) error {
			if n < 0 {
				return fmt.Errorf("expected a number of letters, got %d", n)
			}
			return nil
		}},
	}
}

func formatFlag(formats ...string) cli.Flag {
	return &cli.StringFlag{Name: "output", Value: formats[0], Usage: fmt.Sprintf("one of %q", formats), Validator: func(s string) error {
		if slices.Contains(formats, s) {
			return nil
		}
		return fmt.Errorf("expected one of %q, got %q", formats, s)
	}}
}

func revealFlag() cli.Flag {
	return &cli.BoolFlag{Name: "reveal", Usage: "show also what is or may be private; that is logged"}
}

// filterOf is the filter of the flags. One that can choose nothing is a mistake.
func filterOf(c *cli.Command) (*dlq.Filter, error) {
	now := time.Now()
	moment := func(name string) time.Time {
		t, _ := dlq.ParseTime(c.String(name), now) // the flag's validator has seen it
		return t
	}
	f := &dlq.Filter{
		Reasons:      c.StringSlice("reason"),
		Services:     c.StringSlice("service"),
		Environments: c.StringSlice("environment"),
		Features:     c.StringSlice("feature"),
		Actions:      c.StringSlice("action"),
		EventIDs:     c.StringSlice("event-id"),
		MessageIDs:   c.StringSlice("message-id"),
		Since:        moment("since"),
		Until:        moment("until"),
		Limit:        c.Int("limit"),
		Private:      c.Bool("private"),
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && f.Until.Before(f.Since) {
		return nil, command.Usagef("--since %s is later than --until %s: expected a range of time that begins before it ends", f.Since.UTC().Format(time.RFC3339), f.Until.UTC().Format(time.RFC3339))
	}
	return f, nil
}

// desk is where on-call works: the queue, and what is chosen of it.
type desk struct {
	env    commands
	cfg    *config.Config
	log    *slog.Logger
	client *dlq.Client
	filter *dlq.Filter
	format string
	reveal bool // private data is shown, too
	// touched are the dead letters that were shown, written or changed.
	touched touched
	change  change // of the commands that make one

	// expected is how many letters were chosen when somebody was asked.
	expected int
	// inQueue is how many letters there were at the end of the last walk, apart
	// from late ones; -1 as long as none has seen the whole queue.
	inQueue int
	// wholly says that the last walk has seen the whole queue, as far as can be
	// known. If not, what it counted is the least that there is.
	wholly bool
	// most is the largest part of the queue that is read at once; 0: the default.
	most int
	bar  *progressbar.ProgressBar // nil: none is shown
	// streams says that stdout is written to all the while.
	streams bool
}

// openDesk reads the settings and connects.
func (env commands) openDesk(ctx context.Context, c *cli.Command) (*desk, error) {
	filter, err := filterOf(c)
	if err != nil {
		return nil, err
	}
	cfg, log, err := env.Load(config.ForPubSub)
	if err != nil {
		return nil, err
	}
	client, err := dlq.NewClient(ctx, cfg.DeadLetterSubscriptionName(), app.PubSubOptions(cfg)...)
	if err != nil {
		return nil, err
	}
	command.OutliveReaders()
	return &desk{env: env, cfg: cfg, log: log, client: client, filter: filter, format: c.String("output"), reveal: c.Bool("reveal"), inQueue: -1}, nil
}

func (d *desk) close() {
	_ = d.client.Close() // everything is settled by then
}

// walk goes through the queue once. At the end everything is back in it that act
// has not removed.
func (d *desk) walk(ctx context.Context, filter *dlq.Filter, stop bool, act func(*dlq.Walk) error) error {
	opts := d.env.opts.Queue
	opts.Logger, opts.Most = d.log, d.most
	queue := dlq.Open(d.client, opts)
	w := &dlq.Walk{Queue: queue, Filter: filter, Environment: d.cfg.Environment, Stop: stop}
	w.OnProgress = d.advance
	d.showBar("reading the queue", -1, "letters")
	err := d.explain(ctx, act(w))
	d.hideBar()
	d.wholly = false
	if err == nil {
		missing := d.sayMissing(w)
		doubts := queue.Doubts()
		d.wholly = !missing && !w.Cut && len(doubts) == 0
		if w.Cut && d.format == "table" { // programs know what they have asked for
			doubts = append(doubts, "--limit was reached")
		}
		if len(doubts) > 0 {
			d.say("worker: at least %s of the queue match, and there may be more: %s", command.Plural(w.Matched, "message"), strings.Join(doubts, "; "))
		}
		if !stop {
			d.inQueue = queue.Held() - w.Late
		}
	}
	return errors.Join(err, queue.Close())
}

// sayMissing tells what the queue holds back, as far as that can be known: Pub/Sub
// has no count of what somebody else holds. It reports whether something that was
// there before was not seen.
func (d *desk) sayMissing(w *dlq.Walk) bool {
	missing := d.inQueue - (w.Read - w.Late)
	switch {
	case d.inQueue >= 0 && missing > 0:
		d.say("worker: %s messages are held by someone else or not yet available, or were taken meanwhile; they are not counted here", humanize.Comma(int64(missing)))
		return true
	case w.Read == 0:
		d.say("worker: the queue gave nothing: it is empty, or its messages are held by someone else or not yet available (a command that was killed holds them for about a minute)")
	}
	return false
}

// atLeast is a count of what the last walk saw, for a sentence.
func (d *desk) atLeast(n int) string {
	if d.wholly {
		return humanize.Comma(int64(n))
	}
	return "at least " + humanize.Comma(int64(n))
}

// explain says what to do about Pub/Sub's errors.
func (d *desk) explain(ctx context.Context, err error) error {
	name := d.cfg.DeadLetterSubscriptionName()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.Join(errors.New("interrupted; what was not acted on is back in the queue"), withoutCancel(err))
	case notOurs(err):
		return err
	case status.Code(err) == codes.NotFound:
		return fmt.Errorf("DLQ_SUBSCRIPTION: %s does not exist; expected a subscription of the topic %s (DLQ_TOPIC) for on-call: %w", name, d.cfg.DeadLetterTopicName(), err)
	case status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.Unauthenticated:
		return fmt.Errorf("DLQ_SUBSCRIPTION: you may not read %s; expected roles/pubsub.subscriber on it, and to be logged in (gcloud auth application-default login): %w", name, err)
	case status.Code(err) != codes.Unknown:
		return fmt.Errorf("DLQ_SUBSCRIPTION: %s cannot be read: %w", name, err)
	}
	return err
}

// withoutCancel leaves out that a command was interrupted, which it says itself.
func withoutCancel(err error) error {
	if errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		return nil
	}
	return err
}

// notOurs reports whether the error is the main topic's.
func notOurs(err error) bool {
	_, ok := errors.AsType[*dlq.PublishError](err)
	return ok
}
