package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// books counts what becomes of events, and complains where they get lost.
type books struct {
	taken, published, failed, dropped, invalid, stripped atomic.Uint64
	takenBytes, publishedBytes, failedBytes              atomic.Uint64 // of the data
	perMessage                                           int           // bytes that each message has beside its data

	lost lost

	failures, drops, faults, strips complaint
	unconfirmed                     func(count, age slog.Attr, err error)
	onRefuse, onStrip               func(error) // of a test, may be nil
}

func newBooks(log *slog.Logger, target ...slog.Attr) *books {
	return &books{
		unconfirmed: func(count, age slog.Attr, err error) {
			attrs := append([]slog.Attr{count, age}, target...)
			if err != nil {
				attrs = append(attrs, slog.Any("error", err))
			}
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events are not confirmed by Pub/Sub; they are tried again", attrs...)
		},
		failures: complaint{say: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelError, "telemetry events were not published", append([]slog.Attr{count, err}, target...)...)
		}},
		drops: complaint{say: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events were dropped", count, err)
		}},
		strips: complaint{say: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events were recorded without their private metadata", count, err)
		}},
		faults: complaint{say: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events are invalid and were not recorded", count, err)
		}},
	}
}

// take counts an event that is in the buffer now, of so many bytes of data.
func (b *books) take(size int) {
	b.taken.Add(1)
	b.takenBytes.Add(uint64(size))
}

// settle counts what became of an event that was taken.
func (b *books) settle(size int, err error) {
	if err == nil {
		b.published.Add(1)
		b.publishedBytes.Add(uint64(size))
		return
	}
	b.failed.Add(1)
	b.failedBytes.Add(uint64(size))
	b.failures.add(err)
	if !errors.Is(err, ErrUnconfirmed) { // Close tells of these itself
		b.lost.add(err)
	}
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

// strip counts an event that was taken without its private metadata.
func (b *books) strip(err error) {
	if b.onStrip != nil {
		b.onStrip(err)
	}
	b.stripped.Add(1)
	b.strips.add(err)
}

// close says what has not been said yet.
func (b *books) close() {
	for _, c := range []*complaint{&b.failures, &b.drops, &b.faults, &b.strips} {
		c.flush()
	}
}

func (b *books) stats() Stats {
	s := Stats{
		Published: b.published.Load(),
		Failed:    b.failed.Load(),
		Dropped:   b.dropped.Load(),
		Invalid:   b.invalid.Load(),
		Stripped:  b.stripped.Load(),
	}
	perMessage := uint64(b.perMessage)
	s.PublishedBytes = b.publishedBytes.Load() + s.Published*perMessage
	failedBytes := b.failedBytes.Load() + s.Failed*perMessage
	// Read last: what is taken meanwhile counts as buffered.
	taken := b.taken.Load()
	s.Buffered = taken - s.Published - s.Failed
	s.BufferedBytes = b.takenBytes.Load() + taken*perMessage - s.PublishedBytes - failedBytes
	return s
}

// lost are the failed events of which no Flush or Close has told yet.
type lost struct {
	mu    sync.Mutex
	count int
	err   error // of the last one
}

func (l *lost) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	l.err = err
}

// take returns what was lost, once.
func (l *lost) take() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count == 0 {
		return nil
	}
	err := fmt.Errorf("%w: %d; the last one: %w", ErrFailed, l.count, l.err)
	l.count, l.err = 0, nil
	return err
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
