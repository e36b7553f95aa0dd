// Package trial tries a fix on dead-lettered messages as a replay would, without changing
// anything. It counts the events that would pass the worker's own check, the causes for
// which the others would be rejected again, and the fields that the fix changes.
package trial

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// maxCauses bounds the distinct causes that are counted; the others count together.
const maxCauses = 50

// otherCauses stands for the causes beyond maxCauses.
const otherCauses = "other causes"

// Trial tries one fix. It is not safe for concurrent use.
type Trial struct {
	replayer *dlq.Replayer
	fix      *dlq.Fix

	// Tried is the sum of Passed, Failed and TooOften.
	Tried, Passed, Failed int
	// TooOften were replayed so often before that a replay excludes them.
	TooOften int
	// Changes are those of the events that pass.
	Changes dlq.Changes
	causes  map[string]*Cause

	last Outcome // of the event that is being tried
}

// Cause is a cause for which events would fail.
type Cause struct {
	// Reason is that of the worker's rejection; empty if the fix itself fails.
	Reason event.Reason
	// Why is a sentence that is safe to show.
	Why   string
	Count int
	// Sample is an id of one of them, as show takes it.
	Sample string
}

// Outcome is what the fix does to one event.
type Outcome struct {
	// After is the data that would be published; nil if none would.
	After []byte
	// Why says why nothing would be published; it is safe to show.
	Why string
}

// New returns a trial of a fix; a nil fix replays events as they are. check returns why the
// worker would reject a message.
func New(fix *dlq.Fix, check func(event.Message) *event.Rejection, maxReplays int) *Trial {
	t := &Trial{fix: fix, causes: map[string]*Cause{}}
	t.replayer = &dlq.Replayer{
		Sink: dlq.Nowhere{}, Check: check, MaxReplays: maxReplays,
		FixOf:      func(*dlq.Stored) *dlq.Fix { return fix },
		OnFixed:    t.passed,
		OnReplayed: func(*dlq.Stored, *pubsubpb.PubsubMessage) { t.Passed++ },
		Report:     t.failed,
	}
	return t
}

func (t *Trial) passed(s *dlq.Stored, before, after []byte) {
	t.Changes.Add(s, t.fix.Expression, before, after)
	t.last.After = after
}

func (t *Trial) failed(s *dlq.Stored, err error) {
	cause := Cause{Why: dlq.SafeDetail(err.Error()), Sample: dlq.SampleID(s)}
	if rejection, ok := errors.AsType[*event.Rejection](err); ok {
		cause.Reason = rejection.Reason
		// A normalized detail, so that rejections of the same kind count together.
		cause.Why = dlq.FaultOf(&dlq.Stored{Reason: rejection.Reason, Detail: rejection.Detail}).Detail
	}
	t.last.Why = dlq.SafeDetail(err.Error())
	if s.Replays >= t.replayer.MaxReplays {
		t.TooOften++
		return
	}
	t.Failed++
	key := string(cause.Reason) + "\n" + cause.Why
	if t.causes[key] == nil && len(t.causes) >= maxCauses {
		key, cause = otherCauses, Cause{Why: otherCauses, Sample: cause.Sample}
	}
	if t.causes[key] == nil {
		t.causes[key] = &cause
	}
	t.causes[key].Count++
}

// Try tries one event and returns its outcome. It consumes the event's data. An error means
// that the context has ended.
func (t *Trial) Try(ctx context.Context, s *dlq.Stored) (Outcome, error) {
	t.last = Outcome{}
	data := s.Original.Data
	t.Tried++
	if err := errors.Join(t.replayer.Add(ctx, s), t.replayer.Flush(ctx)); err != nil {
		return Outcome{}, err
	}
	if t.fix == nil && t.last.Why == "" {
		t.last.After = data
	}
	return t.last, nil
}

// Causes returns why events would fail, the most frequent cause first.
func (t *Trial) Causes() []Cause {
	var all []Cause
	for _, c := range slices.SortedFunc(maps.Values(t.causes), func(a, b *Cause) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Why, b.Why))
	}) {
		all = append(all, *c)
	}
	return all
}
