package sentry

import (
	"context"
	"log/slog"
	"maps"
	"strings"

	"github.com/getsentry/sentry-go"
)

// maxText is the longest text that is reported of one attribute, in bytes; a
// stack may be longer.
const (
	maxText  = 1 << 10
	maxStack = 16 << 10
)

// Handler returns a handler that reports every record at error level, and passes all
// records on. Sentry groups reports by the record's message.
func (r *Reporter) Handler(next slog.Handler) slog.Handler {
	if r.hub == nil {
		return next
	}
	return handler{next: next, reporter: r, attrs: map[string]any{}}
}

type handler struct {
	next     slog.Handler
	reporter *Reporter
	attrs    map[string]any // of WithAttrs; never nil
	group    string         // prefix of the keys
}

// Enabled is the next handler's: a record that is not logged is not reported.
func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle reports an error.
func (h handler) Handle(ctx context.Context, record slog.Record) error {
	if record.Level >= slog.LevelError {
		attrs := maps.Clone(h.attrs)
		record.Attrs(func(a slog.Attr) bool {
			h.add(attrs, a)
			return true
		})
		h.reporter.report(record, attrs)
	}
	return h.next.Handle(ctx, record)
}

func (h handler) add(attrs map[string]any, a slog.Attr) {
	limit := maxText
	if a.Key == "stack" {
		limit = maxStack
	}
	attrs[h.group+a.Key] = h.reporter.clean(a.Value.Resolve().String(), limit)
}

// WithAttrs derives a handler that reports the attributes, too.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.next = h.next.WithAttrs(attrs)
	h.attrs = maps.Clone(h.attrs)
	for _, a := range attrs {
		h.add(h.attrs, a)
	}
	return h
}

// WithGroup derives a handler whose attributes have the name before theirs.
func (h handler) WithGroup(name string) slog.Handler {
	h.next = h.next.WithGroup(name)
	if name != "" {
		h.group += name + "."
	}
	return h
}

func (r *Reporter) report(record slog.Record, attrs map[string]any) {
	e := sentry.NewEvent()
	e.Level = sentry.LevelError
	e.Timestamp = record.Time
	e.Logger = "worker"
	e.Message = r.clean(record.Message, maxText)
	e.Fingerprint = []string{e.Message}
	if text, ok := attrs["error"].(string); ok {
		e.Exception = []sentry.Exception{{Type: e.Message, Value: text}}
	}
	e.Contexts["attributes"] = attrs
	r.hub.CaptureEvent(e)
}

// clean clips a text, and masks secrets in it.
func (r *Reporter) clean(text string, limit int) string {
	for _, secret := range r.options.Secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[secret]")
		}
	}
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}
