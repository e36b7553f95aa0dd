package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// defaultCanaries is how many events of each fault apply publishes before the others.
const defaultCanaries = 5

// maxRetention is the longest retention of a subscription in Pub/Sub. `worker setup` chooses
// it for the queue.
const maxRetention = 31 * 24 * time.Hour

func (root commands) applyCommand() *cli.Command {
	return &cli.Command{
		Name:      "apply",
		Usage:     "do what a plan says, and go on where it stopped",
		ArgsUsage: "PLAN",
		Description: "Publishes and removes the messages of a plan, and no others. Some events of each fault\n" +
			"go ahead (--canary). The rest follows when the receipts say that they were recorded\n" +
			"(RECEIPTS_SUBSCRIPTION), or, without receipts, when none was seen in the queue again for\n" +
			"--canary-wait. It stops when --stop-after of its events are rejected again.\n\n" +
			"What was done is in the journal PLAN.journal: after Ctrl-C, a crash or a lost connection,\n" +
			"the same command goes on where it stopped. A message whose publication is in the journal\n" +
			"is never published again. One that was published and whose record was lost may be; it has\n" +
			"the same event id, and the worker takes it for a duplicate. Messages that leave the queue\n" +
			"are first written to PLAN.backup, which `worker dlq restore` puts back.\n\n" +
			"Examples:\n\n" +
			"   worker dlq apply plan.json\n" +
			"   worker dlq apply plan.json --rate 100 --canary 20 --yes",
		Flags: []cli.Flag{
			formatFlag("table", "json", "ndjson"), command.YesFlag(), auditFlag(),
			countFlag("rate", 0, "at most `N` events a second; 0 means as fast as possible"),
			countFlag("stop-after", defaultStopAfter, "stop when `N` events of the plan were rejected again; 0 means never"),
			countFlag("canary", defaultCanaries, "publish `N` events of each fault, wait, and go on only if none of them is rejected again; 0 means no wait"),
			canaryWaitFlag(),
			&cli.BoolFlag{Name: "services-anyway", Usage: "apply also with another services list than the plan was checked with, or the running worker has"},
			&cli.BoolFlag{Name: "no-backup", Usage: "keep no copy of the removed messages"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			path, p, err := readPlan(c)
			if err != nil {
				return err
			}
			d, err := root.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			a := &applying{
				session: d, plan: p, path: path, canaries: c.Int("canary"), canaryWait: c.Duration("canary-wait"), stopAfter: c.Int("stop-after"), yes: c.Bool("yes"),
				publisher: publisher{id: p.ID, maxReplays: p.MaxReplays, rate: c.Int("rate"), say: d.console.say},
			}
			if !p.Unchecked {
				a.publisher.check = checkOf(d.cfg)
			}
			if !c.Bool("no-backup") {
				a.backupPath = plan.BackupOf(path)
			}
			return a.apply(ctx)
		},
	}
}

// readPlan reads the plan that the argument names.
func readPlan(c *cli.Command) (string, *plan.Plan, error) {
	if c.NArg() != 1 {
		return "", nil, command.Usagef("%s takes one PLAN, got %d", c.Name, c.NArg())
	}
	path := c.Args().First()
	text, err := readFile(path)
	if err != nil {
		return "", nil, err
	}
	p, err := plan.Parse(text, compiles)
	if err != nil {
		return "", nil, command.Usagef("%s: %w", path, err)
	}
	return path, p, nil
}

// applying is one run of a plan.
type applying struct {
	session    *session
	publisher  publisher
	plan       *plan.Plan
	path       string
	canaries   int // of each fault
	canaryWait time.Duration
	stopAfter  int // how many events of the plan may be rejected again; 0 means any number
	yes        bool
	backupPath string // empty without a backup

	journal *planJournal
	filter  *dlq.Filter // selects the plan's messages
	fixes   map[string]*dlq.Fix
}

// apply applies the plan.
func (a *applying) apply(ctx context.Context) (err error) {
	if err := a.admit(ctx); err != nil {
		return err
	}
	file, err := plan.OpenJournal(plan.JournalOf(a.path), a.plan)
	if err != nil {
		return a.journalFault(err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	a.journal = newPlanJournal(a.plan, file, a.session.console.say, &a.session.audit.touched)
	if state := a.journal.state(); state.Complete() {
		a.session.console.say("worker: nothing is left to do: the plan was applied by %s", shortTime(state.Last))
		return a.printApplied()
	}
	steps := map[string]plan.Step{}
	for i := range a.plan.Groups {
		g := &a.plan.Groups[i]
		steps[g.Fault] = g.Step()
	}
	if a.fixes, err = fixesOf(steps); err != nil {
		return err
	}
	a.filter = &dlq.Filter{ChosenBy: "the plan " + a.plan.ID, Chosen: func(s *dlq.Stored) bool { return a.journal.state().Group(s.ID) != nil }}
	if err := a.look(ctx); err != nil {
		return err
	}
	if ok, err := a.agreed(ctx); !ok {
		return err
	}
	return a.publisher.connected(ctx, a.session, func() error { return a.work(ctx) })
}

// admit refuses a plan that is not for the command's queue, its services list or its
// time.
func (a *applying) admit(ctx context.Context) error {
	d := a.session
	if err := a.plan.CheckQueue(planQueue(d.cfg)); err != nil {
		return command.Usage(fmt.Errorf("%s: %w", a.path, err))
	}
	retention := maxRetention
	if kept, err := d.queue.client.Retention(ctx); err == nil { // on-call need not be permitted to read it
		retention = kept
	}
	if err := a.plan.CheckAge(time.Now(), retention); err != nil {
		return err
	}
	if err := a.plan.CheckServices(d.cfg.Environment, d.cfg.Services.Digest()); err != nil && !a.plan.Unchecked && a.plan.Publishes() {
		if !d.services.anyway {
			return fmt.Errorf("%w. Set them as they were, make a new plan, or use --services-anyway", err)
		}
		d.console.say("worker: warning: %v", err)
	}
	return nil
}

func (a *applying) journalFault(err error) error {
	if errors.Is(err, plan.ErrBusy) {
		return fmt.Errorf("%w: its journal %s is in use", err, plan.JournalOf(a.path))
	}
	return fmt.Errorf("%s: %w", plan.JournalOf(a.path), err)
}

// look reads the queue to compare the services lists: only the whole queue tells which
// rejection is the newest.
func (a *applying) look(ctx context.Context) error {
	if a.plan.Unchecked || a.journal.publishes() == 0 {
		return nil
	}
	ahead := &dlq.Filter{ChosenBy: a.filter.ChosenBy, Chosen: func(s *dlq.Stored) bool {
		g := a.journal.state().Group(s.ID)
		return g != nil && g.Action.Publishes() && !a.journal.state().Done(s.ID)
	}}
	if _, err := a.session.countQuickly(ctx, ahead); err != nil { // a missed message matters little here
		return err
	}
	return a.session.services.compare(a.session.selected.reasons, a.session.selected.running)
}

// agreed asks, unless --yes has answered.
func (a *applying) agreed(ctx context.Context) (bool, error) {
	c, publishes := a.journal.state().Counts(), a.journal.publishes()
	question := fmt.Sprintf("Publish %s to %s", command.Plural(publishes, "event"), a.session.cfg.TopicName())
	if purges := c.Todo + c.Left - publishes; purges > 0 {
		question += fmt.Sprintf(", and purge %s", command.Plural(purges, "message"))
	}
	return agreed(ctx, a.session.env, "apply", a.yes, question+"?")
}

// work applies what is left of the plan, and records it in the journal and in the audit
// file.
func (a *applying) work(ctx context.Context) (err error) {
	if a.backupPath != "" {
		file, err := openBackup(a.backupPath)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		a.publisher.backup = newBackup(file)
	}
	d, j := a.session, a.journal
	audit := d.audit.begin(ctx, "apply", a.filter, "plan", a.plan.ID, "plan_file", absolute(a.path), "plan_sha256", a.plan.Checksum, "topic", d.cfg.TopicName(), "jq", a.expressions(), "canaries", a.canaries)
	audit.Info("Changing the dead-letter queue")
	err = j.record(plan.Record{Kind: plan.Begun, Plan: a.plan.ID, Checksum: a.plan.Checksum, By: d.audit.who(ctx)})
	if err == nil {
		err = a.stages(ctx)
		j.skipped.end()
		why := "the plan is applied"
		if c := j.state().Counts(); c.Todo+c.Left > 0 {
			why = fmt.Sprintf("%d messages are not done", c.Todo+c.Left)
		}
		if err != nil {
			why = dlq.SafeDetail(err.Error())
		}
		err = errors.Join(err, j.record(plan.Record{Kind: plan.Ended, Why: why}))
	}
	audit = audit.With("published", j.done.Published, "purged", j.done.Purged, "failed", j.done.Left).With(d.audit.touched.attributes()...)
	printErr := a.printApplied()
	if err != nil {
		audit.Error("The change of the dead-letter queue has ended early", "error", err)
		return err
	}
	audit.Info("Changed the dead-letter queue")
	if printErr != nil {
		return printErr
	}
	return a.rest()
}

// rest says which messages of the plan are not done yet. It is no error if there are none.
func (a *applying) rest() error {
	switch c := a.journal.state().Counts(); {
	case c.Left > 0:
		return command.Reported(fmt.Errorf("%d messages failed", c.Left))
	case c.Todo > 0:
		a.session.console.say("worker: %s of the plan did not come: another process has leased or removed them. Apply the plan again later", command.Plural(c.Todo, "message"))
		return command.Reported(errors.New("the plan is not complete"))
	}
	if n := len(a.journal.state().InQueue(time.Now())); n > 0 {
		a.session.console.say("worker: %s that an earlier run has published or purged did not come: that run was killed, and keeps them for about a minute. Apply the plan again later, so that they are removed", command.Plural(n, "message"))
		return command.Reported(errors.New("the plan is not complete"))
	}
	return nil
}

// absolute returns the full path of a file, so that a command in another folder finds it. If
// the working folder is not known, it returns the path as it is.
func absolute(path string) string {
	full, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return full
}

// expressions are those of the plan, for the audit.
func (a *applying) expressions() map[string]string {
	all := map[string]string{}
	for id, fix := range a.fixes {
		all[id] = fix.Expression
	}
	return all
}

// printApplied prints the counts of this run and of the plan.
func (a *applying) printApplied() error {
	d := a.session
	c := a.journal.state().Counts()
	if d.format != "table" {
		return command.PrintJSON(d.env.Stdout, struct {
			Plan     string `json:"plan"`
			Matched  int    `json:"matched"`
			Replayed int    `json:"replayed"`
			Purged   int    `json:"purged"`
			Failed   int    `json:"failed"`
			Todo     int    `json:"todo"`
			Rejected int    `json:"rejected"`
			Left     int    `json:"left"`
			AtLeast  bool   `json:"left_at_least,omitempty"`
		}{a.plan.ID, c.Planned, a.journal.done.Published, a.journal.done.Purged, c.Left, c.Todo, len(a.journal.cameBack), max(0, d.queue.inQueue), !d.queue.complete})
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s published and %s purged now; of %s of the plan %s are published, %s purged, %s failed and %s not done yet\n",
		command.Comma(a.journal.done.Published), command.Comma(a.journal.done.Purged), command.Plural(c.Planned, "message"), command.Comma(c.Published), command.Comma(c.Purged), command.Comma(c.Left), command.Comma(c.Todo))
	if _, err := os.Stat(a.backupPath); a.backupPath != "" && err == nil {
		fmt.Fprintf(&out, "The backup is %s. ", a.backupPath)
	}
	fmt.Fprintf(&out, "Next: worker dlq status %s\n", a.path)
	_, err := io.WriteString(d.env.Stdout, out.String())
	return err
}
