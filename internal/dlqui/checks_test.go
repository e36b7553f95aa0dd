package dlqui

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

func spoolOf(t *testing.T, n int) *spool.Spool {
	t.Helper()
	w, err := spool.Create(t.TempDir(), "dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range queueOf(n, userDetail) {
		if err := w.Add(m); err != nil {
			t.Fatal(err)
		}
	}
	made := w.Finish()
	t.Cleanup(made.Release)
	return made
}

// accepts is a check of the worker that accepts every event.
func accepts(event.Message) *event.Rejection { return nil }

func newTestChecks(t *testing.T, of eventCheck) *checks {
	c := newChecks(of, newBackground())
	t.Cleanup(c.background.close)
	return c
}

func TestCheckCountsAllEventsOfTheFault(t *testing.T) {
	current, fault := spoolOf(t, 3), faultID(userDetail)
	of := newTestChecks(t, func(m event.Message) *event.Rejection {
		if strings.Contains(string(m.Data), `"userId":"1"`) {
			return &event.Rejection{Reason: event.InvalidEvent, Detail: "no"}
		}
		return nil
	})
	for jq, want := range map[string]checkState{
		"del(.privateMetadata)":                  {Total: 3, Tried: 3, Passed: 2, Failed: 1, Done: true},
		".user.userId |= error":                  {Total: 3, Tried: 3, Failed: 3, Done: true},
		".[":                                     {Done: true, Error: "Expected a jq expression"},
		strings.Repeat(" ", maxExpression) + ".": {Done: true, Error: "The expression is longer"},
	} {
		c := of.begin(current, fault, jq)
		c.wait(t.Context(), 20*time.Second)
		got := c.snapshot()
		if got.Done != want.Done || got.Tried != want.Tried || got.Passed != want.Passed || got.Failed != want.Failed || (got.Error == "") != (want.Error == "") {
			t.Errorf("%.30q: %+v, want %+v", jq, got, want)
		}
	}
}

// TestCheckIsOfItsSpool: a request that began before the queue was read again may come
// after the new reading, and its check must not be shown for the new messages.
func TestCheckIsOfItsSpool(t *testing.T) {
	of, fault := newTestChecks(t, accepts), faultID(userDetail)
	before, after := spoolOf(t, 1), spoolOf(t, 2)
	of.forget() // at the reading
	late := of.begin(before, fault, ".")
	if late == nil || of.begin(before, fault, ".") != late || of.find(before, fault, ".") != late {
		t.Error("the check was not kept")
	}
	if of.find(after, fault, ".") != nil || of.begin(after, fault, ".") == late {
		t.Error("a check of the old messages is shown for the new ones")
	}
	of.forget()
	if of.find(before, fault, ".") != nil || of.find(after, fault, ".") != nil {
		t.Error("a check was not forgotten")
	}
}

func TestOnlyTheNewestChecksAreKept(t *testing.T) {
	of, current := newTestChecks(t, accepts), spoolOf(t, 1)
	jq := func(i int) string { return fmt.Sprintf(".x = %d", i) }
	for i := range maxChecks + 1 {
		of.begin(current, faultID(userDetail), jq(i))
	}
	if of.find(current, faultID(userDetail), jq(0)) != nil || of.find(current, faultID(userDetail), jq(1)) == nil || len(of.kept) != maxChecks || len(of.order) != maxChecks {
		t.Errorf("%d checks are kept", len(of.kept))
	}
}

// TestCheckNeedsASpoolAndARunningServer: begin returns no check that nothing would finish.
func TestCheckNeedsASpoolAndARunningServer(t *testing.T) {
	of, current := newTestChecks(t, accepts), spoolOf(t, 1)
	of.background.close()
	if c := of.begin(current, faultID(userDetail), "."); c != nil || len(of.kept) > 0 {
		t.Error("a check began after close")
	}
	w, err := spool.Create(t.TempDir(), "dev")
	if err != nil {
		t.Fatal(err)
	}
	gone := w.Finish()
	gone.Release()
	if newTestChecks(t, accepts).begin(gone, faultID(userDetail), ".") != nil {
		t.Error("a check began without its spool")
	}
}

func TestWaitForACheckEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	(&check{finished: make(chan struct{})}).wait(ctx, time.Hour)
}
