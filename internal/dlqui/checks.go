package dlqui

import (
	"context"
	"sync"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/trial"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

const (
	// maxReplays excludes events that were replayed so often before, as `dlq plan` does.
	maxReplays = 3
	// maxExpression bounds a jq expression, in bytes.
	maxExpression = 16 << 10
	// maxChecks bounds the checks that are kept.
	maxChecks = 20
	// publishEvery is the number of events after which a check updates its state.
	publishEvery = 500
)

// eventCheck is the worker's own check of an event; see Queue.Check.
type eventCheck func(event.Message) *event.Rejection

// checks tries fixes on all events of a fault in the background, each fix once. It keeps
// the newest checks, because a person goes back to an expression that was tried before.
type checks struct {
	check      eventCheck
	background *background

	mu    sync.Mutex // guards what follows
	kept  map[checkKey]*check
	order []checkKey // of kept, the oldest first
}

func newChecks(of eventCheck, background *background) *checks {
	return &checks{check: of, background: background, kept: map[checkKey]*check{}}
}

// checkKey identifies a check. The spool is part of it: a request that began before the
// queue was read again may check the messages of the old spool.
type checkKey struct {
	spool     *spool.Spool
	fault, jq string
}

// check is a fix that is tried on all events of a fault.
type check struct {
	finished chan struct{} // closed when state is final

	mu    sync.Mutex // guards state: the check's goroutine writes it, requests read it
	state checkState
}

// checkState is the progress of a check. It has no message, because a fault may have a
// million.
type checkState struct {
	Total, Tried, Passed, Failed, TooOften, Unchanged int
	Done                                              bool
	Error                                             string
	Causes                                            []trial.Cause
	Changes                                           []dlq.ChangeCount
}

// Loses returns a lower bound of the events that lose data: the most that lose one field.
func (c checkState) Loses() (n int) {
	for _, change := range c.Changes {
		if change.Loses {
			n = max(n, change.Count)
		}
	}
	return n
}

// begin returns the check of a fix, which it starts unless it was started before. It
// returns nil if the spool is gone or the server ends.
func (c *checks) begin(current *spool.Spool, fault, jq string) *check {
	key := checkKey{current, fault, jq}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.kept[key]; known != nil {
		return known
	}
	if !current.Hold() {
		return nil
	}
	made := &check{finished: make(chan struct{}), state: checkState{Total: len(current.Of(fault))}}
	if !c.background.start(func(ctx context.Context) {
		defer current.Release()
		defer close(made.finished)
		made.run(ctx, c.check, key)
	}) {
		current.Release()
		return nil
	}
	c.kept[key] = made
	if c.order = append(c.order, key); len(c.order) > maxChecks {
		delete(c.kept, c.order[0])
		c.order = c.order[1:]
	}
	return made
}

// find returns a check that was started before, or nil.
func (c *checks) find(current *spool.Spool, fault, jq string) *check {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept[checkKey{current, fault, jq}]
}

// forget drops all checks, because their spool was replaced. The checks that run go on, so
// that the pages that show them see them end.
func (c *checks) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.kept)
	c.order = nil
}

// wait waits until the check is done, for at most a time.
func (c *check) wait(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	select {
	case <-c.finished:
	case <-ctx.Done():
	}
}

func (c *check) snapshot() checkState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *check) set(state checkState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = state
}

// run tries the fix on all events of the fault.
func (c *check) run(ctx context.Context, of eventCheck, key checkKey) {
	fix, wrong := compile(key.jq)
	if wrong != "" {
		c.set(checkState{Done: true, Error: wrong})
		return
	}
	numbers := key.spool.Of(key.fault)
	t := trial.New(fix, of, maxReplays)
	state := func() checkState {
		return checkState{
			Total: len(numbers), Tried: t.Tried, Passed: t.Passed, Failed: t.Failed, TooOften: t.TooOften, Unchanged: t.Changes.Unchanged,
			Causes: t.Causes(), Changes: t.Changes.Counts(),
		}
	}
	err := key.spool.Each(ctx, numbers, func(m *dlq.Stored) error {
		_, err := t.Try(ctx, m)
		if t.Tried%publishEvery == 0 {
			c.set(state())
		}
		return err
	})
	final := state()
	final.Done = true
	if err != nil {
		final.Error = err.Error()
	}
	c.set(final)
}

// compile compiles an expression of a form. The text says why the expression is refused;
// it is empty if the expression is accepted.
func compile(jq string) (*dlq.Fix, string) {
	if len(jq) > maxExpression {
		return nil, "The expression is longer than 16 KiB."
	}
	fix, err := dlq.CompileFix(jq)
	if err != nil {
		return nil, "Expected a jq expression: " + err.Error()
	}
	fix.Name = "jq"
	return fix, ""
}
