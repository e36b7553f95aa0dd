package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// sender begins to publish a message.
type sender interface {
	send(ctx context.Context, data []byte) result
}

// result is the result of a *pubsub.Publisher.
type result interface {
	Ready() <-chan struct{}
	Get(ctx context.Context) (serverID string, err error)
}

// pipeline is the buffer between Record and the Pub/Sub client. One goroutine passes events
// to the client and settles them. The client batches, sends and retries.
type pipeline struct {
	to         sender
	accounting *accounting
	why        *cause // why the last try failed
	blockFor   time.Duration

	// events and bytes are the free space of the buffer. An event takes its share in put
	// and returns it when it is settled.
	events, bytes *semaphore.Weighted
	maxBytes      int64
	// queue has space for BufferEvents events, so that sending to it never blocks.
	queue chan []byte

	// mu ensures that no event enters the queue after closed has been set.
	mu     sync.RWMutex
	closed bool

	flushes chan chan struct{}
	cancel  context.CancelFunc // ends run
	done    chan struct{}      // closed when run has ended
	lost    atomic.Int64       // number of events that run gave up at its end

	// Only run uses these.
	pending  []pendingEvent // in the order of sending
	sent     uint64
	waiters  []waiter
	sweeping *time.Timer
	watching *time.Timer
}

// pendingEvent is an event that was passed to the client and is not settled.
type pendingEvent struct {
	result
	bytes  int // of its data
	number uint64
	since  time.Time
}

// waiter waits until all events up to a number are settled.
type waiter struct {
	upTo uint64
	done chan struct{}
}

func newPipeline(cfg Config, to sender, accounting *accounting, why *cause) *pipeline {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pipeline{
		to: to, accounting: accounting, why: why, blockFor: cfg.BlockFor,
		events:   semaphore.NewWeighted(int64(cfg.BufferEvents)),
		bytes:    semaphore.NewWeighted(cfg.BufferBytes),
		maxBytes: cfg.BufferBytes,
		queue:    make(chan []byte, cfg.BufferEvents),
		flushes:  make(chan chan struct{}),
		cancel:   cancel,
		done:     make(chan struct{}),
	}
	go p.run(ctx)
	return p
}

// share returns the bytes that an event takes. An event that is larger than the whole
// buffer takes all of it.
func (p *pipeline) share(size int) int64 { return min(int64(size), p.maxBytes) }

func (p *pipeline) put(ctx context.Context, data []byte) error {
	size := p.share(len(data))
	if !p.acquire(ctx, size) {
		p.mu.RLock()
		defer p.mu.RUnlock()
		if p.closed {
			return ErrClosed
		}
		return ErrDropped
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		p.release(size)
		return ErrClosed
	}
	p.accounting.take(len(data))
	p.queue <- data
	return nil
}

// acquire takes the space for an event of this size.
func (p *pipeline) acquire(ctx context.Context, size int64) bool {
	if p.events.TryAcquire(1) {
		if p.bytes.TryAcquire(size) {
			return true
		}
		p.events.Release(1)
	}
	if p.blockFor == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, p.blockFor)
	defer cancel()
	if p.events.Acquire(ctx, 1) != nil {
		return false
	}
	if p.bytes.Acquire(ctx, size) != nil {
		p.events.Release(1)
		return false
	}
	return true
}

func (p *pipeline) release(size int64) {
	p.bytes.Release(size)
	p.events.Release(1)
}

func (p *pipeline) flush(ctx context.Context) error {
	if err := p.wait(ctx); err != nil {
		return err
	}
	return p.accounting.lost.take()
}

// wait waits until all events put before are settled, or the pipeline is closed.
func (p *pipeline) wait(ctx context.Context) error {
	settled := make(chan struct{})
	select {
	case p.flushes <- settled:
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-settled:
		return nil
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pipeline) close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.wait(ctx) // the events that are left afterwards are counted below
	p.cancel()
	<-p.done // run ends at once, because its context is canceled
	failed := p.accounting.lost.take()
	if n := p.lost.Load(); n > 0 {
		return errors.Join(p.why.of(fmt.Errorf("%w in time: %d", ErrUnconfirmed, n)), failed)
	}
	return failed
}

