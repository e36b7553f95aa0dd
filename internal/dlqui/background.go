package dlqui

import (
	"context"
	"sync"
)

// background runs the work that goes on after a request: readings, checks and commands.
type background struct {
	ctx  context.Context //nolint:containedctx // of all work; close ends it
	stop context.CancelFunc
	work sync.WaitGroup

	mu     sync.Mutex // guards closed, so that no work starts while close waits
	closed bool
}

func newBackground() *background {
	ctx, stop := context.WithCancel(context.Background())
	return &background{ctx: ctx, stop: stop}
}

// start calls work in a goroutine of its own. The context of the work ends at close. After
// close, start calls nothing and returns false.
func (b *background) start(work func(context.Context)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.work.Go(func() { work(b.ctx) })
	return true
}

// close ends the context of the work, and waits for the work.
func (b *background) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.work.Wait()
}
