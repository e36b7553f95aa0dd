package preflight

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// StartWait is for how long a run waits at its start for what is missing: what was
// just created or granted takes a while to be seen everywhere.
const StartWait = 15 * time.Second

// waitPause is the pause between two checks.
const waitPause = time.Second

// Wait repeats a check until it finds no fault, or one that does not pass, or
// faults for longer than wait, or ctx ends. It returns what the last check found,
// and warns once when it begins to wait.
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
			log.Info("What was missing is there", "seconds", time.Since(began).Seconds())
			return nil
		case fault == nil || !passes || left <= 0 || ctx.Err() != nil:
			return fault
		case !waiting:
			waiting = true
			log.Warn("Something that the worker needs is missing; waiting for it, because what was just created or granted takes a while",
				"missing", strings.ReplaceAll(fault.Error(), "\n", "; "), "at_most", wait.String())
		}
		timer := time.NewTimer(min(left, waitPause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fault
		}
	}
}
