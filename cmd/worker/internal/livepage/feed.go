// Package livepage is the page of `worker local`: it shows, as events arrive, whether
// each was recorded or why it was rejected.
package livepage

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// MaxRows bounds the events on the page, which are the newest ones.
const MaxRows = 200

// maxText bounds the characters that are shown of a publisher's text, and maxDetail those
// of a detail.
const (
	maxText   = 80
	maxDetail = 400
)

// Event is an event with its outcome. Its texts may be anything that a publisher has sent,
// except values of the private metadata.
type Event struct {
	Time                 time.Time
	Service, Environment string
	Feature, Action, ID  string
	// Metadata is the metadata as a text to show.
	Metadata string
	// PrivateFields counts the fields of the private metadata, which are not shown.
	PrivateFields int
	// Reason and Detail say why the event was rejected; Reason is empty if it was
	// recorded.
	Reason, Detail string
}

// row is an event with its number, counted from 1.
type row struct {
	Number uint64
	Event  Event
}

// Counts counts all events since the start.
type Counts struct {
	Recorded, Rejected, Duplicates int
	// Reasons has the rejected events by their reasons, most first.
	Reasons []Reason
}

// Reason counts the events that were rejected for one reason.
type Reason struct {
	Reason string
	Count  int
}

// Feed keeps the newest events, and the counts of all. The worker adds events, and the
// streams of open pages read them. It is safe for concurrent use.
type Feed struct {
	mu      sync.Mutex   // guards what follows
	rows    [MaxRows]row // each at its number modulo MaxRows
	counts  Counts
	reasons map[string]int
	number  uint64        // of the newest event
	changed chan struct{} // closed at the next change; nil if nobody waits for it
}

// NewFeed returns an empty feed.
func NewFeed() *Feed { return &Feed{reasons: map[string]int{}} }

// Add adds an event as the newest one, and returns it as it is shown.
func (f *Feed) Add(e Event) Event {
	for _, text := range []*string{&e.Service, &e.Environment, &e.Feature, &e.Action, &e.ID} {
		*text = clip(terminal.Clean(*text), maxText)
	}
	e.Metadata = clip(terminal.Clean(e.Metadata), maxDetail)
	e.Detail = clip(terminal.Clean(e.Detail), maxDetail)
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Reason == "" {
		f.counts.Recorded++
	} else {
		f.counts.Rejected++
		f.reasons[e.Reason]++ // of a fixed set
	}
	f.number++
	f.rows[f.number%MaxRows] = row{f.number, e}
	f.announce()
	return e
}

// SetDuplicates sets the number of deliveries of events that had arrived before.
func (f *Feed) SetDuplicates(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts.Duplicates != n {
		f.counts.Duplicates = n
		f.announce()
	}
}

// announce wakes the streams that wait for a change. The caller must have locked mu.
func (f *Feed) announce() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// view is the state of a feed at one time.
type view struct {
	Rows   []row // the newest first
	Counts Counts
	// Number is that of the newest event, of all and not only of Rows.
	Number uint64
	// changed is closed at the first change after this view.
	changed <-chan struct{}
}

// since returns the kept events that came after the one with this number.
func (f *Feed) since(number uint64) view {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	v := view{Counts: f.counts, Number: f.number, changed: f.changed}
	for n := f.number; n > number && n > 0 && f.number-n < MaxRows; n-- {
		v.Rows = append(v.Rows, f.rows[n%MaxRows])
	}
	for reason, n := range f.reasons {
		v.Counts.Reasons = append(v.Counts.Reasons, Reason{reason, n})
	}
	slices.SortFunc(v.Counts.Reasons, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	return v
}

// Counts returns the counts of all events.
func (f *Feed) Counts() Counts { return f.since(0).Counts }

// clip shortens a text to at most so many characters, and marks that it did.
func clip(s string, most int) string {
	n := 0
	for i := range s {
		if n == most {
			return s[:i] + "…"
		}
		n++
	}
	return s
}
