package preflight

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// StartWait is how long a run waits at its start for missing resources and permissions: a
// new resource or grant takes a while to be visible everywhere.
const StartWait = 15 * time.Second

// waitPause is the pause between two checks.
const waitPause = time.Second

// Wait repeats a check until it finds no fault, finds one that does not pass by itself, or
// has found faults for longer than wait, or until ctx ends. It returns the result of the
// last check, and warns once when it begins to wait.
func Wait(ctx context.Context, wait time.Duration, log *slog.Logger, check func() (fault error, passes bool)) error {
	began := time.Now()
	for waiting := false; ; {
		fault, passes := check()
		if !waiting {
			began = time.Now() // the first check may have taken long: it waits for answers
		}
		left := wait - time.Since(began)
		switch {
		case fault == nil && waiting:
			log.Info("Everything that was missing is available", "seconds", time.Since(began).Seconds())
			return nil
		case fault == nil || !passes || left <= 0 || ctx.Err() != nil:
			return fault
		case !waiting:
			waiting = true
			log.Warn("A resource or permission is missing; waiting for it, because a new one takes a while to be visible",
				"missing", strings.ReplaceAll(fault.Error(), "\n", "; "), "at_most", wait.String())
		}
		if retry.Sleep(ctx, min(left, waitPause)) != nil {
			return fault
		}
	}
}
