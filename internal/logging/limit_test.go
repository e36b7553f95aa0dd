package logging

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"
)

func TestRepeatedLinesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.New(Limit(New(&b, "debug", "json").Handler()))
		derived := log.With("from", "another")
		lines := func() []string {
			all := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			b.Reset()
			return all
		}
		for i := range 100 {
			log.Info("frequent")
			log.Error("bad", "n", i)
			derived.Error("bad", "n", i)
			log.Warn("bad", "n", i)
		}
		count := map[string]int{}
		var last string
		for _, l := range lines() {
			for _, severity := range []string{"INFO", "WARNING", "ERROR"} {
				if strings.Contains(l, `"severity":"`+severity+`"`) {
					count[severity]++
				}
			}
			if strings.Contains(l, `"ERROR"`) {
				last = l
			}
		}
		if fmt.Sprint(count) != "map[ERROR:20 INFO:100 WARNING:20]" {
			t.Errorf("got %v", count)
		}
		if !strings.Contains(last, `"repeated":"further ones are left out for up to 1m0s"`) {
			t.Errorf("the last says %s", last)
		}
		log.Error("another")
		if got := lines(); !strings.Contains(got[0], "another") {
			t.Errorf("got %s", got)
		}
		time.Sleep(time.Minute)
		log.Error("bad")
		log.Error("bad")
		got := lines()
		if len(got) != 2 || !strings.Contains(got[0], `"left_out_before":180`) || strings.Contains(got[1], "left_out") {
			t.Errorf("after a while: %s", got)
		}
		// However many messages there are, memory is bounded.
		for i := range 5000 {
			log.Warn(fmt.Sprint("made up ", i)) //nolint:sloglint // What a library may do.
		}
		if n := len(log.Handler().(*limiter).seen.counts); n > limitMessages {
			t.Errorf("%d messages are remembered", n)
		}
	})
}

func TestLinesCarryTrace(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(Correlate(New(&b, "info", "json").Handler(), "my-project")).With("k", "v")
	log.InfoContext(t.Context(), "plain")
	if strings.Contains(b.String(), "googleapis") {
		t.Errorf("got %s", b.String())
	}
	b.Reset()
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1, 2}, SpanID: trace.SpanID{3}, TraceFlags: trace.FlagsSampled,
	}))
	log.InfoContext(ctx, "in a trace")
	for _, want := range []string{
		`"k":"v"`,
		`"logging.googleapis.com/trace":"projects/my-project/traces/01020000000000000000000000000000"`,
		`"logging.googleapis.com/spanId":"0300000000000000"`,
		`"logging.googleapis.com/trace_sampled":true`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got %s, want %s", b.String(), want)
		}
	}
}
