package app_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
)

func TestReportsEndBeforeKill(t *testing.T) {
	for _, c := range []struct {
		deadline, ran, since time.Duration // since: a signal; negative: there was none
		want, flush          time.Duration
	}{
		{0, time.Hour, -1, 5 * time.Second, 2 * time.Second},
		{5 * time.Minute, time.Minute, -1, 5 * time.Second, 2 * time.Second},
		{5 * time.Minute, 5*time.Minute - 8*time.Second, -1, 2500 * time.Millisecond, 2 * time.Second},
		{5 * time.Minute, 5 * time.Minute, -1, time.Second, 0},
		{0, time.Hour, 0, 4500 * time.Millisecond, 2 * time.Second},
		{0, time.Hour, 6 * time.Second, 1500 * time.Millisecond, 2 * time.Second},
		{0, time.Hour, 7 * time.Second, time.Second, time.Second},
		{0, time.Hour, 8 * time.Second, time.Second, 0},
		{5 * time.Minute, 5*time.Minute - 8*time.Second, 0, 2500 * time.Millisecond, 2 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e := app.NewEnding(ctx, &config.Config{JobDeadline: c.deadline})
			time.Sleep(c.ran - max(0, c.since))
			if c.since >= 0 {
				cancel()
				synctest.Wait()
				time.Sleep(c.since)
			}
			if got := e.Time(); got != c.want {
				t.Errorf("%+v: got %v", c, got)
			}
			if got := e.Flush(8 * time.Second); got != c.flush {
				t.Errorf("%+v: receipts have %v", c, got)
			}
		})
	}
}
