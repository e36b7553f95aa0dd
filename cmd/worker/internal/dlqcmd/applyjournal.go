package dlqcmd

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// planJournal is the journal of a plan, and the state of this run.
type planJournal struct {
	plan    *plan.Plan
	say     func(format string, args ...any)
	touched *touched            // guarded by mu, too
	origins map[string]struct{} // of the plan's messages
	skipped skipReport

	mu   sync.Mutex // guards file, done and left: several requests to the topic end at once
	file *plan.Journal
	done plan.Counts         // of this run: only Published, Purged and Left
	left map[string][]string // why messages are left, until the journal has it
	// cameBack are the plan's events that this run has seen in the queue again, by the
	// ids of their new messages. Only the goroutine that reads the queue uses it.
	cameBack map[string]string
}

// newPlanJournal records in a file that it does not close.
func newPlanJournal(p *plan.Plan, file *plan.Journal, say func(format string, args ...any), touched *touched) *planJournal {
	j := &planJournal{
		plan: p, file: file, say: say, touched: touched, skipped: skipReport{say: say},
		origins: map[string]struct{}{}, cameBack: map[string]string{}, left: map[string][]string{},
	}
	for i := range p.Groups {
		for _, origin := range p.Groups[i].Messages {
			j.origins[origin] = struct{}{}
		}
	}
	return j
}

// state returns how far the plan is.
func (j *planJournal) state() *plan.State { return j.file.State }

// record appends to the journal.
func (j *planJournal) record(r ...plan.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file.Append(r...)
}

// publishes returns how many messages are still to be published.
func (j *planJournal) publishes() (n int) {
	for _, g := range j.state().Groups() {
		if g.Action.Publishes() {
			n += g.Counts.Todo + g.Counts.Left
		}
	}
	return n
}

// published records messages that the topic has confirmed.
func (j *planJournal) published(ids []string, canary bool) error {
	records := []plan.Record{{Kind: plan.Published, IDs: ids}}
	if canary {
		records = append(records, plan.Record{Kind: plan.Canaries, IDs: ids})
	}
	if err := j.record(records...); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done.Published += len(ids)
	j.touched.add(ids...)
	return nil
}

// purged records messages that are about to be removed for good.
func (j *planJournal) purged(ids []string) error {
	if err := j.record(plan.Record{Kind: plan.Purged, IDs: ids}); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done.Purged += len(ids)
	j.touched.add(ids...)
	return nil
}

// removed records that messages were acknowledged, unless that has failed with err.
func (j *planJournal) removed(ids []string, err error) error {
	if err != nil {
		return err
	}
	return j.record(plan.Record{Kind: plan.Removed, IDs: ids})
}

// leave notes a message that stays in the queue.
func (j *planJournal) leave(s *dlq.Stored, why error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state().Done(s.ID) {
		return // it was published, and the next run removes it
	}
	j.skipped.add(s, why)
	cause := dlq.SafeDetail(why.Error())
	j.left[cause] = append(j.left[cause], s.ID)
}

// recordLeft records the messages that stay.
func (j *planJournal) recordLeft() error {
	for _, why := range slices.Sorted(maps.Keys(j.left)) {
		ids := j.left[why]
		delete(j.left, why)
		j.done.Left += len(ids)
		if err := j.record(plan.Record{Kind: plan.Left, IDs: ids, Why: why}); err != nil {
			return err
		}
	}
	return nil
}

// ours reports whether a message is an event of the plan that was rejected again.
func (j *planJournal) ours(s *dlq.Stored) bool {
	attributes := s.Original.Attributes
	_, ok := j.origins[attributes[event.AttrOriginMessageID]]
	return ok && attributes[event.AttrReplayID] == j.plan.ID && event.Replays(attributes) > 0
}

// late sees a message that came after the start, or that this plan has caused.
func (j *planJournal) late(s *dlq.Stored) {
	if !j.ours(s) || len(j.cameBack) >= maxWatched {
		return
	}
	origin := s.Original.Attributes[event.AttrOriginMessageID]
	if _, seen := j.cameBack[s.ID]; seen || j.state().CameBack(origin) {
		return
	}
	if len(j.cameBack) < maxKinds {
		j.say("worker: event %s of the plan was rejected again: %s: %s", nameOf(s), dlq.Word(string(s.Reason)), detailOf(s))
	}
	j.cameBack[s.ID] = origin
	if err := j.record(plan.Record{Kind: plan.CameBack, IDs: []string{origin}}); err != nil {
		j.say("worker: warning: %v", err) // the next record fails, too, and ends the run
	}
}

// stop returns an error when `after` or more events of the plan were rejected again; 0
// never stops.
func (j *planJournal) stop(after int) error {
	if after == 0 || len(j.cameBack) < after {
		return nil
	}
	return fmt.Errorf("stopped: %s of the plan were rejected again (--stop-after %d); what is not published is in the queue", command.Plural(len(j.cameBack), "event"), after)
}
