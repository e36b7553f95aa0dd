package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

func TestCloudLogging(t *testing.T) {
	for _, format := range []string{"json", "auto"} {
		var b bytes.Buffer
		log := New(&b, "debug", format)
		log.Debug("one")
		log.Info("two", "n", 1, "error", errors.New("reason"))
		log.Warn("three", "level", "x") //nolint:sloglint // What a library may do.
		log.Error("four")
		log.WithGroup("group").Info("five", "level", "mine", "msg", "mine") //nolint:sloglint // As above.
		want := []struct{ severity, message string }{{"DEBUG", "one"}, {"INFO", "two"}, {"WARNING", "three"}, {"ERROR", "four"}, {"INFO", "five"}}
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		if len(lines) != len(want) {
			t.Fatalf("%s: got %s", format, b.String())
		}
		var last map[string]any
		for i, l := range lines {
			last = nil
			if err := json.Unmarshal([]byte(l), &last); err != nil {
				t.Fatalf("%s: %v", l, err)
			}
			if last["severity"] != want[i].severity || last["message"] != want[i].message {
				t.Errorf("got %s, want %+v", l, want[i])
			}
			if at, err := time.Parse(time.RFC3339Nano, last["time"].(string)); err != nil || time.Since(at) > time.Minute {
				t.Errorf("time: %v, %v", at, err)
			}
			if _, ok := last["msg"]; ok {
				t.Errorf("slog's own name is left: %s", l)
			}
			if i == 1 && (last["n"] != 1.0 || last["error"] != "reason") {
				t.Errorf("got %s", l)
			}
		}
		// Attributes in a group are not Cloud Logging's.
		if group := last["group"].(map[string]any); group["level"] != "mine" || group["msg"] != "mine" {
			t.Errorf("got %v", group)
		}
	}
}

func TestTextFormat(t *testing.T) {
	var b bytes.Buffer
	New(&b, "info", "text").Info("hello", "n", 1)
	got := b.String()
	if !strings.Contains(got, "INF hello n=1") || strings.Contains(got, "\x1b") || strings.HasPrefix(got, "{") {
		t.Errorf("got %q", got)
	}
}

func TestLevelFilters(t *testing.T) {
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	for name, first := range map[string]int{"debug": 0, "info": 1, "warn": 2, "error": 3, "nonsense": 1} {
		for _, format := range []string{"json", "text"} {
			var b bytes.Buffer
			log := New(&b, name, format)
			for _, l := range levels {
				log.Log(t.Context(), l, "x")
			}
			if got := strings.Count(b.String(), "\n"); got != len(levels)-first {
				t.Errorf("%s, %s: %d lines", name, format, got)
			}
		}
	}
}

// TestControlSequencesAreReplaced logs what a terminal would obey, in every place of a record: in text
// it is replaced, also where the handler has colours of its own, and in JSON
// escaped.
func TestControlSequencesAreReplaced(t *testing.T) {
	const bad = "\x1b[2J\x1b[31m\u009b2J\u202e\x07"
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	write := func(log *slog.Logger) {
		log.With("with", bad).Info("message "+bad, "text", bad, "error", errors.New(bad), slog.Group("g", "in", bad))
	}
	write(New(tty, "info", "text"))
	shown := make([]byte, 4096)
	n, err := screen.Read(shown)
	tty.Close()
	if err != nil {
		t.Fatal(err)
	}
	var plain, asJSON bytes.Buffer
	write(New(&plain, "info", "text"))
	write(New(&asJSON, "info", "json"))
	colours := regexp.MustCompile(`\x1b\[[0-9;]*m`)
	for name, got := range map[string]string{"terminal": colours.ReplaceAllString(string(shown[:n]), ""), "text": plain.String(), "JSON": asJSON.String()} {
		if !strings.Contains(got, "message") {
			t.Errorf("%s: nothing is logged", name)
		}
		for _, r := range got {
			if terminal.Unsafe(r) && r != '\n' && r != '\r' {
				t.Errorf("%s: %q in %q", name, r, got)
				break
			}
		}
	}
	if strings.Contains(string(shown[:n]), "\x1b[31m") {
		t.Errorf("a colour of somebody else: %q", shown[:n])
	}
}