const (
	// sweepEvery is how long an unsettled event may delay the results of those behind it.
	sweepEvery = 100 * time.Millisecond
	// warnAfter is how long an event may be unconfirmed before the log says so, and
	// warnEvery how often it says so again.
	warnAfter = 30 * time.Second
	warnEvery = time.Minute
)

func (p *pipeline) run(ctx context.Context) {
	defer close(p.done)
	p.sweeping, p.watching = time.NewTimer(sweepEvery), time.NewTimer(warnAfter)
	p.sweeping.Stop()
	p.watching.Stop()
	for {
		var ready <-chan struct{}
		if len(p.pending) > 0 {
			ready = p.pending[0].Ready()
		}
		select {
		case data := <-p.queue:
			p.send(ctx, data)
		case <-ready:
			p.settleFirst()
		case <-p.sweeping.C:
			p.sweep()
		case <-p.watching.C:
			p.warn()
		case settled := <-p.flushes:
			// Events that were put before the flush are already in the queue.
			for len(p.queue) > 0 {
				p.send(ctx, <-p.queue)
			}
			p.waiters = append(p.waiters, waiter{p.sent, settled})
		case <-ctx.Done():
			p.giveUp()
			return
		}
		p.wakeWaiters()
	}
}

func (p *pipeline) send(ctx context.Context, data []byte) {
	p.sent++
	if len(p.pending) == 0 {
		p.sweeping.Reset(sweepEvery)
		p.watching.Reset(warnAfter)
	}
	p.pending = append(p.pending, pendingEvent{p.to.send(ctx, data), len(data), p.sent, time.Now()})
}

// warn logs that the oldest event has been unconfirmed for long, and checks again later.
// Retried events cause no error until they have failed.
func (p *pipeline) warn() {
	if len(p.pending) == 0 {
		return
	}
	age := time.Since(p.pending[0].since)
	if age < warnAfter {
		p.watching.Reset(warnAfter - age)
		return
	}
	p.accounting.unconfirmed(slog.Uint64("count", p.accounting.stats().Buffered), slog.Duration("for", age.Round(time.Second)), p.why.get())
	p.watching.Reset(warnEvery)
}

// settleFirst settles the events at the front whose results are there.
func (p *pipeline) settleFirst() {
	n := 0
	for n < len(p.pending) && p.settle(p.pending[n]) {
		n++
	}
	clear(p.pending[:n])
	p.pending = p.pending[n:]
	if len(p.pending) == 0 {
		p.pending = nil
		p.sweeping.Stop()
		p.watching.Stop()
	}
}

// sweep settles every event whose result is there.
func (p *pipeline) sweep() {
	kept := p.pending[:0]
	for _, f := range p.pending {
		if !p.settle(f) {
			kept = append(kept, f)
		}
	}
	clear(p.pending[len(kept):])
	p.pending = kept
	if len(p.pending) > 0 {
		p.sweeping.Reset(sweepEvery)
	}
}

// settle counts the result of an event and frees its space, if the result is there.
func (p *pipeline) settle(e pendingEvent) bool {
	select {
	case <-e.Ready():
	default:
		return false
	}
	_, err := e.Get(context.Background()) // returns at once, because the result is ready
	if err == nil {
		p.why.set(nil)
	} else {
		err = p.why.of(err)
	}
	p.accounting.settle(e.bytes, err)
	p.release(p.share(e.bytes))
	return true
}

// wakeWaiters wakes the waiters whose events are settled.
func (p *pipeline) wakeWaiters() {
	for len(p.waiters) > 0 && (len(p.pending) == 0 || p.pending[0].number > p.waiters[0].upTo) {
		close(p.waiters[0].done)
		p.waiters = p.waiters[1:]
	}
}

// giveUp settles the remaining events. No event can enter the queue now.
func (p *pipeline) giveUp() {
	p.sweep()
	p.sweeping.Stop()
	p.watching.Stop()
	for len(p.queue) > 0 {
		p.pending = append(p.pending, pendingEvent{bytes: len(<-p.queue)})
	}
	err := p.why.of(ErrUnconfirmed)
	for _, f := range p.pending {
		p.accounting.settle(f.bytes, err)
		p.release(p.share(f.bytes))
	}
	p.lost.Store(int64(len(p.pending)))
	p.pending = nil
}
