package dlqcmd

import (
	"context"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// TestApplyGoesOnAfterCanaries: some events of each fault go ahead; the rest follows if
// none of them is rejected again.
func TestApplyGoesOnAfterCanaries(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	waits := 0
	got := h.dlqHearing(t.Context(), func(text string) {
		if strings.Contains(text, "went ahead") {
			waits++
			h.replayed(6)
			h.left(32)
		}
	}, "apply", path, "--yes", "--canary", "3", "--canary-wait", "1ms")
	if got.status != 0 || waits != 1 || !strings.Contains(got.stderr, "nothing says that they arrived: RECEIPTS_SUBSCRIPTION is not set") {
		t.Errorf("%d waits, %+v", waits, got)
	}
	h.replayed(30)
	h.left(3)
	if want := "30 published and 5 purged now; of 35 messages of the plan 30 are published, 5 purged, 0 failed and 0 not done yet\n"; !strings.Contains(got.stdout, want) {
		t.Error(got.stdout)
	}
}

// TestApplyStopsWhenCanaryComesBack: a canary that is rejected again ends the run, long
// before the wait is over; the same command does not publish the rest either.
func TestApplyStopsWhenCanaryComesBack(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	h.rejecting(1)
	for range 2 {
		got := h.dlq(t.Context(), "apply", path, "--yes", "--canary", "3", "--canary-wait", "1h")
		if got.status != 1 || !strings.Contains(got.stderr, "1 of 6 canaries were rejected again: the rest was not published") {
			t.Errorf("%+v", got)
		}
		h.replayed(6)
		h.left(33)
	}
	if got := h.apply(t.Context()); got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
}

// TestInterruptedApplyKeepsItsCanaries: after an interruption the same command waits for
// the same canaries.
func TestInterruptedApplyKeepsItsCanaries(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := h.dlqHearing(ctx, func(text string) {
		if strings.Contains(text, "went ahead") {
			cancel()
		}
	}, "apply", path, "--yes", "--canary", "2", "--canary-wait", "1h")
	if got.status != 1 || !strings.Contains(got.stderr, "interrupted while waiting for the canaries: 4 canaries published") {
		t.Errorf("%+v", got)
	}
	h.replayed(4)
	got = h.dlqHearing(t.Context(), func(text string) {
		if strings.Contains(text, "went ahead") {
			h.replayed(4)
		}
	}, "apply", path, "--yes", "--canary", "2", "--canary-wait", "1ms")
	if got.status != 0 {
		t.Errorf("%+v", got)
	}
	h.replayed(30)
}

// TestApplyBelievesReceipts: with receipts the rest follows as soon as the canaries are
// recorded.
func TestApplyBelievesReceipts(t *testing.T) {
	for _, c := range []struct {
		name      string
		verdicts  []string // of the canaries; fewer than these have none
		wait      string
		status    int
		published int
		says      string
	}{
		{"recorded", []string{"recorded", "recorded", "duplicate", "recorded"}, "1h", 0, 30, "4 canaries were recorded; going on with the rest"},
		{"one rejected", []string{"recorded", "rejected", "recorded", "recorded"}, "1h", 1, 4, "1 of 4 canaries were rejected again"},
		{"one without a receipt", []string{"recorded", "recorded", "recorded"}, "100ms", 0, 30, "3 of 4 canaries were recorded and none was rejected again; 1 have no receipt"},
		{"none", nil, "100ms", 1, 4, "no receipt came for 4 canaries"},
		{"of a later worker", []string{"postponed"}, "100ms", 1, 4, "no receipt came for 4 canaries"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newPlanned(t)
			path := h.make()
			h.receipt(&pubsubpb.PubsubMessage{Attributes: map[string]string{"replay_id": "another", "origin_message_id": "m1"}}, "rejected")
			got := h.with(withReceipts, func(text string) {
				if strings.Contains(text, "went ahead") {
					for i, m := range h.replayed(4) {
						if i < len(c.verdicts) {
							h.receipt(m, c.verdicts[i])
						}
					}
				}
			}, "apply", path, "--yes", "--canary", "2", "--canary-wait", c.wait)
			if got.status != c.status || !strings.Contains(got.stderr, c.says) {
				t.Errorf("%+v", got)
			}
			h.replayed(c.published)
			// The command releases the receipt of the other replay.
			if s := h.Stats(receiptsSub); s.Backlog != 1 || s.Leased != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}
