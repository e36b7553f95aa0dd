package dlqcmd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

func (env commands) statscommand() *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "what is in the dead-letter queue, by fault",
		Description: "Counts the messages by fault: a reason, a service and a detail without the values that\n" +
			"differ from event to event. For each fault it prints its id (for --fault of every command),\n" +
			"the first and the last rejection, the rejections of each of the last 24 hours, the share\n" +
			"that was replayed and came back, the releases of the service that have it, the owner, and\n" +
			"a sample. The queue stays as it is.\n" +
			"Messages that somebody else has leased do not come. The count is compared with that of\n" +
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
			d, err := env.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			d.looks = true
			var stats dlq.Stats
			faults := dlq.Faults{Now: time.Now()}
			err = d.walk(ctx, d.filter, true, func(w *dlq.Walk) error {
				return w.Each(ctx, func(l *dlq.Stored) error { stats.Add(l); faults.Add(l); return nil }, nil)
			})
			if err != nil {
				return err
			}
			d.compareWithBacklog(ctx)
			counts := faults.Counts()
			for _, f := range counts {
				f.Owner, f.Runbook = d.owner(f.Service)
			}
			if d.format == "json" {
				groups := stats.Groups()
				for _, g := range groups {
					g.Owner, g.Runbook = d.owner(g.Service)
				}
				return command.PrintJSON(env.Stdout, statsJSON(&stats, counts, groups, !d.complete))
			}
			return d.printStats(&stats, counts, c.Int("top"))
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

const (
	// defaultTop is how many faults stats prints.
	defaultTop = 20
	// minColumn is the width below which a column is not clipped.
	minColumn = 12
)

func (d *session) printStats(s *dlq.Stats, faults []*dlq.FaultCount, top int) error {
	if s.Count == 0 {
		_, err := fmt.Fprintln(d.env.Stdout, d.none())
		return err
	}
	rest, restCount := 0, 0
	if top > 0 && len(faults) > top {
		for _, f := range faults[top:] {
			rest, restCount = rest+1, restCount+f.Count
		}
		faults = faults[:top]
	}
	t := statsTable{styler: d.env.styler(d.env.Stdout), width: terminal.Width(d.env.Stdout), now: time.Now()}
	var out strings.Builder
	t.print(&out, faults)
	if rest > 0 {
		fmt.Fprintf(&out, "… and %s with %s; --top 0 shows all\n", command.Plural(rest, "fault"), command.Plural(restCount, "message"))
	}
	fmt.Fprintf(&out, "\n%s messages from %s to %s\n%s of them were replayed before\n",
		d.atLeast(s.Count), shortTime(s.Oldest), shortTime(s.Newest), command.Comma(s.ReplayedBefore))
	_, err := io.WriteString(d.env.Stdout, out.String())
	return err
}

// none is what stats prints when no message came.
func (d *session) none() string {
	if d.complete {
		return "no dead-lettered messages"
	}
	return "no dead-lettered messages that are free to read"
}

// statsTable prints the faults of stats.
type statsTable struct {
	styler
	width int // columns of the terminal; 0: no limit
	now   time.Time
}

// The columns of statsTable that print needs by number.
const (
	faultColumn  = 0
	reasonColumn = 2
	nameColumns  = 2 // reason and service: they give way on a narrow terminal
)

func (t *statsTable) print(out *strings.Builder, faults []*dlq.FaultCount) {
	plain := [][]string{{"FAULT", "COUNT", "REASON", "SERVICE", "FIRST", "LAST", "CAME BACK"}}
	for _, f := range faults {
		plain = append(plain, []string{
			cell(f.ID), command.Comma(f.Count), cell(f.Reason), cell(f.Service),
			dlq.Ago(f.First, t.now), dlq.Ago(f.Last, t.now), fmt.Sprintf("%d%%", 100*f.CameBack/f.Count),
		})
	}
	widths := t.fit(plain)
	for i, cells := range plain {
		for c := range cells {
			text := clip(cells[c], widths[c])
			padding := strings.Repeat(" ", widths[c]-utf8.RuneCountInString(text)+2)
			switch {
			case i > 0 && c == reasonColumn:
				text = t.reason(faults[i-1].Reason, text)
			case i == 0 || c == faultColumn:
				text = t.paint(colourHead, text)
			}
			out.WriteString(text)
			if c < len(cells)-1 {
				out.WriteString(padding)
			}
		}
		out.WriteString("\n")
		if i > 0 {
			t.details(out, faults[i-1])
		}
	}
}

