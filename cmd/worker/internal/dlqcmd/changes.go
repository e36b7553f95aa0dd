package dlqcmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

const (
	// maxSamples bounds the groups with a sample, and maxSample the length of each text
	// of a sample in bytes: together they bound the memory of a comparison.
	maxSamples = 50
	maxSample  = 4 << 10
)

// fieldChanges collects what fixes change in all events of each group.
type fieldChanges struct {
	style   styler
	out     io.Writer
	reveal  bool
	changed map[any]*groupChanges
}

// fieldChangesOf returns a collector that prints to out, as the flags of a command say.
func fieldChangesOf(d *session, out io.Writer) fieldChanges {
	return fieldChanges{style: stylerFor(d.env, out), out: out, reveal: d.reveal}
}

// groupChanges are the changes of a fix to the events of a group.
type groupChanges struct {
	all           dlq.Changes
	before, after string // of one event; empty beyond maxSamples groups
	hidden        int    // bytes of after
}

// compare compares one event of a group before and after a fix.
func (r *fieldChanges) compare(group any, s *dlq.Stored, expression string, before, after []byte) {
	g := r.changed[group]
	if g == nil {
		if r.changed == nil {
			r.changed = map[any]*groupChanges{}
		}
		g = &groupChanges{}
		if len(r.changed) < maxSamples {
			from, to := dlq.ViewOfData(before, r.reveal), dlq.ViewOfData(after, r.reveal)
			g.before, g.after, g.hidden = clipped(from.String()), clipped(to.String()), to.HiddenBytes
		}
		r.changed[group] = g
	}
	g.all.Add(s, expression, before, after)
}

func clipped(text string) string {
	if len(text) <= maxSample {
		return text
	}
	return strings.ToValidUTF8(text[:maxSample], "") + "…"
}

// printChanges prints the changes of a group, if it has any.
func (r *fieldChanges) printChanges(group any) {
	g := r.changed[group]
	if g == nil {
		return
	}
	for _, change := range g.all.Counts() {
		row := fmt.Sprintf("%s: %s in %s", change.Field, change.Change, command.Comma(change.Count))
		style := ""
		if change.Loses {
			row, style = row+"   <── data disappears", colourBad
		}
		fmt.Fprintf(r.out, "         %s\n", r.style.paint(style, row))
	}
	if g.all.Unchanged > 0 {
		fmt.Fprintf(r.out, "         no change in %s\n", command.Comma(g.all.Unchanged))
	}
	if g.after != "" {
		fmt.Fprintf(r.out, "One of them before:\n%s\nafter:\n%s\n", g.before, g.after)
		r.printHidden(g.hidden)
	}
}

func (r *fieldChanges) printHidden(n int) {
	if n > 0 {
		fmt.Fprintf(r.out, "%s hidden, because they are private or may be; --reveal shows them.\n", bytesAre(n))
	}
}
