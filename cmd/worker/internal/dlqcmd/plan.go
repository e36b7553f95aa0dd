package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

func (env commands) plancommand() *cli.Command {
	return &cli.Command{
		Name:  "plan",
		Usage: "what a replay will do with each fault, checked on every event",
		Description: "Reads a file that says what happens to which fault (see stats):\n\n" +
			"   F-7c3a91: {jq: '.user.userId |= tonumber'}   # correct the data, and replay\n" +
			"   F-11aa22: replay                             # replay as it is\n" +
			"   F-33bb44: purge                              # remove, with a backup\n" +
			"   F-55cc66: keep                               # leave; so is what the file does not name\n\n" +
			"It checks every event of these faults as the worker does, prints field by field what\n" +
			"the expressions change in all of them, and writes the plan, which pins the messages,\n" +
			"the expressions, the services list and the queue. An event that the worker would reject\n" +
			"is not in the plan. The queue stays as it is until `worker dlq apply`.\n\n" +
			"Example:\n\n" +
			"   worker dlq plan --fix fixes.yaml -o plan.json",
		DisableSliceFlagSeparator: true,
		Flags: append(filterFlags(), formatFlag("table", "json", "ndjson"), revealFlag(), auditFlag(),
			&cli.StringFlag{Name: "fix", Usage: "the `FILE` that says what happens to which fault"},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write the plan to `FILE`, which must not exist"},
			countFlag("max-replays", defaultMaxReplays, "leave events that were replayed `N` times before"),
			&cli.BoolFlag{Name: "services-anyway", Usage: "check also with another services list than the running worker has"},
			&cli.BoolFlag{Name: "no-check", Usage: "plan also events that the worker would reject"}),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			out := c.String("out")
			if c.String("fix") == "" || out == "" {
				return command.Usagef("expected --fix FILE and -o FILE")
			}
			fixes, err := readFixes(c.String("fix"))
			if err != nil {
				return err
			}
			if err := unused(out); err != nil {
				return err
			}
			d, err := env.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			d.looks = true
			p := planner{session: d, fixes: fixes, out: out, maxReplays: c.Int("max-replays"), unchecked: c.Bool("no-check")}
			if !d.reveal {
				return p.run(ctx)
			}
			d.makePrivate(env.Stdout)
			d.makePrivate(env.Stderr)
			return d.reading(ctx, "plan --reveal", func() error { return p.run(ctx) }, "file", out)
		},
	}
}

// countFlag is a flag for a number that is not negative.
func countFlag(name string, value int, usage string) cli.Flag {
	return &cli.IntFlag{Name: name, Value: value, Usage: usage, Validator: func(n int) error {
		if n < 0 {
			return fmt.Errorf("expected at least 0, got %d", n)
		}
		return nil
	}}
}

// compiles returns what is wrong with an expression.
func compiles(expression string) error {
	_, err := dlq.CompileFix(expression)
	return err
}

// readFixes reads the file of --fix.
func readFixes(path string) (plan.Fixes, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	fixes, err := plan.ParseFixes(text, compiles)
	if err != nil {
		return nil, command.Usagef("%s: %w", path, err)
	}
	return fixes, nil
}

// readFile reads a file that a person names.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, command.Usage(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, plan.MaxBytes+1))
	switch {
	case err != nil:
		return nil, command.Usage(err)
	case len(text) > plan.MaxBytes:
		return nil, command.Usagef("%s is larger than %d bytes", path, plan.MaxBytes)
	}
	return text, nil
}

// planQueue is the queue of the command's settings.
func (d *session) planQueue() plan.Queue {
	return plan.Queue{Project: d.cfg.Project, Subscription: d.cfg.DeadLetterSubscriptionName(), Topic: d.cfg.TopicName()}
}

// fixesOf compiles the expressions of a plan's groups, by fault.
func fixesOf(steps map[string]plan.Step) (map[string]*dlq.Fix, error) {
	fixes := map[string]*dlq.Fix{}
	for id, step := range steps {
		if step.Action != plan.Fix {
			continue
		}
		fix, err := dlq.CompileFix(step.JQ)
		if err != nil {
			return nil, err // it was compiled before
		}
		fix.Name = "jq"
		fixes[id] = fix
	}
	return fixes, nil
}

