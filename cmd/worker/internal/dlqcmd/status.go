package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

func (root commands) statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "how far a plan is, and what became of its events",
		ArgsUsage: "PLAN",
		Description: "Reads the journal of the plan, and the receipts in RECEIPTS_SUBSCRIPTION, with which the\n" +
			"worker says what became of replayed events. It takes the plan's own receipts into the\n" +
			"journal and gives the others back. An event without a receipt is waiting, or its receipt\n" +
			"was lost: nothing is known of it. The dead-letter queue is not read.\n\n" +
			"Example:\n\n" +
			"   worker dlq status plan.json",
		Flags: []cli.Flag{formatFlag("table", "json", "ndjson")},
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
			if err := p.CheckQueue(planQueue(d.cfg)); err != nil {
				return command.Usage(fmt.Errorf("%s: %w", path, err))
			}
			state, err := stateOf(ctx, d, path, p)
			if state == nil {
				return err
			}
			return errors.Join(printStatus(d, path, p, state), err)
		},
	}
}

// stateOf returns how far the plan is, with the receipts that there are now. With an error
// of the receipts it returns the state as well.
func stateOf(ctx context.Context, d *session, path string, p *plan.Plan) (*plan.State, error) {
	journal := plan.JournalOf(path)
	state, err := plan.ReadJournal(journal, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", journal, err)
	}
	if state.Runs == 0 || !d.receipts.there() {
		return state, nil
	}
	j, err := plan.OpenJournal(journal, p)
	if errors.Is(err, plan.ErrBusy) {
		d.console.say("worker: the plan is being applied; the receipts since its last look are not counted here")
		return state, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", journal, err)
	}
	err = d.receipts.ofReplay(ctx, p.ID, journaled(j.State, j.Append))
	return j.State, errors.Join(err, j.Close())
}

type statusOutput struct {
	Plan      string     `json:"plan"`
	CreatedAt time.Time  `json:"created_at"`
	Runs      int        `json:"runs"`
	LastAt    *time.Time `json:"last_at"`
	Ended     string     `json:"ended,omitempty"`
	plan.Counts
	// Receipts says that receipts are read: without them waiting means not known.
	Receipts bool         `json:"receipts"`
	Groups   []groupState `json:"groups"`
}

type groupState struct {
	Fault   string      `json:"fault"`
	Reason  string      `json:"reason"`
	Service string      `json:"service"`
	Action  plan.Action `json:"action"`
	plan.Counts
	RejectedFor map[string]int `json:"rejected_for,omitempty"`
}

func printStatus(d *session, path string, p *plan.Plan, s *plan.State) error {
	receipts := d.receipts.there()
	out := statusOutput{
		Plan: p.ID, CreatedAt: p.CreatedAt, Runs: s.Runs, Ended: s.End, Counts: s.Counts(), Receipts: receipts, Groups: []groupState{},
	}
	if s.Runs > 0 {
		out.LastAt = &s.Last
	}
	for _, g := range s.Groups() {
		out.Groups = append(out.Groups, groupState{g.Fault, g.Reason, g.Service, g.Action, g.Counts, g.Reasons})
	}
	if d.format != "table" {
		return command.PrintJSON(d.env.Stdout, out)
	}
	_, err := io.WriteString(d.env.Stdout, statusText(path, &out, s.Whys()))
	return err
}

// statusText describes how far a plan is.
func statusText(path string, o *statusOutput, whys map[string]int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Plan %s of %s: %s\n", o.Plan, shortTime(o.CreatedAt), command.Plural(o.Planned, "message"))
	for _, g := range o.Groups {
		what := progress(g.Counts, o.Receipts)
		if g.Action == plan.Keep {
			what = "nothing to do"
		}
		fmt.Fprintf(&b, "%s  %s  %s  %s: %s\n", g.Fault, g.Action, cell(g.Reason), cell(g.Service), what)
		for _, reason := range slices.Sorted(maps.Keys(g.RejectedFor)) {
			fmt.Fprintf(&b, "          %s rejected again: %s\n", command.Comma(g.RejectedFor[reason]), cell(reason))
		}
	}
	for _, why := range slices.Sorted(maps.Keys(whys)) {
		fmt.Fprintf(&b, "%s failed: %s\n", command.Comma(whys[why]), cell(dlq.SafeDetail(why)))
	}
	fmt.Fprintf(&b, "In all: %s\n", progress(o.Counts, o.Receipts))
	switch {
	case o.Runs == 0:
		fmt.Fprintf(&b, "It was not applied yet. Next: worker dlq apply %s\n", path)
	case o.Ended == "":
		fmt.Fprintf(&b, "It is being applied, or that was killed; its journal ends at %s. `worker dlq apply %s` goes on.\n", shortTime(*o.LastAt), path)
	case o.Todo+o.Left > 0:
		fmt.Fprintf(&b, "The last run ended: %s. `worker dlq apply %s` goes on.\n", cell(dlq.SafeDetail(o.Ended)), path)
	}
	if o.Published > 0 && !o.Receipts {
		b.WriteString("Whether the published events were recorded is not known: RECEIPTS_SUBSCRIPTION is not set.\n")
	}
	return b.String()
}

// progress counts the messages by their state. Without receipts it says of the published
// messages only how many were seen in the queue again.
func progress(c plan.Counts, receipts bool) string {
	var parts []string
	add := func(always bool, n int, what string) {
		if always || n > 0 {
			parts = append(parts, command.Comma(n)+" "+what)
		}
	}
	publishes := c.Published > 0 || c.Purged == 0
	add(publishes, c.Published, "published")
	add(publishes && receipts, c.Recorded, "recorded")
	add(false, c.Duplicates, "recorded before (duplicates)")
	add(publishes && receipts, c.Rejected, "rejected")
	if receipts {
		add(publishes, c.Waiting, "waiting")
	}
	add(false, c.Purged, "purged")
	add(false, c.Left, "failed")
	add(false, c.Todo, "not done yet")
	return strings.Join(parts, ", ")
}
