package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// defaultCanaries is how many events of each fault apply publishes before the others.
const defaultCanaries = 5

// leaseOfKilled is longer than the leases of a command that was killed last: a minute.
const leaseOfKilled = 2 * time.Minute

// maxRetention is the longest that Pub/Sub keeps a message in a subscription, and what
// setup chooses for the queue.
const maxRetention = 31 * 24 * time.Hour

func (env commands) applycommand() *cli.Command {
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
			"the same event id, and the worker takes it for a duplicate. What is removed from the queue\n" +
			"is first written to PLAN.backup, which `worker dlq restore` puts back.\n\n" +
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
			d, err := env.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			a := &applying{
				plan: p, path: path, canaries: c.Int("canary"), yes: c.Bool("yes"),
				replay: &replay{
					session: d, id: p.ID, maxReplays: p.MaxReplays, rate: c.Int("rate"), unchecked: p.Unchecked,
					stopAfter: c.Int("stop-after"), canaryWait: c.Duration("canary-wait"),
				},
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
	*replay
	plan     *plan.Plan
	path     string
	canaries int // of each fault
	yes      bool

	journal *plan.Journal
	mu      sync.Mutex // guards the journal, which several requests write
	fixes   map[string]*dlq.Fix
	origins map[string]struct{} // of the plan's messages
	// cameBack are the plan's events that this run has seen in the queue again, by the
	// ids of their new messages.
	cameBack map[string]string
	left     map[string][]string // why messages are left, until the journal has it
	done     plan.Counts         // of this run: only Published, Purged and Left
}

// apply applies the plan.
func (a *applying) apply(ctx context.Context) (err error) {
	if err := a.admit(ctx); err != nil {
		return err
	}
	if a.journal, err = plan.OpenJournal(plan.JournalOf(a.path), a.plan); err != nil {
		return a.journalFault(err)
	}
	defer func() { err = errors.Join(err, a.journal.Close()) }()
	if a.journal.State.Complete() {
		a.say("worker: nothing is left to do: the plan was applied by %s", shortTime(a.journal.State.Last))
		return a.printApplied()
	}
	steps := map[string]plan.Step{}
	a.origins, a.cameBack, a.left = map[string]struct{}{}, map[string]string{}, map[string][]string{}
	for i := range a.plan.Groups {
		g := &a.plan.Groups[i]
		steps[g.Fault] = g.Step()
		for _, origin := range g.Messages {
			a.origins[origin] = struct{}{}
		}
	}
	if a.fixes, err = fixesOf(steps); err != nil {
		return err
	}
	a.filter = &dlq.Filter{Chosen: func(s *dlq.Stored) bool { return a.journal.State.Group(s.ID) != nil }, ChosenBy: "the plan " + a.plan.ID}
	if err := a.look(ctx); err != nil {
		return err
	}
	if ok, err := a.agreed(ctx); !ok {
		return err
	}
	return a.publishing(ctx, func() error { return a.work(ctx) })
}

// admit refuses a plan that is not for the command's queue, its services list or its
// time.
func (a *applying) admit(ctx context.Context) error {
	if err := a.plan.CheckQueue(a.planQueue()); err != nil {
		return command.Usage(fmt.Errorf("%s: %w", a.path, err))
	}
	retention := maxRetention
	if kept, err := a.client.Retention(ctx); err == nil { // on-call need not be permitted to read it
		retention = kept
	}
	if err := a.plan.CheckAge(time.Now(), retention); err != nil {
		return err
	}
	if err := a.plan.CheckServices(a.cfg.Environment, a.cfg.Services.Digest()); err != nil && !a.plan.Unchecked && a.plan.Publishes() {
		if !a.servicesAnyway {
			return fmt.Errorf("%w. Set them as they were, make a new plan, or use --services-anyway", err)
		}
		a.say("worker: warning: %v", err)
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
	if a.unchecked || a.publishes() == 0 {
		return nil
	}
	all := a.filter
	a.filter = &dlq.Filter{ChosenBy: all.ChosenBy, Chosen: func(s *dlq.Stored) bool {
		g := a.journal.State.Group(s.ID)
		return g != nil && g.Action.Publishes() && !a.journal.State.Done(s.ID)
	}}
	a.quick = true // a missed message matters little here
	_, _, err := a.count(ctx)
	a.quick, a.filter = false, all
	if err != nil {
		return err
	}
	return a.checkServices(a.reasons, a.running)
}

// publishes is how many messages are still to be published.
func (a *applying) publishes() (n int) {
	for _, g := range a.journal.State.Groups() {
		if g.Action.Publishes() {
			n += g.Counts.Todo + g.Counts.Left
		}
	}
	return n
}

// agreed asks, unless --yes has answered.
func (a *applying) agreed(ctx context.Context) (bool, error) {
	c, publishes := a.journal.State.Counts(), a.publishes()
	question := fmt.Sprintf("Publish %s to %s", command.Plural(publishes, "event"), a.cfg.TopicName())
	if purges := c.Todo + c.Left - publishes; purges > 0 {
		question += fmt.Sprintf(", and purge %s", command.Plural(purges, "message"))
	}
	return a.env.agreed(ctx, "apply", a.yes, question+"?")
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
		a.backup = newBackup(file)
	}
	audit := a.audit(ctx, "apply", "plan", a.plan.ID, "plan_file", absolute(a.path), "plan_sha256", a.plan.Checksum, "topic", a.cfg.TopicName(), "jq", a.expressions(), "canaries", a.canaries)
	audit.Info("Changing the dead-letter queue")
	err = a.record(plan.Record{Kind: plan.Begun, Plan: a.plan.ID, Checksum: a.plan.Checksum, By: a.who(ctx)})
	if err == nil {
		a.skipped = skipReport{say: a.say}
		err = a.stages(ctx)
		a.skipped.end()
		why := "the plan is applied"
		if c := a.journal.State.Counts(); c.Todo+c.Left > 0 {
			why = fmt.Sprintf("%d messages are not done", c.Todo+c.Left)
		}
		if err != nil {
			why = dlq.SafeDetail(err.Error())
		}
		err = errors.Join(err, a.record(plan.Record{Kind: plan.Ended, Why: why}))
	}
	audit = audit.With("published", a.done.Published, "purged", a.done.Purged, "failed", a.done.Left).With(a.touched.attributes()...)
	printErr := a.printApplied()
	if err != nil {
		audit.Error("The change of the dead-letter queue has ended early", "error", err)
		return err
	}
	audit.Info("Changed the dead-letter queue")
	c := a.journal.State.Counts()
	switch {
	case printErr != nil:
		return printErr
	case c.Left > 0:
		return command.Reported(fmt.Errorf("%d messages failed", c.Left))
	case c.Todo > 0:
		a.say("worker: %s of the plan did not come: somebody else has leased or removed them. Apply the plan again later", command.Plural(c.Todo, "message"))
		return command.Reported(errors.New("the plan is not complete"))
	}
	if n := len(a.journal.State.InQueue(time.Now())); n > 0 {
		a.say("worker: %s that an earlier run has published or purged did not come: that run was killed, and keeps them for about a minute. Apply the plan again later, so that they are removed", command.Plural(n, "message"))
		return command.Reported(errors.New("the plan is not complete"))
	}
	return nil
}

// absolute returns the full path of a file, with which another command finds it; where the
// working folder is not known, the path as it is.
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

// record appends to the journal.
func (a *applying) record(r ...plan.Record) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.journal.Append(r...)
}

