package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
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
		// What is in a group is not Cloud Logging's.
		if group := last["group"].(map[string]any); group["level"] != "mine" || group["msg"] != "mine" {
			t.Errorf("got %v", group)
		}
	}
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	New(&b, "info", "text").Info("hello", "n", 1)
	got := b.String()
	if !strings.Contains(got, "INF hello n=1") || strings.Contains(got, "\x1b") || strings.HasPrefix(got, "{") {
		t.Errorf("got %q", got)
	}
}

func TestLevel(t *testing.T) {
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

func TestTerminal(t *testing.T) {
	if Terminal(&bytes.Buffer{}) || Terminal(nil) {
		t.Error("not every writer is a terminal")
	}
}
