package logging

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// limitBurst is how many records with one message pass in a limitWindow.
	limitBurst  = 20
	limitWindow = time.Minute
	// limitMessages bounds the memory of the limit; the worker has far fewer messages.
	limitMessages = 1000
)

// Limit returns a handler that drops warnings and errors which repeat too often. The last
// record that passes says that further ones are dropped. The first record after the
// window says how many were.
func Limit(next slog.Handler) slog.Handler {
	return &limiter{next: next, seen: &repeats{now: time.Now, counts: make(map[repeated]*repeat)}}
}

type limiter struct {
	next slog.Handler
	seen *repeats // shared with derived handlers
}

// repeats counts records by their message.
type repeats struct {
	now func() time.Time

	mu     sync.Mutex
	counts map[repeated]*repeat
}

type repeated struct {
	level   slog.Level
	message string
}

type repeat struct {
	began   time.Time
	passed  int
	leftOut int
}

// Enabled is the next handler's.
func (l *limiter) Enabled(ctx context.Context, level slog.Level) bool {
	return l.next.Enabled(ctx, level)
}

// Handle passes the record on, unless its message has reached the limit.
func (l *limiter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return l.next.Handle(ctx, r)
	}
	pass, last, leftOut := l.seen.count(repeated{r.Level, r.Message})
	if !pass {
		return nil
	}
	if last || leftOut > 0 {
		r = r.Clone()
	}
	if last {
		r.AddAttrs(slog.String("repeated", "further ones are left out for up to "+limitWindow.String()))
	}
	if leftOut > 0 {
		r.AddAttrs(slog.Int("left_out_before", leftOut))
	}
	return l.next.Handle(ctx, r)
}

func (s *repeats) count(key repeated) (pass, last bool, leftOut int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	c := s.counts[key]
	if c == nil {
		if len(s.counts) >= limitMessages {
			clear(s.counts)
		}
		c = &repeat{began: now}
		s.counts[key] = c
	}
	if now.Sub(c.began) >= limitWindow {
		leftOut = c.leftOut
		*c = repeat{began: now}
	}
	if c.passed == limitBurst {
		c.leftOut++
		return false, false, 0
	}
	c.passed++
	return true, c.passed == limitBurst, leftOut
}

// WithAttrs returns a handler that shares the counts.
func (l *limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limiter{next: l.next.WithAttrs(attrs), seen: l.seen}
}

// WithGroup returns a handler that shares the counts.
func (l *limiter) WithGroup(name string) slog.Handler {
	return &limiter{next: l.next.WithGroup(name), seen: l.seen}
}
