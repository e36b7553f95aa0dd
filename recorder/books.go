package recorder

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// books counts what becomes of events, and complains where they get lost.
type books struct {
	taken, published, failed, dropped, invalid atomic.Uint64

	failures, drops, faults complaint
	onRefuse                func(error) // of a test, may be nil
}

func newBooks(log *slog.Logger) *books {
	return &books{
		failures: complaint{say: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelError, "telemetry events were not published", count, err)
		}},
		drops: complaint{say: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events were dropped", count, err)
		}},
		faults: complaint{say: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events are invalid and were not recorded", count, err)
		}},
	}
}

// take counts an event that is in the buffer now.
func (b *books) take() {
	b.taken.Add(1)
}

// settle counts what became of an event that was taken.
func (b *books) settle(err error) {
	if err == nil {
		b.published.Add(1)
		return
	}
	b.failed.Add(1)
	b.failures.add(err)
}

// refuse counts an event that was not taken.
func (b *books) refuse(err error) {
	if b.onRefuse != nil {
		b.onRefuse(err)
	}
	if _, ok := errors.AsType[*InvalidError](err); ok {
		b.invalid.Add(1)
		b.faults.add(err)
		return
	}
	b.dropped.Add(1)
	b.drops.add(err)
}

// close says what has not been said yet.
func (b *books) close() {
	for _, c := range []*complaint{&b.failures, &b.drops, &b.faults} {
		c.flush()
	}
}

func (b *books) stats() Stats {
	s := Stats{
		Published: b.published.Load(),
		Failed:    b.failed.Load(),
		Dropped:   b.dropped.Load(),
		Invalid:   b.invalid.Load(),
	}
	// Read last: what is taken meanwhile counts as buffered.
	s.Buffered = b.taken.Load() - s.Published - s.Failed
	return s
}

// complainEvery is the shortest time between two complaints of a kind.
const complainEvery = time.Minute

// complaint is said at once, and then at most once every complainEvery, with the
// number of events that it is about.
type complaint struct {
	say func(count, err slog.Attr)

	mu    sync.Mutex
	count int // not said yet
	err   error
	said  time.Time
}

func (c *complaint) add(err error) {
	c.mu.Lock()
	c.count++
	c.err = err
	due := time.Since(c.said) >= complainEvery
	c.mu.Unlock()
	if due {
		c.flush()
	}
}

func (c *complaint) flush() {
	c.mu.Lock()
	count, err := c.count, c.err
	if count > 0 {
		c.count, c.err, c.said = 0, nil, time.Now()
	}
	c.mu.Unlock()
	if count > 0 {
		// Outside the lock: a handler may be slow, or record events itself.
		c.say(slog.Int("count", count), slog.Any("error", err))
	}
}
