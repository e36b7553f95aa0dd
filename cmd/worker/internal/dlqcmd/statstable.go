package dlqcmd

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// minColumn is the width below which a column is not clipped.
const minColumn = 12

// statsTable prints the faults of stats.
type statsTable struct {
	style styler
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
				text = t.style.reason(faults[i-1].Reason, text)
			case i == 0 || c == faultColumn:
				text = t.style.paint(colourHead, text)
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

// details prints the details of a fault below its row.
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
	out.WriteString(indent + t.style.paint(style, text) + "\n")
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
