package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/livepage"
	"github.com/sourcegraph/telemetry-relay/internal/devstack"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// localReport counts the outcomes of the events of `worker local` for a summary, and prints
// each event as it arrives.
type localReport struct {
	out  io.Writer
	feed *livepage.Feed // nil: nothing is shown until the summary

	mu       sync.Mutex
	recorded map[gatewayserver.Identity]int
	rejected []event.Rejection // the first maxRejected
	second   time.Time
	printed  int // in this second
}

const (
	// maxPerSecond bounds the rows that are printed in a second, because no one can read
	// more.
	maxPerSecond = 20
	// maxRejected bounds the rejections in the summary.
	maxRejected = 20
)

func newLocalReport(out io.Writer, live bool) *localReport {
	r := &localReport{out: out, recorded: map[gatewayserver.Identity]int{}}
	if live {
		r.feed = livepage.NewFeed()
	}
	return r
}

// record is called for each recorded event.
func (r *localReport) record(e gatewayserver.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recorded[e.Identity]++
	if r.feed == nil {
		return
	}
	params := e.Event.GetParameters()
	shown := r.feed.Add(livepage.Event{
		Time: time.Now(), Service: e.ServiceID, Environment: e.Environment,
		Feature: e.Event.GetFeature(), Action: e.Event.GetAction(), ID: e.Event.GetId(),
		Metadata: metadata(params.GetMetadata()), PrivateFields: len(params.GetPrivateMetadata().GetFields()),
	})
	r.print("recorded  %s/%s  %s/%s  %s", shown.Service, shown.Environment, shown.Feature, shown.Action, shown.ID)
}

// metadata shows the first keys of an event's metadata, with their values.
func metadata(all map[string]float64) string {
	const most = 8
	var b strings.Builder
	for i, key := range slices.Sorted(maps.Keys(all)) {
		if i == most {
			fmt.Fprintf(&b, "and %d more", len(all)-most)
			break
		}
		fmt.Fprintf(&b, "%s=%v ", key, all[key])
	}
	return strings.TrimSuffix(b.String(), " ")
}

// reject is called for each event that was dead-lettered.
func (r *localReport) reject(d *dlq.DeadLetter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rejected) < maxRejected {
		r.rejected = append(r.rejected, d.Rejection)
	}
	if r.feed == nil {
		return
	}
	feature, action := d.Name()
	e := r.feed.Add(livepage.Event{
		Time:    time.Now(),
		Service: d.Attributes[event.AttrServiceID], Environment: cmp.Or(d.Attributes[event.AttrServiceEnvironment], devstack.Environment),
		Feature: feature, Action: action, ID: d.Rejection.EventID,
		Reason: string(d.Rejection.Reason), Detail: d.Rejection.Detail,
	})
	r.print("rejected  %s/%s  %s/%s  %s: %s", cmp.Or(e.Service, "-"), e.Environment, cmp.Or(e.Feature, "-"), cmp.Or(e.Action, "-"), e.Reason, e.Detail)
}

// print prints a row. The caller holds mu.
func (r *localReport) print(format string, args ...any) {
	now := time.Now().Truncate(time.Second)
	if now != r.second {
		if r.printed > maxPerSecond {
			fmt.Fprintf(r.out, "… and %s more\n", command.Comma(r.printed-maxPerSecond))
		}
		r.second, r.printed = now, 0
	}
	if r.printed++; r.printed <= maxPerSecond {
		fmt.Fprintf(r.out, format+"\n", args...)
	}
}

// summary prints the outcomes of the events.
func (r *localReport) summary(s relay.Summary, opts localOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := tabwriter.NewWriter(r.out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\nRecorded by the gateway\n\n   SERVICE\tENVIRONMENT\tEVENTS\n")
	for _, id := range slices.SortedFunc(maps.Keys(r.recorded), func(a, b gatewayserver.Identity) int {
		return cmp.Or(cmp.Compare(a.ServiceID, b.ServiceID), cmp.Compare(a.Environment, b.Environment))
	}) {
		fmt.Fprintf(w, "   %s\t%s\t%s\n", id.ServiceID, id.Environment, command.Comma(r.recorded[id]))
	}
	if len(r.rejected) > 0 {
		fmt.Fprintf(w, "\nRejected, and now in the dead-letter queue\n\n   REASON\tWHY\n")
		for _, rejection := range r.rejected {
			fmt.Fprintf(w, "   %s\t%s\n", rejection.Reason, rejection.Detail)
		}
		if more := s.AllRejected() - len(r.rejected); more > 0 {
			fmt.Fprintf(w, "   …\tand %s more\n", command.Comma(more))
		}
	}
	fmt.Fprintf(w, "\n%s received = %s submitted + %s rejected + %s duplicates + %s released\n",
		command.Comma(s.Received), command.Comma(s.Submitted), command.Comma(s.AllRejected()),
		command.Comma(s.Duplicates), command.Comma(s.Released))
	fmt.Fprintf(w, "%s batches in %.1f s; ended: %s\n", command.Comma(s.Batches), s.DurationSeconds, s.Ended)
	if !opts.keepRunning {
		fmt.Fprintf(w, "\nWhat to try next\n\n"+
			"   worker local --keep-running\tpoint your own service at it\n"+
			"   worker local --events 100000\tsee how fast it is\n"+
			"   worker --help\tall commands\n")
	}
	return w.Flush()
}
