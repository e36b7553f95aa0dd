package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// done requires the summary that a command prints.
func (r result) done(want string) result {
	r.t.Helper()
	if r.stdout != want+"\n" {
		r.t.Errorf("stdout: %s, want %s", r.stdout, want)
	}
	return r
}

func (h *env) dlq(args ...string) result {
	h.t.Helper()
	// On-call has no secret.
	return execute(h.t, h.environ("SAMS_CLIENT_ID=", "SAMS_CLIENT_SECRET="), nil, append([]string{"dlq"}, args...)...)
}

// TestReplayPublishesTheOriginalBytes rejects events of all kinds, looks at them, fixes
// one, and replays all: the published messages must equal the originals in every byte.
func TestReplayPublishesTheOriginalBytes(t *testing.T) {
	h := newEnv(t)
	all := rejects()
	originals := map[string]bool{}
	for _, r := range all {
		h.publish(r.message)
		originals[fingerprint(withoutReplay(r.message))] = true
	}
	h.run().exits(0)
	h.take(ledgerID, len(all))
	count := len(all)

	var stats struct{ Count int }
	h.must(json.Unmarshal([]byte(h.dlq("stats", "--output", "json").exits(0).stdout), &stats))
	if stats.Count != count {
		t.Errorf("%d messages, want %d", stats.Count, count)
	}
	if list := h.dlq("list", "--output", "ndjson").exits(0); strings.Count(list.stdout, "\n") != count {
		t.Errorf("list has %d lines, want %d", strings.Count(list.stdout, "\n"), count)
	}
	// One has 100 attributes, so that there is no room for those of a replay.
	h.dlq("replay", "--dry-run", "--output", "json", "--no-check").exits(0).
		done(fmt.Sprintf(`{"matched":%d,"replayed":0,"failed":1,"left":%d}`, count, count))
	// The worker would reject every event again.
	h.dlq("replay", "--yes", "--output", "json").exits(1).
		done(fmt.Sprintf(`{"matched":%d,"replayed":0,"failed":%d,"left":%d}`, count, count, count))
	h.take(ledgerID, 0)

	h.dlq("replay", "--yes", "--no-check", "--output", "json").exits(1).
		done(fmt.Sprintf(`{"matched":%d,"replayed":%d,"failed":1,"left":1}`, count, count-1))
	for _, m := range h.take(ledgerID, count-1) {
		if !originals[fingerprint(withoutReplay(m))] {
			t.Errorf("nobody published %.300q", fingerprint(withoutReplay(m)))
		}
		if a := m.GetAttributes(); a["replay_count"] == "" || a["origin_message_id"] == "" {
			t.Errorf("%v does not say that it is replayed", a)
		}
	}
}

// withoutReplay is the message without the attributes of a replay, which also take
// the place of a publisher's own of these names.
func withoutReplay(m *pubsubpb.PubsubMessage) *pubsubpb.PubsubMessage {
	out := &pubsubpb.PubsubMessage{Data: m.GetData(), OrderingKey: m.GetOrderingKey(), Attributes: map[string]string{}}
	for k, v := range m.GetAttributes() {
		if !slices.Contains([]string{"replay_count", "origin_message_id", "origin_publish_time", "origin_rejected_at", "replay_id"}, k) {
			out.Attributes[k] = v
		}
	}
	return out
}

// TestReplayPublishesFixedEvents fixes events in a queue of 5,000, and relays them.
func TestReplayPublishesFixedEvents(t *testing.T) {
	const count, fixed = 5000, 130
	h := newEnv(t)
	var all []*pubsubpb.PubsubMessage
	for i := range count {
		data := fmt.Sprintf(`{"feature":"cody.chat","action":"sent","id":%q,"typo":1}`, eventID(i))
		if i >= fixed {
			data = fmt.Sprintf(`{"feature":"Bad","action":"sent","id":%q}`, eventID(i))
		}
		all = append(all, message(data))
	}
	h.publish(all...)
	h.run().exits(0)
	h.dlq("replay", "--dry-run", "--output", "json", "--jq", "del(.typo)", "--feature", "cody.chat").exits(0).
		done(`{"matched":130,"replayed":0,"failed":0,"left":5000}`)
	got := h.dlq("replay", "--yes", "--output", "json", "--jq", "del(.typo)", "--feature", "cody.chat", "--feature", "Bad", "--limit", "5000").exits(1).
		done(`{"matched":5000,"replayed":130,"failed":4870,"left":4870}`)
	contains(t, got.stderr, "the worker would reject it again: invalid_event: feature")
	h.run().exits(0)
	h.once(0, fixed)

	shown := h.dlq("show", eventID(fixed)).exits(0)
	contains(t, shown.stdout, `"feature": "Bad",   <── here`, "invalid_event")

	backup := filepath.Join(t.TempDir(), "backup.ndjson")
	h.dlq("purge", "--yes", "--output", "json", "--limit", "870", "--backup", backup).exits(0).
		done(`{"matched":870,"purged":870,"failed":0,"left":4000}`)
	content, err := os.ReadFile(backup)
	h.must(err)
	if n := strings.Count(string(content), "\n"); n != 870 {
		t.Errorf("%d lines in the backup", n)
	}
	h.dlq("export", "--remove", "--yes", "--output", "json", filepath.Join(t.TempDir(), "export.ndjson")).exits(0).
		done(`{"matched":4000,"exported":4000,"failed":0,"left":0}`)
	h.dlq("stats", "--output", "json").exits(0).
		done(`{"count":0,"replayed_before":0,"oldest":null,"newest":null,"groups":[],"faults":[],"count_at_least":true}`) // an emulator does not say how many others have leased
	h.take(dlqSubID, 0)
}

// TestInterruptedReplayLeavesTheRest stops a slow replay. Exactly the messages that were not
// published must be in the queue, available at once.
func TestInterruptedReplayLeavesTheRest(t *testing.T) {
	const count = 300
	h := newEnv(t)
	var all []*pubsubpb.PubsubMessage
	for i := range count {
		all = append(all, invalid(i))
	}
	h.publish(all...)
	h.run().exits(0)
	h.take(ledgerID, count)
	p := start(t, h.environ(), nil, "dlq", "replay", "--yes", "--no-check", "--rate", "20", "--output", "json")
	// The first that comes shows that it is under way.
	first := len(h.takeAll(ledgerID, 1))
	got := p.stop(syscall.SIGINT).exits(1)
	contains(t, got.stderr, "interrupted")
	var outcome struct{ Replayed int }
	h.must(json.Unmarshal([]byte(got.stdout), &outcome))
	if outcome.Replayed < first || outcome.Replayed == count {
		t.Errorf("%+v, after %d", outcome, first)
	}
	h.take(ledgerID, outcome.Replayed-first)
	h.take(dlqSubID, count-outcome.Replayed)
}

func TestMissingQueueIsReported(t *testing.T) {
	h := newEnv(t)
	h.deleteSubscription(dlqSubID)
	h.dlq("replay").exits(2)
	h.dlq("purge", "--yes", "--no-backup").exits(2)
	for _, args := range [][]string{{"stats"}, {"replay", "--yes"}, {"purge", "--all", "--yes", "--no-backup"}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel() // each waits for the queue, which may just have been created
			got := execute(t, h.environ("LOG_LEVEL=warn"), nil, append([]string{"dlq"}, args...)...).exits(1)
			contains(t, got.stderr, "DLQ_SUBSCRIPTION", "DLQ_TOPIC", "what was just created or granted takes a while")
			if got.took < 10*time.Second || got.took > 15*time.Second+busy {
				t.Errorf("it took %v", got.took)
			}
		})
	}
}
