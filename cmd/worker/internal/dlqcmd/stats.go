package dlqcmd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

func (root commands) statsCommand() *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "what is in the dead-letter queue, by fault",
		Description: "Counts the messages by fault: a reason, a service and a detail without the values that\n" +
			"differ from event to event. For each fault it prints its id (for --fault of every command),\n" +
			"the first and the last rejection, the rejections of each of the last 24 hours, the share\n" +
			"that was replayed and came back, the releases of the service that have it, the owner, and\n" +
			"a sample. The queue stays as it is.\n" +
			"Messages that another process has leased do not come. The count is compared with that of\n" +
			"Cloud Monitoring (roles/monitoring.viewer); without it, it is \"at least N\".\n\n" +
			"Examples:\n\n" +
			"   worker dlq stats\n" +
			"   worker dlq stats --service sams --since 24h --output json",
		DisableSliceFlagSeparator: true,
		Flags: append(filterFlags(), formatFlag("table", "json"),
			&cli.IntFlag{Name: "top", Value: defaultTop, Usage: "print the `N` largest faults; 0 means all"}),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			d, err := root.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			d.queue.looks = true
			return stats(ctx, d, c.Int("top"))
		},
	}
}

// stats reads the queue, and prints its faults.
func stats(ctx context.Context, d *session, top int) error {
	var all dlq.Stats
	faults := dlq.Faults{Now: time.Now()}
	err := d.queue.walk(ctx, d.filter, true, func(w *dlq.Walk) error {
		return w.Each(ctx, func(l *dlq.Stored) error { all.Add(l); faults.Add(l); return nil }, nil)
	})
	if err != nil {
		return err
	}
	d.queue.compareWith(ctx, d.backlog)
	counts := faults.Counts()
	for _, f := range counts {
		f.Owner, f.Runbook = ownerOf(d.cfg.Services, f.Service)
	}
	if d.format == "json" {
		groups := all.Groups()
		for _, g := range groups {
			g.Owner, g.Runbook = ownerOf(d.cfg.Services, g.Service)
		}
		return command.PrintJSON(d.env.Stdout, statsJSON(&all, counts, groups, !d.queue.complete))
	}
	return printStats(d, &all, counts, top)
}

type statsOutput struct {
	Count          int               `json:"count"`
	ReplayedBefore int               `json:"replayed_before"`
	Oldest         *time.Time        `json:"oldest"`
	Newest         *time.Time        `json:"newest"`
	Groups         []*dlq.GroupCount `json:"groups"`
	Faults         []*dlq.FaultCount `json:"faults"`
	// CountAtLeast says that Count is a lower bound.
	CountAtLeast bool `json:"count_at_least,omitempty"`
}

func statsJSON(s *dlq.Stats, faults []*dlq.FaultCount, groups []*dlq.GroupCount, least bool) statsOutput {
	out := statsOutput{Count: s.Count, ReplayedBefore: s.ReplayedBefore, Faults: faults, Groups: groups, CountAtLeast: least}
	if s.Count > 0 {
		out.Oldest, out.Newest = &s.Oldest, &s.Newest
	}
	if groups == nil {
		out.Faults, out.Groups = []*dlq.FaultCount{}, []*dlq.GroupCount{}
	}
	return out
}

// defaultTop is how many faults stats prints.
const defaultTop = 20

func printStats(d *session, s *dlq.Stats, faults []*dlq.FaultCount, top int) error {
	if s.Count == 0 {
		_, err := fmt.Fprintln(d.env.Stdout, noMessages(d.queue.complete))
		return err
	}
	rest, restCount := 0, 0
	if top > 0 && len(faults) > top {
		for _, f := range faults[top:] {
			rest, restCount = rest+1, restCount+f.Count
		}
		faults = faults[:top]
	}
	t := statsTable{style: stylerFor(d.env, d.env.Stdout), width: terminal.Width(d.env.Stdout), now: time.Now()}
	var out strings.Builder
	t.print(&out, faults)
	if rest > 0 {
		fmt.Fprintf(&out, "… and %s with %s; --top 0 shows all\n", command.Plural(rest, "fault"), command.Plural(restCount, "message"))
	}
	fmt.Fprintf(&out, "\n%s messages from %s to %s\n%s of them were replayed before\n",
		d.queue.atLeast(s.Count), shortTime(s.Oldest), shortTime(s.Newest), command.Comma(s.ReplayedBefore))
	_, err := io.WriteString(d.env.Stdout, out.String())
	return err
}

// noMessages returns the text of stats when no message came.
func noMessages(complete bool) string {
	if complete {
		return "no dead-lettered messages"
	}
	return "no dead-lettered messages that are free to read"
}

// cell is a value in a table: never empty, and without controls.
func cell(s string) string {
	if s == "" {
		return "-"
	}
	return terminal.Clean(s)
}

func eventName(feature, action string) string {
	if feature == "" && action == "" {
		return "-"
	}
	return cell(feature) + "/" + cell(action)
}

func shortTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
