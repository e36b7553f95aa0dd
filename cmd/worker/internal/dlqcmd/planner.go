package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// planner makes a plan.
type planner struct {
	session    *session
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
	d := p.session
	p.changes = fieldChangesOf(p.session, p.text())
	p.groups, p.reasons, p.unnamed = map[string]*plan.Group{}, map[event.Reason]int{}, map[string]struct{}{}
	d.skipped = skipReport{say: d.console.say}
	var n counts
	if err := d.queue.pass(ctx, d.filter, &n, func(w *dlq.Walk) error { return p.read(ctx, w) }); err != nil {
		return err
	}
	d.skipped.end()
	if !p.unchecked {
		if err := d.services.compare(p.reasons, p.running); err != nil {
			return err
		}
	}
	made := p.plan()
	p.print(made)
	if made.Messages() == 0 {
		d.console.say("worker: no message matches: no plan was written")
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
			p.session.skipped.add(s, why)
		},
	}
	if !p.unchecked {
		replayer.Check = checkOf(p.session.cfg)
	}
	err = w.Each(ctx, func(s *dlq.Stored) error { return p.add(ctx, replayer, s) }, func() error { return replayer.Flush(ctx) })
	p.running = w.Newest
	return err
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

// plan returns the plan of the messages that were read.
func (p *planner) plan() *plan.Plan {
	d := p.session
	made := &plan.Plan{
		Version: plan.Version, ID: newReplayID(), CreatedAt: time.Now().UTC(), Queue: planQueue(d.cfg),
		Environment: d.cfg.Environment, ServicesDigest: d.cfg.Services.Digest(), MaxReplays: p.maxReplays, Unchecked: p.unchecked,
	}
	for id := range p.fixes {
		if g := p.groups[id]; g != nil {
			made.Groups = append(made.Groups, *g)
		} else {
			d.console.say("worker: no message that was read has the fault %s", id)
		}
	}
	made.Sort()
	return made
}

// text returns where the plan is described: stdout, unless a program reads it.
func (p *planner) text() io.Writer {
	if p.session.format != "table" {
		return p.session.env.Stderr
	}
	return p.session.env.Stdout
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
	d := p.session
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
	if d.format != "table" {
		return command.PrintJSON(d.env.Stdout, struct {
			Plan           string `json:"plan"`
			Matched        int    `json:"matched"`
			Replay         int    `json:"replay"`
			Purge          int    `json:"purge"`
			Keep           int    `json:"keep"`
			Failed         int    `json:"failed"`
			OverMaxReplays int    `json:"over_max_replays"`
			Left           int    `json:"left"`
			LeftAtLeast    bool   `json:"left_at_least,omitempty"`
		}{made.ID, n.matched, n.replay, n.purge, n.keep, n.failed, n.over, d.queue.inQueue, !d.queue.complete})
	}
	fmt.Fprintf(d.env.Stdout, "\n%d to replay, %d to purge, %d to keep; %d would be rejected again, %d were replayed too often. Nothing was changed.\n",
		n.replay, n.purge, n.keep, n.failed, n.over)
	if made.Checksum != "" {
		fmt.Fprintf(d.env.Stdout, "The plan %s is in %s. Next: worker dlq apply %s\n", made.ID, p.out, p.out)
	}
	return nil
}
