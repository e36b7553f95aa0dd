package dlqcmd

import (
	"context"
	"log/slog"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// session is one run of a command: its settings, its flags, and its connections.
type session struct {
	env  command.Env
	opts Options
	cfg  *config.Config
	log  *slog.Logger

	console  *console
	queue    *queueReader
	audit    *auditLog
	receipts receiptReader
	services servicesCheck
	backlog  monitoring

	filter  *dlq.Filter
	format  string
	reveal  bool // private data is shown, too
	skipped skipReport
	change  change // of commands that can change the queue
	// selected is what count has found last.
	selected selection
}

// open reads the settings and connects.
func (root commands) open(ctx context.Context, c *cli.Command) (*session, error) {
	filter, err := filterOf(c)
	if err != nil {
		return nil, err
	}
	d, err := root.openWith(ctx, filter)
	if err != nil {
		return nil, err
	}
	app.LimitCommandMemory()
	d.format, d.reveal = c.String("output"), c.Bool("reveal")
	d.queue.saysLimit = d.format == "table"
	d.services.anyway = c.Bool("services-anyway")
	d.audit.file = c.String("audit-file")
	return d, nil
}

// openWith is open for a command without flags of its own.
func (root commands) openWith(ctx context.Context, filter *dlq.Filter) (*session, error) {
	env := root.env
	cfg, log, err := env.Load(config.ForPubSub)
	if err != nil {
		return nil, err
	}
	client, err := dlq.NewClient(ctx, cfg.DeadLetterSubscriptionName(), app.PubSubOptions(cfg)...)
	if err != nil {
		return nil, err
	}
	command.OutliveReaders()
	con := &console{stdout: env.Stdout, stderr: env.Stderr}
	pulls := root.opts.Queue
	pulls.Logger = log
	emulated := cfg.EmulatorHost != ""
	return &session{
		env: env, opts: root.opts, cfg: cfg, log: log, console: con, filter: filter,
		queue:    &queueReader{cfg: cfg, client: client, opts: pulls, console: con, inQueue: -1},
		audit:    &auditLog{env: env, console: con, subscription: cfg.DeadLetterSubscriptionName(), emulated: emulated},
		receipts: receiptReader{name: cfg.ReceiptsSubscriptionName(), client: app.PubSubOptions(cfg), opts: pulls},
		services: servicesCheck{own: cfg.Services.Digest(), source: servicesSource(cfg), say: con.say},
		backlog:  monitoring{endpoint: root.opts.MonitoringEndpoint, emulated: emulated},
	}, nil
}

func (d *session) close() {
	d.audit.close()
	_ = d.queue.client.Close() // every message is acknowledged or released by then
}

// planQueue is the queue of the settings, as a plan names it.
func planQueue(cfg *config.Config) plan.Queue {
	return plan.Queue{Project: cfg.Project, Subscription: cfg.DeadLetterSubscriptionName(), Topic: cfg.TopicName()}
}

// checkOf returns the worker's own check of an event.
func checkOf(cfg *config.Config) func(event.Message) *event.Rejection {
	decoder := event.NewDecoder(cfg.Services, cfg.Environment)
	return func(m event.Message) *event.Rejection {
		_, rejection := decoder.Decode(m)
		return rejection
	}
}

// ownerOf returns the owner and the runbook of a service in services.yaml, if any.
func ownerOf(list *policy.Set, service string) (owner, runbook string) {
	for _, s := range list.Services() {
		if s.ID == service {
			return s.Owner, s.Runbook
		}
	}
	return "", ""
}

// selection is what a count of the selected messages has found.
type selection struct {
	counted bool
	// expected is how many messages were selected.
	expected int
	// reasons are those of the selected messages; running is the worker that rejected the
	// newest message of the queue.
	reasons map[event.Reason]int
	running dlq.Worker
}

// count counts the messages that a filter selects, and their services.
func (d *session) count(ctx context.Context, filter *dlq.Filter) (n counts, services int, err error) {
	seen := map[string]struct{}{}
	reasons := map[event.Reason]int{}
	d.selected.reasons = reasons
	err = d.queue.pass(ctx, filter, &n, func(w *dlq.Walk) error {
		err := w.Each(ctx, func(s *dlq.Stored) error {
			seen[s.Service] = struct{}{}
			reasons[s.Reason]++
			return nil
		}, nil)
		d.selected.running = w.Newest
		return err
	})
	d.selected.expected, d.selected.counted = n.matched, err == nil
	return n, len(seen), err
}

// countQuickly is count, but may miss messages that Pub/Sub withholds for a moment.
func (d *session) countQuickly(ctx context.Context, filter *dlq.Filter) (counts, error) {
	d.queue.quick = true
	defer func() { d.queue.quick = false }()
	n, _, err := d.count(ctx, filter)
	return n, err
}
