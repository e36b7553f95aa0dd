package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sourcegraph/telemetry-relay/internal/devstack"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// localReport counts what the gateway of `worker local` records, for a summary.
type localReport struct {
	out  io.Writer
	live bool // print each event as it is recorded

	mu       sync.Mutex
	recorded map[gatewayserver.Identity]int
	rejected int // printed so far
	second   time.Time
	printed  int // in this second
}

// maxPerSecond bounds the rows of a second: nobody reads more.
const maxPerSecond = 20

func newLocalReport(out io.Writer, live bool) *localReport {
	return &localReport{out: out, live: live, recorded: map[gatewayserver.Identity]int{}}
}

// record is called for each recorded event.
func (r *localReport) record(e gatewayserver.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recorded[e.Identity]++
	if r.live {
		r.print("recorded  %s/%s  %s/%s  %s", e.ServiceID, e.Environment, e.Event.GetFeature(), e.Event.GetAction(), e.Event.GetId())
	}
}

// rejections prints the messages that were dead-lettered since the last call.
func (r *localReport) rejections(stack *devstack.Stack) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if stack.DeadLetterCount() == r.rejected {
		return
	}
	messages := stack.DeadLetters()
	for _, m := range messages[min(r.rejected, len(messages)):] {
		r.print("rejected  %s  %s", m.GetAttributes()[dlq.AttrReason], m.GetAttributes()[dlq.AttrDetail])
	}
	r.rejected = len(messages)
}

// print prints a row. The caller holds mu.
func (r *localReport) print(format string, args ...any) {
	now := time.Now().Truncate(time.Second)
	if now != r.second {
		if r.printed > maxPerSecond {
			fmt.Fprintf(r.out, "… and %s more\n", humanize.Comma(int64(r.printed-maxPerSecond)))
		}
		r.second, r.printed = now, 0
	}
	if r.printed++; r.printed <= maxPerSecond {
		fmt.Fprintf(r.out, format+"\n", args...)
	}
}

// summary prints what became of the events.
func (r *localReport) summary(stack *devstack.Stack, s relay.Summary, opts localOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := tabwriter.NewWriter(r.out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\nRecorded by the gateway\n\n   SERVICE\tENVIRONMENT\tEVENTS\n")
	for _, id := range slices.SortedFunc(maps.Keys(r.recorded), func(a, b gatewayserver.Identity) int {
		return cmp.Or(cmp.Compare(a.ServiceID, b.ServiceID), cmp.Compare(a.Environment, b.Environment))
	}) {
		fmt.Fprintf(w, "   %s\t%s\t%s\n", id.ServiceID, id.Environment, humanize.Comma(int64(r.recorded[id])))
	}
	if messages := stack.DeadLetters(); len(messages) > 0 {
		fmt.Fprintf(w, "\nRejected, and now in the dead-letter queue\n\n   REASON\tWHY\n")
		const limit = 20
		for _, m := range messages[:min(limit, len(messages))] {
			fmt.Fprintf(w, "   %s\t%s\n", m.GetAttributes()[dlq.AttrReason], m.GetAttributes()[dlq.AttrDetail])
		}
		if more := len(messages) - limit; more > 0 {
			fmt.Fprintf(w, "   …\tand %s more\n", humanize.Comma(int64(more)))
		}
	}
	fmt.Fprintf(w, "\n%s received = %s submitted + %s rejected + %s duplicates + %s released\n",
		humanize.Comma(int64(s.Received)), humanize.Comma(int64(s.Submitted)), humanize.Comma(int64(s.AllRejected())),
		humanize.Comma(int64(s.Duplicates)), humanize.Comma(int64(s.Released)))
	fmt.Fprintf(w, "%s batches in %.1f s; ended: %s\n", humanize.Comma(int64(s.Batches)), s.DurationSeconds, s.Ended)
	if !opts.keepRunning {
		fmt.Fprintf(w, "\nWhat to try next\n\n"+
			"   worker local --keep-running\tpoint your own service at it\n"+
			"   worker local --events 100000\tsee how fast it is\n"+
			"   worker --help\tall commands\n")
	}
	return w.Flush()
}
