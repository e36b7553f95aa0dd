package dlqui

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

func TestBannerDescribesTheReadings(t *testing.T) {
	read := lastReading{ended: time.Now(), messages: 3, found: Reading{Complete: true, Said: []string{"a"}, Running: dlq.Worker{ServicesDigest: "own"}}}
	partial := read
	partial.found.Complete, partial.found.Running.ServicesDigest = false, "other"
	gone := errors.New("gone")
	for _, c := range []struct {
		name    string
		status  readerStatus
		again   bool
		atLeast bool
		said    []string
		match   services
	}{
		{"the first reading", readerStatus{phase: goingOn, count: 2}, true, false, nil, servicesUnknown},
		{"the first reading failed", readerStatus{phase: failed, failure: gone}, false, false, nil, servicesUnknown},
		{"read", readerStatus{last: read}, false, false, []string{"a"}, servicesMatch},
		{"read in part", readerStatus{last: partial}, false, true, []string{"a"}, servicesDiffer},
		{"read again", readerStatus{phase: goingOn, last: read}, true, false, []string{"a"}, servicesMatch},
		{"reading again failed", readerStatus{phase: failed, failure: gone, last: read}, false, false, []string{"a", "The queue could not be read again: gone"}, servicesMatch},
	} {
		b := bannerOf(About{ServicesDigest: "own"}, c.status, 2, nil)
		if b.ReadAgain != c.again || b.AtLeast != c.atLeast || !slices.Equal(b.Said, c.said) || b.Match != c.match || b.Messages != c.status.last.messages || b.Planned != 2 {
			t.Errorf("%s: %+v", c.name, b)
		}
	}
}

// TestDraftIsCopied: a page must not see the draft change while it is made.
func TestDraftIsCopied(t *testing.T) {
	replay, purge := plan.Step{Action: plan.Replay}, plan.Step{Action: plan.Purge}
	d := newDraft()
	d.set("a", replay)
	before := d.all()
	d.set("a", purge)
	d.set("b", purge)
	d.drop("a")
	if after := d.all(); len(before) != 1 || before["a"] != replay || len(after) != 1 || after["b"] != purge || d.size() != 1 {
		t.Errorf("%v, %v", before, after)
	}
}