// planner makes a plan.
type planner struct {
	*session
	fixes      plan.Fixes
	out        string
	maxReplays int
	unchecked  bool

	groups  map[string]*plan.Group
	changes fieldChanges
	// replays and reasons are of the messages to publish; running is the worker that
	// rejected the newest message.
	replays int
	reasons map[event.Reason]int
	running dlq.Worker
	// unnamed are faults that the file does not name, and their messages.
	unnamed         map[string]struct{}
	unnamedMessages int
}

func (p *planner) run(ctx context.Context) error {
	p.changes = fieldChanges{styler: p.env.styler(p.text()), out: p.text(), reveal: p.reveal}
	p.groups, p.reasons, p.unnamed = map[string]*plan.Group{}, map[event.Reason]int{}, map[string]struct{}{}
	p.skipped = skipReport{say: p.say}
	var n counts
	if err := p.pass(ctx, &n, func(w *dlq.Walk) error { return p.read(ctx, w) }); err != nil {
		return err
	}
	p.skipped.end()
	if !p.unchecked {
		if err := p.checkServices(p.reasons, p.running); err != nil {
			return err
		}
	}
	made := p.plan()
	p.print(made)
	if made.Messages() == 0 {
		p.say("worker: no message matches: no plan was written")
		return errors.Join(p.result(made), command.Reported(errors.New("no message matches")))
	}
	if err := p.write(made); err != nil {
		return err
	}
	return p.result(made)
}

// read reads the queue.
func (p *planner) read(ctx context.Context, w *dlq.Walk) error {
	steps := map[string]plan.Step(p.fixes)
	fixes, err := fixesOf(steps)
	if err != nil {
		return err
	}
	replayer := &dlq.Replayer{
		Sink: dlq.Nowhere{}, MaxReplays: p.maxReplays,
		FixOf: func(s *dlq.Stored) *dlq.Fix { return fixes[dlq.FaultOf(s).ID()] },
		OnFixed: func(s *dlq.Stored, before, after []byte) {
			id := dlq.FaultOf(s).ID()
			p.changes.compare(id, s, steps[id].JQ, before, after)
		},
		OnReplayed: func(s *dlq.Stored, m *pubsubpb.PubsubMessage) {
			p.groups[dlq.FaultOf(s).ID()].Messages[s.ID] = m.GetAttributes()[event.AttrOriginMessageID]
		},
		Report: func(s *dlq.Stored, why error) {
			g := p.groups[dlq.FaultOf(s).ID()]
			if s.Replays >= p.maxReplays {
				g.OverMaxReplays++
			} else {
				g.Failing++
			}
			p.skipped.add(s, why)
		},
	}
	if !p.unchecked {
		replayer.Check = p.check()
	}
	err = w.Each(ctx, func(s *dlq.Stored) error { return p.add(ctx, replayer, s) }, func() error { return replayer.Flush(ctx) })
	p.running = w.Newest
	return err
}

// check returns the worker's own check of an event.
func (d *session) check() func(event.Message) *event.Rejection {
	decoder := event.NewDecoder(d.cfg.Services, d.cfg.Environment)
	return func(m event.Message) *event.Rejection {
		_, rejection := decoder.Decode(m)
		return rejection
	}
}

// add plans one message.
func (p *planner) add(ctx context.Context, replayer *dlq.Replayer, s *dlq.Stored) error {
	f := dlq.FaultOf(s)
	id := f.ID()
	step, ok := p.fixes[id]
	if !ok {
		p.unnamedMessages++
		if len(p.unnamed) < maxWatched {
			p.unnamed[id] = struct{}{}
		}
		return nil
	}
	g := p.groups[id]
	if g == nil {
		g = &plan.Group{Fault: id, Reason: f.Reason, Service: f.Service, Detail: f.Detail, Action: step.Action, JQ: step.JQ, Messages: map[string]string{}}
		p.groups[id] = g
	}
	g.Matched++
	switch {
	case step.Action.Publishes():
		p.replays++
		p.reasons[s.Reason]++
		return replayer.Add(ctx, s)
	case step.Action == plan.Purge:
		g.Messages[s.ID], _ = event.Message{ID: s.OriginalID, Attributes: s.Original.Attributes}.Origin()
	}
	return nil
}

