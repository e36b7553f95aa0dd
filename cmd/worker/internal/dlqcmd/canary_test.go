package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// canaryQueue is a queue of 20 messages, and a replay that waits for canaries.
type canaryQueue struct {
	*testQueue
	ids []string
}

func newCanaryQueue(t *testing.T) *canaryQueue {
	t.Parallel()
	h := &canaryQueue{testQueue: newTestQueue(t)}
	for i := range 20 {
		h.ids = append(h.ids, h.put(deadLettered(i, goodData(i), "dlq_event_id", fmt.Sprintf("event-%d", i)))...)
	}
	return h
}

// replay replays with canaries and calls waiting when it waits for them.
func (h *canaryQueue) replay(waiting func(), args ...string) dlqResult {
	h.t.Helper()
	waits := 0
	got := h.dlqHearing(h.t.Context(), func(text string) {
		if strings.Contains(text, "went ahead") {
			waits++
			waiting()
		}
	}, append([]string{"replay", "--yes", "--output", "json"}, args...)...)
	if waits != 1 {
		h.t.Errorf("it waited %d times: %s", waits, got.stderr)
	}
	return got
}

func (h *canaryQueue) want(got dlqResult, status int, stdout string, says ...string) {
	h.t.Helper()
	if got.status != status || got.stdout != stdout+"\n" {
		h.t.Errorf("status %d, want %d; stdout %s, want %s; stderr %s", got.status, status, got.stdout, stdout, got.stderr)
	}
	for _, text := range says {
		if !strings.Contains(got.stderr, text) {
			h.t.Errorf("want %q in %s", text, got.stderr)
		}
	}
}

// atRest fails the test unless exactly the canaries are published and no message is leased.
func (h *canaryQueue) atRest(canaries int) {
	h.t.Helper()
	h.replayed(canaries)
	h.left(20 - canaries)
}

// rejectAgain dead-letters a message as the worker does.
func (h *canaryQueue) rejectAgain(m *pubsubpb.PubsubMessage, attributes ...string) {
	message := deadLettered(0, string(m.GetData()), "dlq_reason", "gateway_rejected", "dlq_message_id", m.GetMessageId(), "dlq_replays", m.GetAttributes()["replay_count"])
	maps.Copy(message.GetAttributes(), m.GetAttributes())
	for i := 0; i < len(attributes); i += 2 {
		message.Attributes[attributes[i]] = attributes[i+1]
	}
	h.put(message)
}

func TestCanariesGoAhead(t *testing.T) {
	h := newCanaryQueue(t)
	got := h.replay(func() { h.atRest(3) }, "--canary", "3", "--canary-wait", "1ms")
	h.want(got, 0, `{"matched":20,"replayed":20,"failed":0,"left":0,"canaries":3,"canaries_seen_again":0}`, "not seen again", "the 17 messages")
	h.replayed(20)
	h.left(0)
}

