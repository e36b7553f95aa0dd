package dlqcmd

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestStatusFollowsPlan follows a plan from the beginning to the last receipt.
func TestStatusFollowsPlan(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	status := func(variables []string, want ...string) {
		t.Helper()
		got := h.with(variables, nil, "status", path)
		for _, part := range want {
			if got.status != 0 || !strings.Contains(got.stdout, part) {
				t.Errorf("no %q in %+v", part, got)
			}
		}
	}
	status(withReceipts, "In all: 0 published, 0 recorded, 0 rejected, 0 waiting, 35 not done yet\n", "It was not applied yet. Next: worker dlq apply ")
	if _, err := os.Stat(h.path("plan.json.journal")); !errors.Is(err, os.ErrNotExist) {
		t.Error("status has begun the journal")
	}
	if got := h.apply(t.Context()); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	status(nil, "In all: 30 published, 5 purged\n", "Whether the published events were recorded is not known: RECEIPTS_SUBSCRIPTION is not set.\n")
	h.receipt(&pubsubpb.PubsubMessage{Attributes: map[string]string{"replay_id": "another", "origin_message_id": "m1"}}, "rejected")
	published := h.replayed(30)
	for _, m := range published[:12] {
		h.receipt(m, "recorded")
	}
	h.receipt(published[0], "recorded") // twice
	h.receipt(published[12], "rejected", "reason", "oversized")
	h.receipt(published[13], "duplicate")
	h.receipt(published[14], "postponed")
	for range 2 { // the second time from the journal
		status(withReceipts, "In all: 30 published, 12 recorded, 1 recorded before (duplicates), 1 rejected, 16 waiting, 5 purged\n", "1 rejected again: oversized\n")
		if s := h.Stats(receiptsSub); s.Backlog != 1 || s.Leased != 0 {
			t.Errorf("%+v", s)
		}
	}
	got := h.with(withReceipts, nil, "status", path, "--output", "json")
	if !strings.Contains(got.stdout, `"planned":35,"published":30,"purged":5,"left":0,"todo":0,"recorded":12,"duplicates":1,"rejected":1,"waiting":16,"receipts":true`) {
		t.Error(got.stdout)
	}
	// Without the receipts' subscription the command still prints the journal.
	got = h.with([]string{"RECEIPTS_SUBSCRIPTION=nothing"}, nil, "status", path)
	if got.status != 1 || !strings.Contains(got.stdout, "30 published, 12 recorded") || !strings.Contains(got.stderr, "RECEIPTS_SUBSCRIPTION: projects/p/subscriptions/nothing does not exist") {
		t.Errorf("%+v", got)
	}
	h.left(3)
}

// TestInterruptedStatusCountsReceiptsOnce: a receipt is in the journal before it is
// acknowledged, and is counted once whenever the reading ends.
func TestInterruptedStatusCountsReceiptsOnce(t *testing.T) {
	for _, method := range []string{"Pull", "ModifyAckDeadline", "Acknowledge"} {
		t.Run(method, func(t *testing.T) {
			h := newPlanned(t)
			path := h.make()
			if got := h.apply(t.Context()); got.status != 0 {
				t.Fatalf("%+v", got)
			}
			for _, m := range h.replayed(30) {
				h.receipt(m, "recorded")
			}
			h.SetFault(func(m string, _ any) error {
				if m == method {
					return status.Error(codes.PermissionDenied, "no")
				}
				return nil
			})
			h.with(withReceipts, nil, "status", path)
			h.SetFault(nil)
			h.ExpireLeases(receiptsSub)
			began := time.Now()
			got := h.with(withReceipts, nil, "status", path)
			if !strings.Contains(got.stdout, "30 published, 30 recorded, 0 rejected, 0 waiting") || time.Since(began) > time.Minute {
				t.Errorf("%+v", got)
			}
			if s := h.Stats(receiptsSub); s.Backlog != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}
