// Package dlqcmd has the commands of `worker dlq`, with which on-call reads and changes
// the dead-letter queue.
package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
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
	// ReceiptsLook is how long a canary waits before it reads the receipts again: 10 s.
	ReceiptsLook time.Duration
	// OpenBrowser opens a file in the person's browser; nil: that of the desktop.
	OpenBrowser func(ctx context.Context, path string) error
	// MonitoringEndpoint is that of another Cloud Monitoring, which asks for no
	// credentials; empty: Google's, or none if Pub/Sub is an emulator.
	MonitoringEndpoint string
}

func (o Options) withDefaults() Options {
	if o.CanaryLook == 0 {
		o.CanaryLook = 5 * time.Minute
	}
	if o.ReceiptsLook == 0 {
		o.ReceiptsLook = 10 * time.Second
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
		Usage: "the dead-letter queue: see, plan, replay, remove, restore",
		Description: "Reads DLQ_SUBSCRIPTION. What a command does not act on is back in the queue at once.\n" +
			"\"At least N\" (as JSON: left_at_least, count_at_least) says that a command cannot know\n" +
			"whether it saw the whole queue; stderr says why.\n\n" +
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
			env.plancommand(),
			env.applycommand(),
			env.statuscommand(),
			env.restorecommand(),
			env.uicommand(),
		},
	}
}

// filterFlags are the filters of every command.
func filterFlags() []cli.Flag {
	moment := func(name, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Usage: usage, Validator: func(s string) error {
			_, err := dlq.ParseTime(s, time.Now())
			return err
		}}
	}
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "fault", Usage: "only those with the fault `ID` that stats prints, such as F-7c3a91; may be repeated, as may all that name something", Validator: faultIDs},
		&cli.StringSliceFlag{Name: "reason", Usage: "only those with the `REASON`, such as invalid_event", Validator: knownReasons},
		&cli.StringSliceFlag{Name: "service", Usage: "only those of the service `ID`"},
		&cli.StringSliceFlag{Name: "environment", Usage: "only those of the environment `ID`"},
		&cli.StringSliceFlag{Name: "feature", Usage: "only those of the `FEATURE`"},
		&cli.StringSliceFlag{Name: "action", Usage: "only those of the `ACTION`"},
		&cli.StringSliceFlag{Name: "event-id", Usage: "only the event `ID`"},
		&cli.StringSliceFlag{Name: "message-id", Usage: "only the message `ID`: the original one's or the dead-lettered message's"},
		&cli.BoolFlag{Name: "private", Usage: "only those with private data, or with what may be: unknown fields that hold text, data that cannot be read"},
		moment("since", "only those rejected since `TIME`: RFC 3339, a date (UTC), or how long ago, such as 2h or 7d"),
		moment("until", "only those rejected until `TIME`"),
		&cli.IntFlag{Name: "limit", Usage: "at most `N` of them; 0 means all", Validator: func(n int) error {
			if n < 0 {
				return fmt.Errorf("expected a number of messages, got %d", n)
			}
			return nil
		}},
	}
}

// knownReasons refuses a reason that no message can have, because a typing error would
// select nothing in silence.
func knownReasons(reasons []string) error {
	for _, reason := range reasons {
		if _, ok := dlq.FindReason(event.Reason(reason)); !ok {
			var known []string
			for _, row := range dlq.Reasons {
				known = append(known, string(row.Reason))
			}
			return fmt.Errorf("unknown reason %q; expected one of %s", reason, strings.Join(known, ", "))
		}
	}
	return nil
}

// faultIDs refuses what no fault can be called.
func faultIDs(ids []string) error {
	for _, id := range ids {
		if !fault.IsID(id) {
			return fmt.Errorf("expected the id of a fault as stats prints it, such as F-7c3a91, got %q", id)
		}
	}
	return nil
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
	return &cli.BoolFlag{Name: "reveal", Usage: "show also data that is or may be private; the audit log records it"}
}

