package spool

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

func message(i int, detail string) *pubsubpb.PubsubMessage {
	return &pubsubpb.PubsubMessage{
		MessageId: fmt.Sprintf("q%d", i), Data: fmt.Appendf(nil, `{"feature":"sams.user","action":"created","metadata":{"n":%d}}`, i),
		Attributes: map[string]string{
			"service_id": "sams", "dlq_reason": "invalid_event", "dlq_detail": detail, "dlq_message_id": fmt.Sprintf("m%d", i),
			"dlq_event_id":    fmt.Sprintf("019a0000-0000-7000-8000-%012d", i),
			"dlq_rejected_at": fmt.Sprintf("2026-11-20T10:00:%02dZ", i),
		},
	}
}

func TestSpoolFindsMessagesByIDAndFault(t *testing.T) {
	folder := t.TempDir()
	w, err := Create(folder, "dev")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		detail := "typo: unknown field"
		if i%5 == 0 {
			detail = "feature: missing"
		}
		if err := w.Add(message(i, detail)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add(message(3, "typo: unknown field")); err != nil { // delivered again
		t.Fatal(err)
	}
	s := w.Finish()
	if s.Len() != 10 {
		t.Errorf("%d messages, want 10", s.Len())
	}
	faults := s.Faults()
	if len(faults) != 2 || faults[0].Count != 8 || faults[1].Count != 2 {
		t.Fatalf("faults %+v", faults)
	}
	numbers := s.Of(faults[0].ID)
	if newest, err := s.Read(numbers[0]); err != nil || newest.ID != "q9" || newest.Environment != "dev" || len(numbers) != 8 {
		t.Errorf("the newest of %d: %+v, %v", len(numbers), newest, err)
	}
	for _, id := range []string{"q7", "m7", "019a0000-0000-7000-8000-000000000007"} {
		n, ok := s.Find(id)
		if m, err := s.Read(n); !ok || err != nil || m.ID != "q7" {
			t.Errorf("find %s: %v, %v", id, m, err)
		}
	}
	if _, ok := s.Find("nothing"); ok {
		t.Error("an unknown id was found")
	}
	if _, err := s.Read(10); !errors.Is(err, ErrNone) {
		t.Errorf("a message that is not there: %v", err)
	}
	var visited []string
	if err := s.Each(t.Context(), s.Of(faults[1].ID), func(m *dlq.Stored) error {
		visited = append(visited, m.ID)
		return nil
	}); err != nil || !slices.Equal(visited, []string{"q5", "q0"}) {
		t.Errorf("visited %v, %v", visited, err)
	}

	if !s.Hold() {
		t.Error("a spool that is there cannot be kept")
	}
	s.Release()
	if _, err := s.Read(0); err != nil {
		t.Errorf("a spool in use was removed: %v", err)
	}
	s.Release()
	if s.Hold() {
		t.Error("a spool that was removed is still used")
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("the folder has %v, %v", left, err)
	}
}

func TestSpoolFileIsPrivateAndUnlinked(t *testing.T) {
	folder := t.TempDir()
	w, err := Create(folder, "dev")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	info, err := w.spool.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("mode %o, want 600", mode)
	}
	if left, _ := os.ReadDir(folder); len(left) > 0 && runtime.GOOS == "linux" {
		t.Errorf("a killed process leaves %v", left)
	}
}
