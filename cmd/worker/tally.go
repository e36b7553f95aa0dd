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

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/local"
	"github.com/sourcegraph/telemetry-relay/internal/local/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// tally is what `worker local` saw the gateway record.
type tally struct {
	out  io.Writer
	live bool // tell each event as it comes

	mu       sync.Mutex
	recorded map[gatewayserver.Identity]int
	rejected int // told so far
	second   time.Time
	told     int // in this second
}

// tellAtMost lines a second: a load is not for reading.
const tellAtMost = 20

func newTally(out io.Writer, live bool) *tally {
	return &tally{out: out, live: live, recorded: map[gatewayserver.Identity]int{}}
}

// record is called for each recorded event.
func (t *tally) record(r gatewayserver.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recorded[r.Identity]++
	if t.live {
		t.tell("recorded  %s/%s  %s/%s  %s", r.ServiceID, r.Environment, r.Event.GetFeature(), r.Event.GetAction(), r.Event.GetId())
	}
}

// rejections tells what was dead-lettered since the last time.
func (t *tally) rejections(house *local.House) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if house.PubSub.Stats(local.DeadLetterSubscription).Backlog == t.rejected {
		return
	}
	letters := house.DeadLetters()
	for _, m := range letters[min(t.rejected, len(letters)):] {
		t.tell("rejected  %s  %s", m.GetAttributes()[dlq.AttrReason], m.GetAttributes()[dlq.AttrDetail])
	}
	t.rejected = len(letters)
}

// tell prints a line. The caller holds mu.
func (t *tally) tell(format string, args ...any) {
	now := time.Now().Truncate(time.Second)
	if now != t.second {
		if t.told > tellAtMost {
			fmt.Fprintf(t.out, "… and %s more\n", humanize.Comma(int64(t.told-tellAtMost)))
		}
		t.second, t.told = now, 0
	}
	if t.told++; t.told <= tellAtMost {
		fmt.Fprintf(t.out, format+"\n", args...)
	}
}

// summary says what became of the events.
func (t *tally) summary(house *local.House, s relay.Summary, opts localOptions) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := tabwriter.NewWriter(t.out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\nRecorded by the gateway\n\n   SERVICE\tENVIRONMENT\tEVENTS\n")
	for _, id := range slices.SortedFunc(maps.Keys(t.recorded), func(a, b gatewayserver.Identity) int {
		return cmp.Or(cmp.Compare(a.ServiceID, b.ServiceID), cmp.Compare(a.Environment, b.Environment))
	}) {
		fmt.Fprintf(w, "   %s\t%s\t%s\n", id.ServiceID, id.Environment, humanize.Comma(int64(t.recorded[id])))
	}
	if letters := house.DeadLetters(); len(letters) > 0 {
		fmt.Fprintf(w, "\nRejected, and now in the dead-letter queue\n\n   REASON\tWHY\n")
		const most = 20
		for _, m := range letters[:min(most, len(letters))] {
			fmt.Fprintf(w, "   %s\t%s\n", m.GetAttributes()[dlq.AttrReason], m.GetAttributes()[dlq.AttrDetail])
		}
		if more := len(letters) - most; more > 0 {
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
