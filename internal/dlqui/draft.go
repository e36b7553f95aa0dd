package dlqui

import (
	"maps"
	"sync"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// draft is the plan that a person puts together: a step for each chosen fault. The page
// of the plan changes it, and the other pages show it. It lasts as long as the server.
type draft struct {
	mu    sync.Mutex // guards steps
	steps map[string]plan.Step
}

func newDraft() *draft { return &draft{steps: map[string]plan.Step{}} }

// all returns a copy of the steps by the ids of their faults.
func (d *draft) all() map[string]plan.Step {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.steps)
}

// size returns the number of faults in the draft.
func (d *draft) size() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.steps)
}

// set chooses the step of a fault in place of an earlier one.
func (d *draft) set(fault string, step plan.Step) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps[fault] = step
}

// drop takes a fault out of the draft.
func (d *draft) drop(fault string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.steps, fault)
}
