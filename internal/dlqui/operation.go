package dlqui

import (
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// operation is a plan, its journal and its latest command, as the pages show them.
type operation struct {
	Name  string
	Path  string
	Error string    // why the plan or its journal cannot be read
	Run   *runState // nil: nothing was run for it by this process
	// Receipts says that this process can read receipts.
	Receipts bool
	// Plan is nil if there is none yet, or if it cannot be read.
	Plan *summary
}

// summary has the numbers of a plan and its journal. It has no message, because a plan may
// have a million.
type summary struct {
	Groups []groupSummary
	Counts plan.Counts
	Whys   map[string]int
	// Runs counts the runs of `dlq apply` in the journal, and By is the account of the last
	// one. Last is the time of the last record. Ended says that the last run has recorded
	// its end, which a killed process does not.
	Runs  int
	By    string
	Last  time.Time
	Ended bool
	// Complete says that every message is done.
	Complete bool
	// Backup counts the messages in the backup; 0 without one.
	Backup int
}

// groupSummary is a fault of a plan. Stay counts the messages that a replay excludes.
type groupSummary struct {
	Fault, Reason, Service, Detail string
	Step                           plan.Step
	Matched, Stay                  int
	Counts                         plan.Counts
	Reasons                        map[string]int
}

// Done counts the messages that are done.
func (g groupSummary) Done() int { return g.Counts.Published + g.Counts.Purged }

// Done counts the messages that are done.
func (s *summary) Done() int { return s.Counts.Published + s.Counts.Purged }

// Remaining counts the messages that are not done.
func (s *summary) Remaining() int { return s.Counts.Todo + s.Counts.Left }

// Replays counts the messages that are published.
func (s *summary) Replays() int { return s.sum(plan.Action.Publishes) }

// Purges counts the messages that are removed.
func (s *summary) Purges() int { return s.sum(func(a plan.Action) bool { return a == plan.Purge }) }

func (s *summary) sum(is func(plan.Action) bool) (n int) {
	for _, g := range s.Groups {
		if is(g.Step.Action) {
			n += g.Counts.Planned
		}
	}
	return n
}

// Keeps counts the messages that stay because the plan says so.
func (s *summary) Keeps() (n int) {
	for _, g := range s.Groups {
		if g.Step.Action == plan.Keep {
			n += g.Matched
		}
	}
	return n
}

// Stay counts the messages that a replay excludes.
func (s *summary) Stay() (n int) {
	for _, g := range s.Groups {
		n += g.Stay
	}
	return n
}

// Shown returns the run that the page shows, or nil. It is no question for receipts, which
// the pages ask by themselves.
func (o *operation) Shown() *runState {
	if o.Run == nil || o.Run.Kind == asking {
		return nil
	}
	return o.Run
}

// Active reports whether something other than the question for receipts runs.
func (o *operation) Active() bool {
	return o.Run != nil && o.Run.Phase == runActive && o.Run.Kind != asking
}

// Begun reports whether the plan was applied at least in part.
func (o *operation) Begun() bool { return o.Plan != nil && o.Plan.Runs > 0 }

// Elsewhere reports whether another process applies the plan, or was killed.
func (o *operation) Elsewhere() bool { return o.Begun() && !o.Active() && !o.Plan.Ended }

// Open reports whether the plan can be applied, or applied further.
func (o *operation) Open() bool { return o.Plan != nil && !o.Active() && !o.Plan.Complete }

// receiptsPatience is the time after the last record in which pages ask for receipts.
const receiptsPatience = 24 * time.Hour

// Waits reports whether receipts may still come, so that a page asks for them.
func (o *operation) Waits() bool {
	return o.Receipts && o.Begun() && !o.Active() && o.Plan.Counts.Waiting > 0 && time.Since(o.Plan.Last) < receiptsPatience
}

// Stage names the progress of the operation.
func (o *operation) Stage() string {
	switch {
	case o.Active():
		return string(o.Run.Kind)
	case o.Plan == nil:
		return "not planned"
	case !o.Begun():
		return "planned"
	case o.Plan.Remaining() > 0:
		return "stopped"
	case o.Receipts && o.Plan.Counts.Waiting > 0:
		return "published"
	}
	return "done"
}

// command returns the command that runs, or the one that a person would run next.
func (o *operation) command() string {
	switch {
	case o.Active():
		return o.Run.Command
	case o.Plan == nil:
		return shell("plan", "--fix", fixesOf(o.Path), "-o", o.Path)
	case o.Open():
		return shell("apply", o.Path)
	}
	return shell("status", o.Path)
}