// stages publishes the canaries, waits for them, and does the rest.
func (a *applying) stages(ctx context.Context) error {
	if a.canaries > 0 && !a.journal.State.Passed {
		if err := a.canaryStage(ctx); err != nil {
			return err
		}
	}
	began := time.Now()
	err := a.pass(ctx, new(counts), func(w *dlq.Walk) error {
		a.showBar("applying the plan", float64(a.plan.Messages()), "messages")
		return a.act(ctx, w, false, func(*dlq.Stored) bool { return true })
	})
	if err != nil {
		return err
	}
	// A message that an earlier run has published and that does not come is gone, unless
	// that run was killed so recently that it still has the lease.
	if gone := a.journal.State.InQueue(began.Add(-leaseOfKilled)); len(gone) > 0 {
		return a.record(plan.Record{Kind: plan.Removed, IDs: gone})
	}
	return nil
}

// canaryStage publishes the canaries, and waits for them unless they are all there is.
func (a *applying) canaryStage(ctx context.Context) error {
	ahead := map[string]int{} // canaries of each fault
	for _, id := range a.journal.State.Canaries() {
		ahead[a.journal.State.Group(id).Fault]++
	}
	err := a.pass(ctx, new(counts), func(w *dlq.Walk) error {
		return a.act(ctx, w, true, func(s *dlq.Stored) bool {
			g := a.journal.State.Group(s.ID)
			if !g.Action.Publishes() || ahead[g.Fault] >= a.canaries && !a.journal.State.Done(s.ID) {
				return false
			}
			if !a.journal.State.Done(s.ID) {
				ahead[g.Fault]++
			}
			return true
		})
	})
	if err != nil {
		return err
	}
	switch {
	case a.publishes() == 0: // they are all there is
		return nil
	case a.journal.State.CanaryCounts().Published == 0:
		return errors.New("no message of the plan came: somebody else has leased or removed them. Apply the plan again later")
	}
	return a.awaitCanaries(ctx)
}

