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

// result is that of a *pubsub.Publisher.
type result interface {
	Ready() <-chan struct{}
	Get(ctx context.Context) (serverID string, err error)
}

// pipeline is the buffer between Record and the Pub/Sub client. One goroutine
// hands events to the client and settles them; the client batches, sends and
// retries.
type pipeline struct {
	to       sender
	books    *books
	why      *cause // of the tries
	blockFor time.Duration

	// events and bytes are the room in the buffer. An event takes its share in put
	// and gives it back when it is settled.
	events, bytes *semaphore.Weighted
	maxBytes      int64
	// queue has room for every event that events lets in, so that sending to it
	// never blocks.
	queue chan []byte

	// mu makes sure that nothing enters the queue after closed has been set.
	mu     sync.RWMutex
	closed bool

	flushes chan chan struct{}
	cancel  context.CancelFunc // ends run
	done    chan struct{}      // closed when run has ended
	lost    atomic.Int64       // events that run gave up at its end

	// Only run uses these.
	pending  []flight // in the order in which they were sent
	sent     uint64
	waiters  []waiter
	sweeping *time.Timer
	watching *time.Timer
}

// flight is an event that the client has.
type flight struct {
	result
	bytes  int // of its data
	number uint64
	since  time.Time
}

// waiter wants to know when all flights up to a number are settled.
type waiter struct {
	upTo uint64
	done chan struct{}
}

func newPipeline(cfg Config, to sender, books *books, why *cause) *pipeline {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pipeline{
		to: to, books: books, why: why, blockFor: cfg.BlockFor,
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

// share is what an event takes of bytes. One that is larger than the whole buffer
// may have it for itself.
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
	p.books.take(len(data))
	p.queue <- data
	return nil
}

// acquire gets room for an event of this size.
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
	return p.books.lost.take()
}

// wait waits until everything put before is settled, or the pipeline closed.
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
	_ = p.wait(ctx) // what counts is what is left after it
	p.cancel()
	<-p.done // at once: with its context ended, run waits for nothing
	failed := p.books.lost.take()
	if n := p.lost.Load(); n > 0 {
		return errors.Join(p.why.of(fmt.Errorf("%w in time: %d", ErrUnconfirmed, n)), failed)
	}
	return failed
}

const (
	// sweepEvery is how long a flight may hide the results of those behind it.
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
			// What was put before the flush is in the queue already.
			for len(p.queue) > 0 {
				p.send(ctx, <-p.queue)
			}
			p.waiters = append(p.waiters, waiter{p.sent, settled})
		case <-ctx.Done():
			p.giveUp()
			return
		}
		p.tell()
	}
}

func (p *pipeline) send(ctx context.Context, data []byte) {
	p.sent++
	if len(p.pending) == 0 {
		p.sweeping.Reset(sweepEvery)
		p.watching.Reset(warnAfter)
	}
	p.pending = append(p.pending, flight{p.to.send(ctx, data), len(data), p.sent, time.Now()})
}

// warn says in the log that the oldest event has been unconfirmed for long, and looks
// again later: events that are tried again make no error until they have failed.
func (p *pipeline) warn() {
	if len(p.pending) == 0 {
		return
	}
	age := time.Since(p.pending[0].since)
	if age < warnAfter {
		p.watching.Reset(warnAfter - age)
		return
	}
	p.books.unconfirmed(slog.Uint64("count", p.books.stats().Buffered), slog.Duration("for", age.Round(time.Second)), p.why.get())
	p.watching.Reset(warnEvery)
}

// settleFirst settles the flights at the front, as far as their results are there.
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

// sweep settles every flight whose result is there.
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

// settle counts the result of a flight and gives its room back, if the result is
// there.
func (p *pipeline) settle(f flight) bool {
	select {
	case <-f.Ready():
	default:
		return false
	}
	_, err := f.Get(context.Background()) // does not wait: it is ready
	if err == nil {
		p.why.set(nil)
	} else {
		err = p.why.of(err)
	}
	p.books.settle(f.bytes, err)
	p.release(p.share(f.bytes))
	return true
}

// tell wakes those who wait for what is settled now.
func (p *pipeline) tell() {
	for len(p.waiters) > 0 && (len(p.pending) == 0 || p.pending[0].number > p.waiters[0].upTo) {
		close(p.waiters[0].done)
		p.waiters = p.waiters[1:]
	}
}

// giveUp settles what is left: nothing can enter the queue any more.
func (p *pipeline) giveUp() {
	p.sweep()
	p.sweeping.Stop()
	p.watching.Stop()
	for len(p.queue) > 0 {
		p.pending = append(p.pending, flight{bytes: len(<-p.queue)})
	}
	err := p.why.of(ErrUnconfirmed)
	for _, f := range p.pending {
		p.books.settle(f.bytes, err)
		p.release(p.share(f.bytes))
	}
	p.lost.Store(int64(len(p.pending)))
	p.pending = nil
}