// details prints what is known of a fault below its row.
func (t *statsTable) details(out *strings.Builder, f *dlq.FaultCount) {
	t.below(out, cell(f.Detail), "")
	hours, style := perHour(f), ""
	if f.Trend == dlq.Growing {
		style = colourBad
	}
	t.below(out, hours, style)
	where := events(f)
	if len(f.Releases) > 0 {
		where += "; " + releases(f)
	}
	t.below(out, where, "")
	if f.Owner != "" || f.Runbook != "" {
		t.below(out, strings.TrimSpace(cell(f.Owner)+"  "+terminal.Clean(f.Runbook)), colourHelp)
	}
	t.below(out, "next: worker dlq show "+f.Sample, "")
}

// events says which events have the fault.
func events(f *dlq.FaultCount) string {
	name := eventName(f.Feature, f.Action)
	if f.Features > 1 {
		name = command.Plural(f.Features, "feature")
	}
	return fmt.Sprintf("%s in %s", name, cell(strings.Join(f.Environments, ", ")))
}

// perHour describes the rejections of the last hours.
func perHour(f *dlq.FaultCount) string {
	if f.Trend == dlq.Old {
		return fmt.Sprintf("none in the last %d h", len(f.Hours))
	}
	// The trend is first, because a narrow terminal clips the end.
	return fmt.Sprintf("%s: %s per hour in %d h, %s in the last", f.Trend, dlq.Sparkline(f.Hours), len(f.Hours),
		command.Comma(f.Hours[len(f.Hours)-1]))
}

// maxReleasesShown bounds the releases in the table, with the fault and without it.
const maxReleasesShown = 4

// releases says which releases of the service have the fault.
func releases(f *dlq.FaultCount) string {
	var have []string
	for _, r := range f.Releases[:min(len(f.Releases), maxReleasesShown)] {
		have = append(have, fmt.Sprintf("%s × %s", cell(r.Version), command.Comma(r.Count)))
	}
	text := "releases " + strings.Join(have, ", ")
	if more := len(f.Releases) - maxReleasesShown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if len(f.Other) > 0 {
		text += "; none from " + terminal.Clean(strings.Join(f.Other[:min(len(f.Other), maxReleasesShown)], ", "))
	}
	return text
}

// below prints a sentence below a row, which would make the table too wide.
func (t *statsTable) below(out *strings.Builder, text, style string) {
	const indent = "          "
	if t.width > 0 {
		text = clip(text, max(minColumn, t.width-len(indent)))
	}
	out.WriteString(indent + t.paint(style, text) + "\n")
}

// fit returns the widths of the columns. On a terminal the widest of the columns with
// names give way until the row fits.
func (t *statsTable) fit(cells [][]string) []int {
	widths := make([]int, len(cells[0]))
	for _, row := range cells {
		for c, text := range row {
			widths[c] = max(widths[c], utf8.RuneCountInString(text))
		}
	}
	total := func() (n int) {
		for _, w := range widths {
			n += w + 2
		}
		return n - 2
	}
	for t.width > 0 && total() > t.width {
		widest := reasonColumn
		for c := reasonColumn + 1; c < reasonColumn+nameColumns; c++ {
			if widths[c] > widths[widest] {
				widest = c
			}
		}
		if widths[widest] <= minColumn {
			break
		}
		widths[widest]--
	}
	return widths
}

// clip shortens a text to a width in characters.
func clip(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	return string(runes[:width-1]) + "…"
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