// act does what the plan says with the messages that take selects.
func (a *applying) act(ctx context.Context, w *dlq.Walk, canary bool, take func(*dlq.Stored) bool) error {
	w.Ours, w.OnLate = a.ours, a.late
	report := a.leave
	if canary {
		report = func(*dlq.Stored, error) {} // the rest tries it again
	}
	replayer := a.replayer(&planSink{a.sink(w), a, canary}, report)
	replayer.FixOf = func(s *dlq.Stored) *dlq.Fix { return a.fixes[a.journal.State.Group(s.ID).Fault] }
	replayer.OnReplayed = func(*dlq.Stored, *pubsubpb.PubsubMessage) { a.advance(1) }
	var part messages
	err := w.Each(ctx, func(s *dlq.Stored) error {
		if !take(s) {
			return nil
		}
		return a.sort(ctx, s, replayer, &part)
	}, func() error {
		err := replayer.Flush(ctx)
		if err == nil {
			err = a.remove(ctx, w.Queue, &part)
		}
		return errors.Join(err, a.recordLeft(), a.stop())
	})
	if err == nil {
		err = a.stop() // the last pulls may have brought some
	}
	return errors.Join(err, a.recordLeft())
}

// messages are ids of a part of the queue.
type messages struct {
	purge []string
	// done were published by an earlier run, which ended before it removed them.
	done []string
}

// sort decides what happens to one message.
func (a *applying) sort(ctx context.Context, s *dlq.Stored, replayer *dlq.Replayer, part *messages) error {
	if a.journal.State.Done(s.ID) {
		part.done = append(part.done, s.ID)
		return nil
	}
	if a.journal.State.Group(s.ID).Action == plan.Purge {
		part.purge = append(part.purge, s.ID)
		return a.keep(s)
	}
	if err := a.stop(); err != nil {
		return err
	}
	return a.add(ctx, replayer, s)
}

// remove removes what is not published.
func (a *applying) remove(ctx context.Context, queue *dlq.Queue, part *messages) error {
	now := *part
	*part = messages{}
	if len(now.done) > 0 {
		if err := a.removed(now.done, queue.Remove(ctx, now.done)); err != nil {
			return err
		}
	}
	if len(now.purge) > 0 {
		return a.purge(ctx, queue, now.purge)
	}
	return nil
}

// purge removes messages.
func (a *applying) purge(ctx context.Context, queue *dlq.Queue, ids []string) error {
	if a.backup != nil {
		if err := a.backup.write(ids); err != nil {
			return err
		}
	}
	if err := a.record(plan.Record{Kind: plan.Purged, IDs: ids}); err != nil {
		return err
	}
	a.done.Purged += len(ids)
	a.touched.add(ids...)
	a.advance(len(ids))
	return a.removed(ids, queue.Remove(ctx, ids))
}

// removed records messages that the queue has forgotten, unless it has not.
func (a *applying) removed(ids []string, err error) error {
	if err != nil {
		return err
	}
	return a.record(plan.Record{Kind: plan.Removed, IDs: ids})
}

// planSink publishes to the topic. It records what the topic has confirmed before the
// queue forgets it: what the journal has is never published again.
type planSink struct {
	*topicSink
	run    *applying
	canary bool
}

