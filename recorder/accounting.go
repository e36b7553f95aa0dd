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

// accounting counts the results of events, and logs losses.
type accounting struct {
	taken, published, failed, dropped, invalid, stripped atomic.Uint64
	takenBytes, publishedBytes, failedBytes              atomic.Uint64 // of the data
	perMessage                                           int           // size of a message without its data

	lost lost

	failures, drops, faults, strips limitedLog
	unconfirmed                     func(count, age slog.Attr, err error)
	onRefuse, onStrip               func(error) // set by tests; may be nil
}

func newAccounting(log *slog.Logger, target ...slog.Attr) *accounting {
	return &accounting{
		unconfirmed: func(count, age slog.Attr, err error) {
			attrs := append([]slog.Attr{count, age}, target...)
			if err != nil {
				attrs = append(attrs, slog.Any("error", err))
			}
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events are not confirmed by Pub/Sub; they are tried again", attrs...)
		},
		failures: limitedLog{log: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelError, "telemetry events were not published", append([]slog.Attr{count, err}, target...)...)
		}},
		drops: limitedLog{log: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events were dropped", count, err)
		}},
		strips: limitedLog{log: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events were recorded without their private metadata", count, err)
		}},
		faults: limitedLog{log: func(count, err slog.Attr) {
			log.LogAttrs(context.Background(), slog.LevelWarn, "telemetry events are invalid and were not recorded", count, err)
		}},
	}
}

// take counts an event that was taken into the buffer, with the size of its data.
func (a *accounting) take(size int) {
	a.taken.Add(1)
	a.takenBytes.Add(uint64(size))
}

// settle counts the result of an event that was taken.
func (a *accounting) settle(size int, err error) {
	if err == nil {
		a.published.Add(1)
		a.publishedBytes.Add(uint64(size))
		return
	}
	a.failed.Add(1)
	a.failedBytes.Add(uint64(size))
	a.failures.add(err)
	if !errors.Is(err, ErrUnconfirmed) { // Close reports these itself
		a.lost.add(err)
	}
}

// refuse counts an event that was not taken.
func (a *accounting) refuse(err error) {
	if a.onRefuse != nil {
		a.onRefuse(err)
	}
	if _, ok := errors.AsType[*InvalidError](err); ok {
		a.invalid.Add(1)
		a.faults.add(err)
		return
	}
	a.dropped.Add(1)
	a.drops.add(err)
}

// strip counts an event that was taken without its private metadata.
func (a *accounting) strip(err error) {
	if a.onStrip != nil {
		a.onStrip(err)
	}
	a.stripped.Add(1)
	a.strips.add(err)
}

// close logs the events that were counted since the last line of each kind.
func (a *accounting) close() {
	for _, c := range []*limitedLog{&a.failures, &a.drops, &a.faults, &a.strips} {
		c.flush()
	}
}

func (a *accounting) stats() Stats {
	s := Stats{
		Published: a.published.Load(),
		Failed:    a.failed.Load(),
		Dropped:   a.dropped.Load(),
		Invalid:   a.invalid.Load(),
		Stripped:  a.stripped.Load(),
	}
	perMessage := uint64(a.perMessage)
	s.PublishedBytes = a.publishedBytes.Load() + s.Published*perMessage
	failedBytes := a.failedBytes.Load() + s.Failed*perMessage
	// Read last, so that events taken meanwhile count as buffered.
	taken := a.taken.Load()
	s.Buffered = taken - s.Published - s.Failed
	s.BufferedBytes = a.takenBytes.Load() + taken*perMessage - s.PublishedBytes - failedBytes
	return s
}

// lost counts the failed events that no Flush or Close has reported yet.
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

// take returns an error with the number of lost events, and resets it.
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

// logEvery is the shortest time between two lines of a kind.
const logEvery = time.Minute

// limitedLog logs events of a kind: the first one at once, and then at most one line every
// logEvery, with the number of events.
type limitedLog struct {
	log func(count, err slog.Attr)

	mu    sync.Mutex
	count int // not logged yet
	err   error
	last  time.Time // of the last line
}

func (c *limitedLog) add(err error) {
	c.mu.Lock()
	c.count++
	c.err = err
	due := time.Since(c.last) >= logEvery
	c.mu.Unlock()
	if due {
		c.flush()
	}
}

func (c *limitedLog) flush() {
	c.mu.Lock()
	count, err := c.count, c.err
	if count > 0 {
		c.count, c.err, c.last = 0, nil, time.Now()
	}
	c.mu.Unlock()
	if count > 0 {
		// Without the lock, because a handler may be slow, or record events itself.
		c.log(slog.Int("count", count), slog.Any("error", err))
	}
}
