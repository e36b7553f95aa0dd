package dlqui

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

func TestFaultsPageCountsFiltersAndGroups(t *testing.T) {
	messages := append(queueOf(5, userDetail), rejected(100, typoDetail, `{"typo":1}`, "service_id", "pings", "dlq_replays", "1"))
	b := open(t, &fakeQueue{messages: messages, reading: Reading{Complete: true, Running: dlq.Worker{ServicesDigest: "abc"}}})
	page := b.get("/")
	b.want(page, "project p", "environment dev", "as the running worker has it", "6 messages, read just now", "worker dlq stats",
		"2 faults of 2, 6 messages", faultID(userDetail), userDetail, "core-services", "1.85.0 × 5", "growing")
	if !strings.Contains(page, `href="https://example.com/sams"`) {
		t.Error("no link to the runbook")
	}
	b.want(b.get("/?service=pings"), "1 fault of 2, 1 message", "worker dlq stats --service pings", "100%")
	b.want(b.get("/?text=USERID&fold=owner"), "1 fault of 2", "core-services: 1 fault, 5 messages")
	b.want(b.get("/?reason=malformed_payload"), "No fault matches")
}

func TestFaultPageShowsNewestMessages(t *testing.T) {
	b := open(t, &fakeQueue{messages: queueOf(30, userDetail)})
	page := b.get("/faults/" + faultID(userDetail))
	b.want(page, "The newest 20 of 30 messages", "019a0000-0000-7000-8000-000000000000", "1.85.0", "Replay with --jq", "worker dlq list --fault "+faultID(userDetail))
	if strings.Contains(page, secret) {
		t.Error("private data is shown")
	}
}

func TestPrivateDataIsShownOnlyWithARecord(t *testing.T) {
	queue := &fakeQueue{messages: queueOf(2, userDetail)}
	b := open(t, queue)
	page := b.get("/events/q1")
	b.want(page, userDetail, "← here", "service_id = sams", "worker dlq show 019a0000-0000-7000-8000-000000000001", "hidden: private, or may be")
	if strings.Contains(page, secret) {
		t.Fatal("private data is shown")
	}
	if w := b.do(http.MethodGet, "/find?id=m1", nil); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/events/q1" {
		t.Errorf("find: %d %s", w.Code, w.Header())
	}
	if w := b.do(http.MethodGet, "/events/q1/reveal", nil); w.Code != http.StatusNotFound || len(queue.revealed) > 0 {
		t.Errorf("revealed by a link: %d", w.Code)
	}
	w := b.post("/events/q1/reveal")
	b.want(w.Body.String(), secret, "The audit file has a record of it", "--reveal")
	if !slices.Equal(queue.revealed, []string{"q1"}) {
		t.Errorf("recorded %v", queue.revealed)
	}
	queue.revealErr = errors.New("the disk is full")
	w = b.post("/events/q1/reveal")
	if b.want(w.Body.String(), "is not shown, because that cannot be recorded: the disk is full"); strings.Contains(w.Body.String(), secret) {
		t.Error("private data is shown without a record")
	}
}
