// Package logging makes the worker's logger: JSON for Cloud Logging or text for a
// terminal, without credentials and control characters, and with a limit on repetition.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// New returns a logger to w. The level is debug, info, warn or error; the format
// is json (in Cloud Logging's fields), text, or auto: text on a terminal.
func New(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo // the configuration reports it
	}
	watched := terminal.Is(w)
	if format == "text" || (format != "json" && watched) {
		return slog.New(tint.NewTextHandler(terminal.Own(w), &tint.Options{
			Level:       l,
			TimeFormat:  time.TimeOnly,
			NoColor:     !watched || os.Getenv("NO_COLOR") != "",
			ReplaceAttr: clean,
		}))
	}
	return slog.New(slog.NewJSONHandler(terminal.JSON(w), &slog.HandlerOptions{Level: l, ReplaceAttr: cloudLogging}))
}

// clean removes control sequences from a text. The handler for terminals adds sequences
// of its own, and does not escape those that a text brings along.
func clean(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(terminal.Clean(v.String()))
	case slog.KindAny:
		if _, ok := v.Any().(slog.Level); !ok {
			a.Value = slog.StringValue(terminal.Clean(fmt.Sprintf("%+v", v.Any())))
		}
	default: // numbers and times
	}
	return a
}

// cloudLogging renames the built-in fields to those of Cloud Logging.
func cloudLogging(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.MessageKey:
		a.Key = "message"
	case slog.LevelKey:
		level, ok := a.Value.Any().(slog.Level)
		if !ok {
			return a // an attribute of that name that is not built in
		}
		a.Key = "severity"
		if level == slog.LevelWarn {
			a.Value = slog.StringValue("WARNING")
		}
	}
	return a
}
