package dlqcmd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
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
			"shows the first and the last rejection, and who owns the service. The queue stays as it is.\n" +
			"Messages that somebody else has leased do not come. The count is compared with that of\n" +
			"Cloud Monitoring (roles/monitoring.viewer); without it, it is \"at least N\".\n\n" +
			"Examples:\n\n" +
			"   worker dlq stats\n" +
			"   worker dlq stats --service sams --since 24h --output json",
		DisableSliceFlagSeparator: true,
		Flags: append(filterFlags(), formatFlag("table", "json"),
			&cli.IntFlag{Name: "top", Value: defaultTop, Usage: "print the `N` largest rows; 0 means all"}),
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
			err = d.walk(ctx, d.filter, true, func(w *dlq.Walk) error {
				return w.Each(ctx, func(l *dlq.Stored) error { stats.Add(l); return nil }, nil)
			})
			if err != nil {
				return err
			}
			d.compareWithBacklog(ctx)
			groups := stats.Groups()
			for _, g := range groups {
				g.Owner, g.Runbook = d.owner(g.Service)
			}
			if d.format == "json" {
				return command.PrintJSON(env.Stdout, statsJSON(&stats, groups, !d.complete))
			}
			return d.printStats(&stats, groups, c.Int("top"))
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

const (
	// foldAt is how many features of one fault get rows of their own.
	foldAt = 5
	// defaultTop is how many rows stats prints.
	defaultTop = 20
	// minColumn is the width below which a column is not clipped.
	minColumn = 12
)

func (d *session) printStats(s *dlq.Stats, groups []*dlq.GroupCount, top int) error {
	if s.Count == 0 {
		_, err := fmt.Fprintln(d.env.Stdout, d.none())
		return err
	}
	rows := dlq.Fold(groups, foldAt)
	rest, restCount := 0, 0
	if top > 0 && len(rows) > top {
		for _, r := range rows[top:] {
			rest, restCount = rest+1, restCount+r.Count
		}
		rows = rows[:top]
	}
	t := statsTable{styler: d.env.styler(d.env.Stdout), width: terminal.Width(d.env.Stdout), now: time.Now()}
	var out strings.Builder
	t.print(&out, rows)
	if rest > 0 {
		fmt.Fprintf(&out, "… and %s with %s; --top 0 shows all\n", command.Plural(rest, "row"), command.Plural(restCount, "message"))
	}
	fmt.Fprintf(&out, "\n%s messages from %s to %s\n%s of them were replayed before\n",
		d.atLeast(s.Count), shortTime(s.Oldest), shortTime(s.Newest), humanize.Comma(int64(s.ReplayedBefore)))
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

// statsTable prints the rows of stats.
type statsTable struct {
	styler
	width int // columns of the terminal; 0: no limit
	now   time.Time
}

func (t *statsTable) print(out *strings.Builder, rows []dlq.Row) {
	head := []string{"COUNT", "REASON", "SERVICE", "FEATURE/ACTION", "FIRST", "LAST", "REPLAYED"}
	plain := [][]string{head}
	for _, r := range rows {
		service := cell(r.Service)
		if manyEnvironments(rows) {
			service += " (" + cell(r.Environment) + ")"
		}
		feature := eventName(r.Feature, r.Action)
		if r.Features > 1 {
			feature = command.Plural(r.Features, "feature")
		}
		plain = append(plain, []string{
			humanize.Comma(int64(r.Count)), cell(r.Reason), service, feature, age(r.First, t.now), age(r.Last, t.now),
			fmt.Sprintf("%d%%", 100*r.ReplayedBefore/r.Count),
		})
	}
	widths := t.fit(plain)
	for i, cells := range plain {
		for c := range cells {
			last := c == len(cells)-1
			style := map[bool]string{true: colourHead}[i == 0 || c == 0]
			text := clip(cells[c], widths[c])
			padding := strings.Repeat(" ", widths[c]-utf8.RuneCountInString(text)+2)
			switch {
			case i > 0 && c == 1:
				text = t.reason(rows[i-1].Reason, text)
			default:
				text = t.paint(style, text)
			}
			out.WriteString(text)
			if !last {
				out.WriteString(padding)
			}
		}
		out.WriteString("\n")
		if i == 0 {
			continue
		}
		r := rows[i-1]
		t.below(out, cell(r.Detail), "")
		if r.Owner != "" || r.Runbook != "" {
			t.below(out, strings.TrimSpace(cell(r.Owner)+"  "+terminal.Clean(r.Runbook)), colourHelp)
		}
	}
}

// below prints a sentence below a row, which would make the table too wide.
func (t *statsTable) below(out *strings.Builder, text, style string) {
	const indent = "       "
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
		widest := 1
		for c := 2; c <= 3; c++ {
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

func manyEnvironments(rows []dlq.Row) bool {
	for _, r := range rows {
		if r.Environment != rows[0].Environment {
			return true
		}
	}
	return false
}

// clip shortens a text to a width in characters.
func clip(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	return string(runes[:width-1]) + "…"
}

// age says how long ago a time was, in its largest unit.
func age(t, now time.Time) string {
	const day = 24 * time.Hour
	switch d := now.Sub(t); {
	case d < time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	default:
		return fmt.Sprintf("%d d ago", d/day)
	}
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