func (s *planSink) Remove(ctx context.Context, ids []string) error {
	a := s.run
	records := []plan.Record{{Kind: plan.Published, IDs: ids}}
	if s.canary {
		records = append(records, plan.Record{Kind: plan.Canaries, IDs: ids})
	}
	if err := a.record(records...); err != nil {
		return err
	}
	a.mu.Lock()
	a.done.Published += len(ids)
	a.touched.add(ids...)
	a.mu.Unlock()
	return a.removed(ids, s.topicSink.Remove(ctx, ids))
}

// leave notes a message that stays in the queue.
func (a *applying) leave(s *dlq.Stored, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.journal.State.Done(s.ID) {
		return // it was published, and the next run removes it
	}
	a.skipped.add(s, why)
	cause := dlq.SafeDetail(why.Error())
	a.left[cause] = append(a.left[cause], s.ID)
}

// recordLeft records the messages that stay.
func (a *applying) recordLeft() error {
	for _, why := range slices.Sorted(maps.Keys(a.left)) {
		ids := a.left[why]
		delete(a.left, why)
		a.done.Left += len(ids)
		if err := a.record(plan.Record{Kind: plan.Left, IDs: ids, Why: why}); err != nil {
			return err
		}
	}
	return nil
}

// ours reports whether a message is an event of the plan that was rejected again.
func (a *applying) ours(s *dlq.Stored) bool {
	attributes := s.Original.Attributes
	_, ok := a.origins[attributes[event.AttrOriginMessageID]]
	return ok && attributes[event.AttrReplayID] == a.plan.ID && event.Replays(attributes) > 0
}

// late sees a message that came after the start, or that this plan has caused.
func (a *applying) late(s *dlq.Stored) {
	if !a.ours(s) || len(a.cameBack) >= maxWatched {
		return
	}
	origin := s.Original.Attributes[event.AttrOriginMessageID]
	if _, seen := a.cameBack[s.ID]; seen || a.journal.State.CameBack(origin) {
		return
	}
	if len(a.cameBack) < maxKinds {
		a.say("worker: event %s of the plan was rejected again: %s: %s", nameOf(s), dlq.Word(string(s.Reason)), detailOf(s))
	}
	a.cameBack[s.ID] = origin
	if err := a.record(plan.Record{Kind: plan.CameBack, IDs: []string{origin}}); err != nil {
		a.say("worker: warning: %v", err) // the next record fails, too, and ends the run
	}
}

// stop returns an error when too many events of the plan were rejected again.
func (a *applying) stop() error {
	if a.stopAfter == 0 || len(a.cameBack) < a.stopAfter {
		return nil
	}
	return fmt.Errorf("stopped: %s of the plan were rejected again (--stop-after %d); what is not published is in the queue", command.Plural(len(a.cameBack), "event"), a.stopAfter)
}

// printApplied prints what this run did, and where the plan is.
func (a *applying) printApplied() error {
	c := a.journal.State.Counts()
	if a.format != "table" {
		return command.PrintJSON(a.env.Stdout, struct {
			Plan     string `json:"plan"`
			Matched  int    `json:"matched"`
			Replayed int    `json:"replayed"`
			Purged   int    `json:"purged"`
			Failed   int    `json:"failed"`
			Todo     int    `json:"todo"`
			Rejected int    `json:"rejected"`
			Left     int    `json:"left"`
			AtLeast  bool   `json:"left_at_least,omitempty"`
		}{a.plan.ID, c.Planned, a.done.Published, a.done.Purged, c.Left, c.Todo, len(a.cameBack), max(0, a.inQueue), !a.complete})
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s published and %s purged now; of %s of the plan %s are published, %s purged, %s failed and %s not done yet\n",
		command.Comma(a.done.Published), command.Comma(a.done.Purged), command.Plural(c.Planned, "message"), command.Comma(c.Published), command.Comma(c.Purged), command.Comma(c.Left), command.Comma(c.Todo))
	if _, err := os.Stat(a.backupPath); a.backupPath != "" && err == nil {
		fmt.Fprintf(&out, "The backup is %s. ", a.backupPath)
	}
	fmt.Fprintf(&out, "Next: worker dlq status %s\n", a.path)
	_, err := io.WriteString(a.env.Stdout, out.String())
	return err
}
