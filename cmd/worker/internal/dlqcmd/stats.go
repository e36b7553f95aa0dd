package dlqcmd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

func (env commands) statscommand() *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "what is in the dead-letter queue, by fault",
		Description: "Counts the messages by reason, service, environment, feature, action and detail. It\n" +
			"shows the first and the last rejection, and who owns the service. The queue stays as it is.\n\n" +
			"Examples:\n\n" +
			"   worker dlq stats\n" +
			"   worker dlq stats --service sams --since 24h --output json",
		DisableSliceFlagSeparator: true,
		Flags:                     append(filterFlags(), formatFlag("table", "json")),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			d, err := env.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			var stats dlq.Stats
			err = d.walk(ctx, d.filter, true, func(w *dlq.Walk) error {
				return w.Each(ctx, func(l *dlq.Stored) error { stats.Add(l); return nil }, nil)
			})
			if err != nil {
				return err
			}
			groups := stats.Groups()
			for _, g := range groups {
				g.Owner, g.Runbook = d.owner(g.Service)
			}
			if d.format == "json" {
				return command.PrintJSON(env.Stdout, statsJSON(&stats, groups, !d.complete))
			}
			return d.printStats(&stats, groups)
		},
	}
}

// owner returns the owner and the runbook of a service in services.yaml, if any.
func (d *session) owner(service string) (owner, runbook string) {
	for _, s := range d.cfg.Services.Services() {
		if s.ID == service {
			return s.Owner, s.Runbook
		}
	}
	return "", ""
}

type statsOutput struct {
	Count          int               `json:"count"`
	ReplayedBefore int               `json:"replayed_before"`
	Oldest         *time.Time        `json:"oldest"`
	Newest         *time.Time        `json:"newest"`
	Groups         []*dlq.GroupCount `json:"groups"`
	// CountAtLeast says that Count is a lower bound.
	CountAtLeast bool `json:"count_at_least,omitempty"`
}

func statsJSON(s *dlq.Stats, groups []*dlq.GroupCount, least bool) statsOutput {
	out := statsOutput{Count: s.Count, ReplayedBefore: s.ReplayedBefore, Groups: groups, CountAtLeast: least}
	if s.Count > 0 {
		out.Oldest, out.Newest = &s.Oldest, &s.Newest
	}
	if groups == nil {
		out.Groups = []*dlq.GroupCount{}
	}
	return out
}

func (d *session) printStats(s *dlq.Stats, groups []*dlq.GroupCount) error {
	if s.Count == 0 {
		_, err := fmt.Fprintln(d.env.Stdout, "no dead-lettered messages")
		return err
	}
	p := d.env.styler(d.env.Stdout)
	w := table.NewWriter()
	w.SetStyle(table.Style{Box: table.BoxStyle{PaddingRight: "  "}, Options: table.OptionsNoBordersAndSeparators})
	w.SuppressTrailingSpaces()
	var head table.Row
	for _, name := range []string{"COUNT", "REASON", "SERVICE", "ENVIRONMENT", "FEATURE/ACTION", "FIRST", "LAST", "REPLAYED", "OWNER"} {
		head = append(head, p.paint(colourHead, name))
	}
	w.AppendHeader(head)
	for _, g := range groups {
		w.AppendRow(table.Row{
			p.paint(colourHead, humanize.Comma(int64(g.Count))), p.reason(g.Reason, cell(g.Reason)), cell(g.Service), cell(g.Environment),
			eventName(g.Feature, g.Action), p.paint(colourDim, shortTime(g.First)), shortTime(g.Last),
			fmt.Sprintf("%d%%", 100*g.ReplayedBefore/g.Count), cell(g.Owner),
		})
	}
	// The detail is a sentence, and would make the table too wide.
	var out strings.Builder
	for i, row := range strings.Split(w.Render(), "\n") {
		out.WriteString(row + "\n")
		if i == 0 {
			continue
		}
		g := groups[i-1]
		out.WriteString("       " + cell(g.Detail) + "\n")
		if g.Runbook != "" {
			out.WriteString("       " + p.paint(colourHelp, terminal.Clean(g.Runbook)) + "\n")
		}
	}
	if _, err := io.WriteString(d.env.Stdout, out.String()); err != nil {
		return err
	}
	_, err := fmt.Fprintf(d.env.Stdout, "\n%s messages from %s to %s, %s of them replayed before\n",
		d.atLeast(s.Count), shortTime(s.Oldest), shortTime(s.Newest), humanize.Comma(int64(s.ReplayedBefore)))
	return err
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