// filterOf returns the filter of the flags. A range of time that is empty is a mistake.
func filterOf(c *cli.Command) (*dlq.Filter, error) {
	now := time.Now()
	moment := func(name string) time.Time {
		t, _ := dlq.ParseTime(c.String(name), now) // the flag's validator has seen it
		return t
	}
	f := &dlq.Filter{
		Faults:       c.StringSlice("fault"),
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

// session is the connection of one command to the queue, with its settings.
type session struct {
	env    commands
	cfg    *config.Config
	log    *slog.Logger
	client *dlq.Client
	filter *dlq.Filter
	format string
	reveal bool // private data is shown, too
	// touched are the messages that were shown, written or changed.
	touched touched
	skipped skipReport
	change  change // of commands that can change the queue

	// expected is how many messages were selected when the question was asked.
	expected int
	// reasons are those of the selected messages, and running the worker that rejected
	// the newest message, when the messages were counted; counted says that they were.
	counted bool
	reasons map[event.Reason]int
	running dlq.Worker
	// inQueue is the number of messages at the end of the last complete walk, without
	// those newer than the start; -1 before the first.
	inQueue int
	warned  map[string]bool // faults of the filter that no message has
	// read is the number of messages that the last walk has seen.
	read int
	// viewed says that the last walk has read a view, which shows what others have leased,
	// too.
	viewed bool
	// complete says that the last walk has seen the whole queue, as far as can be known.
	// If not, its counts are lower bounds.
	complete bool
	// maxMessages bounds how many messages are read at once; 0 is the default.
	maxMessages int
	// quick ends a walk after one empty pull. It may miss messages that Pub/Sub withholds
	// for a moment.
	quick bool
	// looks says that the command only reads, so that it may use the view: see source.
	looks bool
	// servicesAnyway allows a check with another services list than the worker's.
	servicesAnyway bool
	// auditFile is where the audit records go; empty is the default.
	auditFile string
	closers   []func() error
	bar       *progressbar.ProgressBar // nil if none is shown
	// streams says that the command writes to stdout while it reads.
	streams bool
}

// open reads the settings and connects.
func (env commands) open(ctx context.Context, c *cli.Command) (*session, error) {
	filter, err := filterOf(c)
	if err != nil {
		return nil, err
	}
	d, err := env.openWith(ctx, filter)
	if err != nil {
		return nil, err
	}
	app.LimitCommandMemory()
	d.format, d.reveal, d.servicesAnyway, d.auditFile = c.String("output"), c.Bool("reveal"), c.Bool("services-anyway"), c.String("audit-file")
	return d, nil
}

// openWith is open for a command without flags of its own.
func (env commands) openWith(ctx context.Context, filter *dlq.Filter) (*session, error) {
	cfg, log, err := env.Load(config.ForPubSub)
	if err != nil {
		return nil, err
	}
	client, err := dlq.NewClient(ctx, cfg.DeadLetterSubscriptionName(), app.PubSubOptions(cfg)...)
	if err != nil {
		return nil, err
	}
	command.OutliveReaders()
	return &session{env: env, cfg: cfg, log: log, client: client, filter: filter, inQueue: -1}, nil
}

func (d *session) close() {
	for _, closer := range d.closers {
		if err := closer(); err != nil {
			d.say("worker: warning: the audit file: %v", err)
		}
	}
	_ = d.client.Close() // every message is acknowledged or released by then
}

// walk reads the queue once. At the end it releases every message that act has not
// removed.
func (d *session) walk(ctx context.Context, filter *dlq.Filter, stop bool, act func(*dlq.Walk) error) error {
	opts := d.env.opts.Queue
	opts.Logger, opts.MaxMessages = d.log, d.maxMessages
	if d.quick {
		opts.EmptyPulls = 1
	}
	source, look := d.source(ctx)
	defer d.endLook(look)
	queue := dlq.Open(source, opts)
	w := &dlq.Walk{Queue: queue, Filter: filter, Environment: d.cfg.Environment, Stop: stop}
	w.OnProgress = d.advance
	d.showBar("reading the queue", -1, "messages")
	err := d.explain(ctx, act(w))
	d.hideBar()
	d.complete = false
	if err == nil {
		d.read, d.viewed = w.Read, look != nil
		d.warnFaults(w)
		missing := d.warnMissing(w, look != nil)
		doubts := queue.Doubts()
		if look != nil && w.Ended && look.Doubt() != "" {
			doubts = append(doubts, look.Doubt())
		}
		d.complete = !missing && !w.Cut && len(doubts) == 0
		if w.Cut && d.format == "table" { // a program knows its own limit
			doubts = append(doubts, "--limit was reached")
		}
		if len(doubts) > 0 {
			d.say("worker: at least %s of the queue match, and there may be more: %s", command.Plural(w.Matched, "message"), strings.Join(doubts, "; "))
		}
		if !stop {
			d.inQueue = queue.Leased() - w.Late
		}
	}
	return errors.Join(err, queue.Close())
}

// warnMissing says how many messages were in the queue before and were not seen now.
// It compares with an earlier walk, because Pub/Sub does not say how many messages
// somebody else has leased.
func (d *session) warnMissing(w *dlq.Walk, looking bool) bool {
	missing := d.inQueue - (w.Read - w.Late)
	switch {
	case d.inQueue >= 0 && missing > 0:
		d.say("worker: %s messages are leased by somebody else or not yet available, or were removed meanwhile; they are not counted here", command.Comma(missing))
		return true
	case w.Read == 0 && looking:
		d.say("worker: the queue gave nothing: it is empty, or its messages are not yet available")
	case w.Read == 0:
		d.say("worker: the queue gave nothing: it is empty, or its messages are leased by somebody else or not yet available (a command that was killed keeps its leases for about a minute)")
	}
	return false
}

// warnFaults says which faults of the filter no message has: the id may be mistyped.
func (d *session) warnFaults(w *dlq.Walk) {
	for _, id := range w.Filter.Faults {
		if _, ok := w.Faults[id]; !ok && !w.Cut && !d.warned[id] {
			if d.warned == nil {
				d.warned = map[string]bool{}
			}
			d.warned[id] = true
			d.say("worker: no message that was read has the fault %s; `worker dlq stats` lists the faults", id)
		}
	}
}

// atLeast formats a count of the last walk for a sentence.
func (d *session) atLeast(n int) string {
	if d.complete {
		return command.Comma(n)
	}
	return "at least " + command.Comma(n)
}

// explain adds the remedy to an error of Pub/Sub.
func (d *session) explain(ctx context.Context, err error) error {
	name := d.cfg.DeadLetterSubscriptionName()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.Join(errors.New("interrupted; every message that was not changed is back in the queue"), withoutCancel(err))
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

// withoutCancel drops the error of an interrupted request.
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
