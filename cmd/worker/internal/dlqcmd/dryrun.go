package dlqcmd

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// dryRun is a sink that changes nothing. It collects what a replay would change.
type dryRun struct {
	changes    fieldChanges
	expression string // of the fix; empty without one
	groups     dlq.Stats
	sample     atomic.Pointer[pubsubpb.PubsubMessage] // any message, where there is no fix
}

func (r *dryRun) Publish(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
	r.sample.CompareAndSwap(nil, messages[0])
	return nil
}

func (r *dryRun) Remove(context.Context, []string) error { return nil }

// add compares one event before and after the fix.
func (r *dryRun) add(s *dlq.Stored, before, after []byte) {
	r.changes.compare(dlq.GroupOf(s), s, r.expression, before, after)
}

// print says what a replay would do. The result itself goes to stdout.
func (r *dryRun) print(would, fail, skipped int) {
	for _, g := range r.groups.Groups() {
		fmt.Fprintf(r.changes.out, "%7d  %s  %s  %s  %s\n", g.Count, cell(g.Reason), cell(g.Service), eventName(g.Feature, g.Action), cell(g.Detail))
		r.changes.printChanges(g.Group)
	}
	if m := r.sample.Load(); m != nil && r.expression == "" {
		view := dlq.ViewOfData(m.GetData(), r.changes.reveal)
		fmt.Fprintf(r.changes.out, "One of them would be published as:\n%s\n", view)
		r.changes.printHidden(view.HiddenBytes)
	}
	fmt.Fprintf(r.changes.out, "A dry run at %s: %d would be replayed, %d would fail, %d were replayed too often before. Nothing was changed.\n",
		time.Now().UTC().Format(time.RFC3339), would, fail, skipped)
}
