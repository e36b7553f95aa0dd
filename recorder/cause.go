package recorder

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// cause is why Pub/Sub does not take events just now: the error of the last try. The
// client itself reports only that time was up. It is safe for concurrent use.
type cause struct {
	mu  sync.Mutex
	err error
}

// set remembers the error of a try, nil after one that succeeded.
func (c *cause) set(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *cause) get() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// of adds the cause to an error that says only that time was up.
func (c *cause) of(err error) error {
	last := c.get()
	if last == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrUnconfirmed) {
		return err
	}
	return fmt.Errorf("%w; the last try: %w", err, last)
}
