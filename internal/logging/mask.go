package logging

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/sourcegraph/telemetry-relay/internal/secrets"
)

// Mask returns a handler that removes credentials from all texts: the known ones, and
// text that looks like one. Code that logs a server's message removes them itself; this
// handler is the second barrier.
func Mask(next slog.Handler, known ...string) slog.Handler {
	return masker{next: next, known: known}
}

type masker struct {
	next  slog.Handler
	known []string
}

// Enabled is the next handler's.
func (m masker) Enabled(ctx context.Context, level slog.Level) bool {
	return m.next.Enabled(ctx, level)
}

// Handle masks the record.
func (m masker) Handle(ctx context.Context, r slog.Record) error {
	masked := slog.NewRecord(r.Time, r.Level, secrets.Mask(r.Message, m.known...), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		masked.AddAttrs(m.attr(a))
		return true
	})
	return m.next.Handle(ctx, masked)
}

// WithAttrs masks the attributes.
func (m masker) WithAttrs(attrs []slog.Attr) slog.Handler {
	masked := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		masked[i] = m.attr(a)
	}
	return masker{next: m.next.WithAttrs(masked), known: m.known}
}

// WithGroup derives a handler that masks, too.
func (m masker) WithGroup(name string) slog.Handler {
	return masker{next: m.next.WithGroup(name), known: m.known}
}

func (m masker) attr(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(secrets.Mask(a.Value.String(), m.known...))
	case slog.KindGroup:
		group := a.Value.Group()
		masked := make([]slog.Attr, len(group))
		for i, inner := range group {
			masked[i] = m.attr(inner)
		}
		a.Value = slog.GroupValue(masked...)
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			a.Value = slog.StringValue(secrets.Mask(v.Error(), m.known...))
		case fmt.Stringer:
			a.Value = slog.StringValue(secrets.Mask(v.String(), m.known...))
		}
	default: // numbers, times and the like
	}
	return a
}