// TestCanaryThatComesBackStopsReplay: a canary that is rejected again, in any form, ends
// the wait early, because the command looks at the queue meanwhile.
func TestCanaryThatComesBackStopsReplay(t *testing.T) {
	for name, comeBack := range map[string]func(h *canaryQueue, canary *pubsubpb.PubsubMessage){
		"rejected": func(h *canaryQueue, canary *pubsubpb.PubsubMessage) { h.rejectAgain(canary) },
		"rejected and replayed by somebody else": func(h *canaryQueue, canary *pubsubpb.PubsubMessage) {
			h.rejectAgain(canary, "replay_count", "2")
		},
		"taken by Pub/Sub's own policy": func(h *canaryQueue, canary *pubsubpb.PubsubMessage) {
			native := &pubsubpb.PubsubMessage{Data: canary.GetData(), Attributes: maps.Clone(canary.GetAttributes())}
			native.Attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = "5"
			h.put(native)
		},
		"by its event id": func(h *canaryQueue, canary *pubsubpb.PubsubMessage) {
			id := strings.Replace(canary.GetAttributes()["origin_message_id"], "m", "event-", 1)
			h.put(deadLettered(99, "x", "dlq_event_id", id))
		},
		"by the id in its data": func(h *canaryQueue, canary *pubsubpb.PubsubMessage) {
			id := strings.Replace(canary.GetAttributes()["origin_message_id"], "m", "event-", 1)
			h.put(&pubsubpb.PubsubMessage{Data: fmt.Appendf(nil, `{"id":%q}`, id)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newCanaryQueue(t)
			got := h.replay(func() {
				h.atRest(3)
				comeBack(h, h.Messages(dlqLedger)[1])
			}, "--canary", "3", "--canary-wait", "20s", "--reason", "invalid_event")
			h.want(got, 1, `{"matched":20,"replayed":3,"failed":0,"left":18,"canaries":3,"canaries_seen_again":1}`, "was rejected again", "1 of 3 canaries")
			h.replayed(3)
			h.left(18)
		})
	}
}

// TestCanaryThatComesBackAtOnceStopsReplay: a canary that the worker rejects during the
// first pass ends the replay without a wait.
func TestCanaryThatComesBackAtOnceStopsReplay(t *testing.T) {
	h := newCanaryQueue(t)
	h.SetFault(func(method string, req any) error {
		if r, ok := req.(*pubsubpb.PublishRequest); ok && method == "Publish" {
			h.rejectAgain(r.GetMessages()[0])
		}
		return nil
	})
	got := h.dlq(t.Context(), "replay", "--yes", "--output", "json", "--canary", "3", "--canary-wait", "20s")
	h.want(got, 1, `{"matched":20,"replayed":3,"failed":0,"left":18,"canaries":3,"canaries_seen_again":1}`, "1 of 3 canaries were rejected again")
	if strings.Contains(got.stderr, "went ahead") {
		t.Errorf("it waits: %s", got.stderr)
	}
	h.replayed(3)
	h.left(18)
}

// TestOtherMessagesAreNoCanaries: a message that only resembles a canary does not stop the
// rest, and is not replayed itself.
func TestOtherMessagesAreNoCanaries(t *testing.T) {
	h := newCanaryQueue(t)
	// Another message of the event that goes ahead.
	h.put(deadLettered(0, goodData(0), "dlq_reason", "oversized", "dlq_event_id", "event-0"))
	got := h.replay(func() {
		canary := h.replayed(1)[0]
		if canary.GetAttributes()["origin_message_id"] != "m0" {
			t.Errorf("it is %v", canary)
		}
		// Newly rejected messages; one has the origin of a canary but was never replayed.
		h.put(deadLettered(0, goodData(0), "dlq_event_id", "other"), deadLettered(100, goodData(100)))
	}, "--canary", "1", "--canary-wait", "1ms", "--reason", "invalid_event", "--no-check") // the check reads the queue before, which changes the order
	h.want(got, 0, `{"matched":20,"replayed":20,"failed":0,"left":3,"canaries":1,"canaries_seen_again":0}`,
		"still rejected: invalid_event of sams, sams.user/created", "2 new messages of the kinds", "0 of them events that had been replayed")
	h.replayed(20)
	h.left(3)
}

func TestInterruptedCanaryWait(t *testing.T) {
	h := newCanaryQueue(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := h.dlqHearing(ctx, func(text string) {
		if strings.Contains(text, "went ahead") {
			cancel()
		}
	}, "replay", "--yes", "--output", "json", "--canary", "4", "--canary-wait", "1h")
	h.want(got, 1, `{"matched":20,"replayed":4,"failed":0,"left":16,"canaries":4,"canaries_seen_again":0}`,
		"interrupted while waiting for the canaries: 4 canaries replayed", `"replayed":4`)
	h.atRest(4)
}

func TestCanariesCountTowardsLimit(t *testing.T) {
	for _, c := range []struct {
		canary, limit   string
		ahead, replayed int
	}{
		{"3", "2", 2, 2},
		{"2", "2", 2, 2},
		{"2", "5", 2, 5},
		{"50", "0", 20, 20},
	} {
		t.Run(c.canary+" of "+c.limit, func(t *testing.T) {
			h := newCanaryQueue(t)
			matched := c.replayed
			got := h.replay(func() { h.atRest(c.ahead) }, "--canary", c.canary, "--canary-wait", "1ms", "--limit", c.limit)
			h.want(got, 0, fmt.Sprintf(`{"matched":%d,"replayed":%d,"failed":0,"left":%d,"canaries":%d,"canaries_seen_again":0}`,
				matched, c.replayed, 20-c.replayed, c.ahead))
			h.replayed(c.replayed)
		})
	}
}

// TestFailingMessagesAreNoCanaries: messages that cannot be replayed are no canaries. If no
// message can be replayed, the command does not wait.
func TestFailingMessagesAreNoCanaries(t *testing.T) {
	t.Parallel()
	h := &canaryQueue{testQueue: newTestQueue(t)}
	for i := range 5 {
		h.put(deadLettered(i, typoData(i)))
	}
	h.expect(1, `{"matched":5,"replayed":0,"failed":5,"left":5}`+"\n", "replay", "--yes", "--output", "json", "--canary", "2")
	h.left(5)
	for i := range 5 {
		h.put(deadLettered(10+i, goodData(i)))
	}
	got := h.replay(func() { h.replayed(2) }, "--canary", "2", "--canary-wait", "1ms")
	h.want(got, 1, `{"matched":10,"replayed":5,"failed":5,"left":5,"canaries":2,"canaries_seen_again":0}`, "typo: unknown field")
	if n := strings.Count(got.stderr, "is left: "); n != 1 || !strings.Contains(got.stderr, "5 in all are left") {
		t.Errorf("%d are told: %s", n, got.stderr)
	}
	h.left(5)
}

// TestCanaryMayBeLeasedByAnotherReader: another reader may have leased a canary, so that
// the command looks through the queue again.
func TestCanaryMayBeLeasedByAnotherReader(t *testing.T) {
	h := newCanaryQueue(t)
	var release func()
	looks := 0
	got := h.dlqHearing(t.Context(), func(text string) {
		switch {
		case strings.Contains(text, "went ahead"):
			release = h.lease(5)
		case strings.Contains(text, "looking again in"):
			if looks++; looks == 2 {
				release()
			}
		}
	}, "replay", "--yes", "--output", "json", "--canary", "3", "--canary-wait", "1ms")
	h.want(got, 0, `{"matched":20,"replayed":20,"failed":0,"left":0,"canaries":3,"canaries_seen_again":0}`, "5 messages are leased by another process or not yet available")
	if looks != 2 {
		t.Errorf("%d more looks", looks)
	}
	h.left(0)
}

// TestReceiptsEndCanaryWait: receipts of all canaries end the wait, whether they were
// recorded or rejected.
func TestReceiptsEndCanaryWait(t *testing.T) {
	for _, c := range []struct {
		name      string
		verdicts  []string
		wait      string
		status    int
		published int
		says      string
	}{
		{"recorded", []string{"recorded", "duplicate", "recorded"}, "1h", 0, 20, "3 canaries were recorded; going on with the rest"},
		{"one rejected", []string{"recorded", "rejected", "recorded"}, "1h", 1, 3, "1 of 3 canaries were rejected again"},
		{"one without a receipt", []string{"recorded", "recorded"}, "200ms", 0, 20, "(2 were recorded, and 1 have no receipt)"},
		{"none", nil, "200ms", 0, 20, "(nothing says that they arrived)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newCanaryQueue(t)
			if err := errors.Join(h.CreateTopic(receiptsTopic), h.CreateSubscription(receiptsSub, receiptsTopic)); err != nil {
				t.Fatal(err)
			}
			got := h.with(withReceipts, func(text string) {
				if strings.Contains(text, "went ahead") {
					for i, m := range h.Messages(dlqLedger)[:len(c.verdicts)] {
						h.receipt(m, c.verdicts[i])
					}
				}
			}, "replay", "--yes", "--canary", "3", "--canary-wait", c.wait)
			if got.status != c.status || !strings.Contains(got.stderr, c.says) {
				t.Errorf("%+v", got)
			}
			h.replayed(c.published)
			if s := h.Stats(receiptsSub); s.Backlog != 0 || s.Leased != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestCanaryRefusesMistakes(t *testing.T) {
	h := newTestQueue(t)
	for _, args := range [][]string{
		{"--canary", "-1"}, {"--canary-wait", "1m"}, {"--canary", "2", "--canary-wait", "0s"}, {"--canary", "2", "--canary-wait", "soon"},
	} {
		h.expect(2, "", append([]string{"replay", "--yes"}, args...)...)
	}
}

// TestSlowReplayReportsRejections: a slow replay reports the events that are rejected
// meanwhile.
func TestSlowReplayReportsRejections(t *testing.T) {
	h := newCanaryQueue(t)
	rejected := make(chan struct{})
	h.SetFault(func(method string, req any) error {
		if r, ok := req.(*pubsubpb.PublishRequest); ok && method == "Publish" {
			// The worker rejects the first at once, for another reason.
			if slices.ContainsFunc(r.GetMessages(), func(m *pubsubpb.PubsubMessage) bool { return m.GetAttributes()["origin_message_id"] == "m0" }) {
				defer close(rejected)
				h.SetFault(nil)
				m := r.GetMessages()[0]
				h.rejectAgain(m, "dlq_reason", "invalid_event")
				h.put(deadLettered(50, "x", "dlq_reason", "oversized"))
			}
		}
		return nil
	})
	began := time.Now()
	got := h.dlq(t.Context(), "replay", "--yes", "--output", "json", "--rate", "100")
	h.want(got, 0, `{"matched":20,"replayed":20,"failed":0,"left":2}`, "warning: events of a kind", "1 new message of the kinds", "1 of them events that had been replayed")
	<-rejected
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	h.left(2)
}
