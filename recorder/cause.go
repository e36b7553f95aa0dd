package recorder

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// cause is the error of the last try, if it failed. The client itself reports only that its
// time was over. It is safe for concurrent use.
type cause struct {
	mu  sync.Mutex
	err error
}

// set remembers the error of a try, or nil after a success.
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

// of adds the cause to an error that says only that time was over.
func (c *cause) of(err error) error {
	last := c.get()
	if last == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) && !errors.Is(err, ErrUnconfirmed) {
		return err
	}
	return fmt.Errorf("%w; the last try: %w", err, last)
}
