package dlqcmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/dustin/go-humanize"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

const (
	// maxSamples bounds the groups with a sample, and maxSample the length of each text
	// of a sample in bytes: together they bound the memory of a dry run.
	maxSamples = 50
	maxSample  = 4 << 10
	// maxChangesShown bounds the distinct changes of a group.
	maxChangesShown = 200
)

// dryRun is a sink that changes nothing. It collects what a replay would change.
type dryRun struct {
	styler
	out        io.Writer
	reveal     bool
	expression string // of the fix; empty without one
	groups     dlq.Stats
	fixed      map[dlq.Group]*groupChanges
	sample     atomic.Pointer[pubsubpb.PubsubMessage] // any message, where there is no fix
}

// groupChanges are the changes of a fix to the events of a group.
type groupChanges struct {
	counts        map[dlq.FieldChange]int
	unchanged     int
	before, after string // of one event; empty beyond maxSamples groups
	hidden        int    // bytes of after
}

func (r *dryRun) Publish(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
	r.sample.CompareAndSwap(nil, messages[0])
	return nil
}

func (r *dryRun) Remove(context.Context, []string) error { return nil }

// add compares one event before and after the fix.
func (r *dryRun) add(s *dlq.Stored, before, after []byte) {
	group := dlq.GroupOf(s)
	g := r.fixed[group]
	if g == nil {
		if r.fixed == nil {
			r.fixed = map[dlq.Group]*groupChanges{}
		}
		g = &groupChanges{counts: map[dlq.FieldChange]int{}}
		if len(r.fixed) < maxSamples {
			from, to := dlq.ViewOfData(before, r.reveal), dlq.ViewOfData(after, r.reveal)
			g.before, g.after, g.hidden = clipped(from.String()), clipped(to.String()), to.HiddenBytes
		}
		r.fixed[group] = g
	}
	changes := dlq.Diff(before, after, func(name string) bool {
		return strings.Contains(r.expression, name) || strings.Contains(s.Detail, name)
	})
	if len(changes) == 0 {
		g.unchanged++
	}
	for _, change := range slices.Compact(changes) {
		if _, ok := g.counts[change]; ok || len(g.counts) < maxChangesShown {
			g.counts[change]++
		}
	}
}

func clipped(text string) string {
	if len(text) <= maxSample {
		return text
	}
	return strings.ToValidUTF8(text[:maxSample], "") + "…"
}

// print says what a replay would do. The result itself goes to stdout.
func (r *dryRun) print(would, fail, skipped int) {
	for _, g := range r.groups.Groups() {
		fmt.Fprintf(r.out, "%7d  %s  %s  %s  %s\n", g.Count, cell(g.Reason), cell(g.Service), eventName(g.Feature, g.Action), cell(g.Detail))
		if changes := r.fixed[g.Group]; changes != nil {
			r.printChanges(changes)
		}
	}
	if m := r.sample.Load(); m != nil && r.expression == "" {
		view := dlq.ViewOfData(m.GetData(), r.reveal)
		fmt.Fprintf(r.out, "One of them would be published as:\n%s\n", view)
		r.printHidden(view.HiddenBytes)
	}
	fmt.Fprintf(r.out, "A dry run at %s: %d would be replayed, %d would fail, %d were replayed too often before. Nothing was changed.\n",
		time.Now().UTC().Format(time.RFC3339), would, fail, skipped)
}

func (r *dryRun) printChanges(g *groupChanges) {
	changes := make([]dlq.FieldChange, 0, len(g.counts))
	for change := range g.counts {
		changes = append(changes, change)
	}
	slices.SortFunc(changes, func(a, b dlq.FieldChange) int {
		return cmp.Or(cmp.Compare(g.counts[b], g.counts[a]), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Change, b.Change))
	})
	for _, change := range changes {
		row := fmt.Sprintf("%s: %s in %s", change.Field, change.Change, humanize.Comma(int64(g.counts[change])))
		style := ""
		if change.Loses {
			row, style = row+"   <── data disappears", colourBad
		}
		fmt.Fprintf(r.out, "         %s\n", r.paint(style, row))
	}
	if g.unchanged > 0 {
		fmt.Fprintf(r.out, "         no change in %s\n", humanize.Comma(int64(g.unchanged)))
	}
	if g.after != "" {
		fmt.Fprintf(r.out, "One of them before:\n%s\nafter:\n%s\n", g.before, g.after)
		r.printHidden(g.hidden)
	}
}

func (r *dryRun) printHidden(n int) {
	if n > 0 {
		fmt.Fprintf(r.out, "%s hidden, because they are private or may be; --reveal shows them.\n", bytesAre(n))
	}
}