// plan returns what was planned.
func (p *planner) plan() *plan.Plan {
	made := &plan.Plan{
		Version: plan.Version, ID: newReplayID(), CreatedAt: time.Now().UTC(), Queue: p.planQueue(),
		Environment: p.cfg.Environment, ServicesDigest: p.cfg.Services.Digest(), MaxReplays: p.maxReplays, Unchecked: p.unchecked,
	}
	for id := range p.fixes {
		if g := p.groups[id]; g != nil {
			made.Groups = append(made.Groups, *g)
		} else {
			p.say("worker: no message that was read has the fault %s", id)
		}
	}
	made.Sort()
	return made
}

// text is where the plan is described: stdout, unless a program reads that.
func (p *planner) text() io.Writer {
	if p.format != "table" {
		return p.env.Stderr
	}
	return p.env.Stdout
}

// print describes the plan.
func (p *planner) print(made *plan.Plan) {
	out := p.text()
	for i := range made.Groups {
		g := &made.Groups[i]
		fmt.Fprintf(out, "%s  %s  %s  %s\n          %s\n", g.Fault, actionOf(g), cell(g.Reason), cell(g.Service), cell(g.Detail))
		if g.JQ != "" {
			fmt.Fprintf(out, "          jq %s\n", cell(strings.TrimSpace(g.JQ)))
		}
		p.changes.printChanges(g.Fault)
		if g.Failing > 0 {
			fmt.Fprintf(out, "          %s stay: they would be rejected again\n", command.Comma(g.Failing))
		}
		if g.OverMaxReplays > 0 {
			fmt.Fprintf(out, "          %s stay: they were replayed too often before (--max-replays)\n", command.Comma(g.OverMaxReplays))
		}
	}
	if p.unnamedMessages > 0 {
		fmt.Fprintf(out, "%s of %s that the file does not name stay\n", command.Plural(p.unnamedMessages, "message"), command.Plural(len(p.unnamed), "fault"))
	}
}

// actionOf says what happens to how many messages of a group.
func actionOf(g *plan.Group) string {
	if g.Action == plan.Keep {
		return fmt.Sprintf("keep %s", command.Comma(g.Matched))
	}
	verb := map[plan.Action]string{plan.Fix: "correct and replay", plan.Replay: "replay", plan.Purge: "purge"}[g.Action]
	return fmt.Sprintf("%s %s of %s", verb, command.Comma(len(g.Messages)), command.Comma(g.Matched))
}

// write writes the plan, with its checksum, to a new file.
func (p *planner) write(made *plan.Plan) error {
	if err := made.Seal(); err != nil {
		return err
	}
	text, err := made.Encode()
	if err != nil {
		return err
	}
	f, err := create(p.out)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// result prints the numbers, and the next command.
func (p *planner) result(made *plan.Plan) error {
	var n struct{ matched, replay, purge, keep, failed, over int }
	for i := range made.Groups {
		g := &made.Groups[i]
		n.matched += g.Matched
		n.failed += g.Failing
		n.over += g.OverMaxReplays
		switch {
		case g.Action.Publishes():
			n.replay += len(g.Messages)
		case g.Action == plan.Purge:
			n.purge += len(g.Messages)
		default:
			n.keep += g.Matched
		}
	}
	if p.format != "table" {
		return command.PrintJSON(p.env.Stdout, struct {
			Plan           string `json:"plan"`
			Matched        int    `json:"matched"`
			Replay         int    `json:"replay"`
			Purge          int    `json:"purge"`
			Keep           int    `json:"keep"`
			Failed         int    `json:"failed"`
			OverMaxReplays int    `json:"over_max_replays"`
			Left           int    `json:"left"`
			LeftAtLeast    bool   `json:"left_at_least,omitempty"`
		}{made.ID, n.matched, n.replay, n.purge, n.keep, n.failed, n.over, p.inQueue, !p.complete})
	}
	fmt.Fprintf(p.env.Stdout, "\n%d to replay, %d to purge, %d to keep; %d would be rejected again, %d were replayed too often. Nothing was changed.\n",
		n.replay, n.purge, n.keep, n.failed, n.over)
	if made.Checksum != "" {
		fmt.Fprintf(p.env.Stdout, "The plan %s is in %s. Next: worker dlq apply %s\n", made.ID, p.out, p.out)
	}
	return nil
}
