package relay

import (
	"errors"
	"time"
)

// Status is what the loop last said of itself.
type Status struct {
	// Ready means that nothing that the worker needs is away.
	Ready bool
	// Reason says what is away.
	Reason string
}

// stuckAfter is how long the loop may take for one turn. It does no I/O, so a
// second would be long.
const stuckAfter = 30 * time.Second

// Status returns whether the run is ready, and if not, why.
func (r *Relay) Status() Status { return *r.status.Load() }

// Alive returns an error when the loop is stuck.
func (r *Relay) Alive() error {
	beat := r.beat.Load()
	if beat != 0 && time.Since(time.Unix(0, beat)) > stuckAfter {
		return errors.New("the relay's loop is stuck")
	}
	return nil
}
