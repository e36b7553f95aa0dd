package e2e_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// TestDuplicatesAreRecordedOnce publishes some events twice: close together, and once more
// after the first is recorded.
func TestDuplicatesAreRecordedOnce(t *testing.T) {
	h := newEnv(t)
	h.publish(events(0, 50)...)
	h.publish(events(0, 50)...)
	p := h.start(continuous, "WORKER_DIAGNOSTICS_ADDR="+freeAddr(t))
	testenv.Eventually(t, "the events are recorded", func() bool { return len(h.recorded()) == 50 })
	h.publish(events(0, 10)...)
	h.publish(event(50))
	testenv.Eventually(t, "everything has arrived and is settled", func() bool {
		return p.metric("telemetry_relay_events_received_total") == 111 && p.metric("telemetry_relay_events_in_flight") == 0
	})
	p.stop(syscall.SIGTERM).exits(0).sums(summary{Received: 111, Submitted: 51, Duplicates: 60, Ended: "signal"})
	h.once(0, 51)
	h.empty()
}

// TestEventsWithOneIDAreAllRecorded has different events with one id. All must be recorded,
// once, and they share streams.
func TestEventsWithOneIDAreAllRecorded(t *testing.T) {
	h := newEnv(t)
	var messages []*pubsubpb.PubsubMessage
	for i := range 5 {
		messages = append(messages, message(with(fmt.Sprintf(`"id":%q,"metadata":{"n":%d}`, eventID(1), i))))
	}
	// Equal bytes of different publishers are different events.
	same := with(fmt.Sprintf(`"id":%q`, eventID(2)))
	messages = append(messages, message(same), message(same, "service_environment", "prod"), named(same, "service_id", "sams"))
	h.publish(messages...)
	h.run().exits(0).sums(summary{Received: 8, Submitted: 8, Ended: "drained"})

	contents, streams, identities := map[float64]int{}, map[int]bool{}, map[gatewayserver.Identity]int{}
	for _, r := range h.gateway.Recorded() {
		if r.Event.GetId() == eventID(1) {
			contents[r.Event.GetParameters().GetMetadata()["n"]]++
			streams[r.StreamID] = true
		} else {
			identities[r.Identity]++
		}
	}
	if len(contents) != 5 || len(streams) > 2 {
		t.Errorf("contents %v in streams %v, want five in one or two", contents, streams)
	}
	if len(identities) != 3 {
		t.Errorf("identities %v, want three", identities)
	}
	h.empty()
}

// TestReplayedEventKeepsItsDerivedID replays events without id and timestamp by hand. They
// must remain the same events.
func TestReplayedEventKeepsItsDerivedID(t *testing.T) {
	h := newEnv(t)
	ids := h.publish(message("{"+head+"}"), message(with(`"metadata":{"n":1}`)), message(with(`"metadata":{"n":2}`)))
	h.run().exits(0)
	ledger := h.ledger(len(ids))
	var replays, replayed []*pubsubpb.PubsubMessage
	for i, id := range ids {
		m := ledger[id]
		replays = append(replays, message(string(m.GetData()),
			"replay_count", fmt.Sprint(i+1), "origin_message_id", id,
			"origin_publish_time", m.GetPublishTime().AsTime().Format(time.RFC3339Nano)))
		replayed = append(replayed, m)
	}
	h.recordedExactly(replayed)
	first := h.gateway.Recorded()
	h.gateway.Forget()
	h.publish(replays...)
	h.run().exits(0).sums(summary{Received: 3, Submitted: 3, Ended: "drained"})
	h.recordedExactly(replayed)
	if len(first) != 3 {
		t.Errorf("%d events were recorded first", len(first))
	}
}

// TestBatchesKeepLimits checks that a stream has one identity, and that batches keep to
// their limits.
func TestBatchesKeepLimits(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetOnPayload(func(info gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		if len(events) > 7 {
			t.Errorf("a payload has %d events", len(events))
		}
		if info.Payload > 1 {
			t.Errorf("a stream has payload %d", info.Payload)
		}
		return gatewayserver.Fault{}
	})
	var messages []*pubsubpb.PubsubMessage
	for i := range 60 {
		messages = append(messages, event(i, "service_environment", []string{"dev", "prod", "test"}[i%3]))
	}
	h.publish(messages...)
	got := h.run("WORKER_BATCH_MAX_EVENTS=7").exits(0)
	got.sums(summary{Received: 60, Submitted: 60, Ended: "drained"})
	if n := got.summary().Batches; n < 9 {
		t.Errorf("%d batches for 60 events by 7", n)
	}
	ledger := h.ledger(60)
	h.recordedExactly(values(ledger))
}

// TestTooLargeMessageDelaysNoOther has a message that is too large for any dead-lettered
// message. It stays in the subscription and delays no other.
func TestTooLargeMessageDelaysNoOther(t *testing.T) {
	h := newEnv(t)
	// The emulator takes 10 MiB, the dead-lettered message has more attributes, and this
	// data does not compress.
	h.publish(message(string(random(10_485_100)), "note", strings.Repeat("x", 400)))
	h.publish(events(0, 5)...)
	p := h.start(continuous, "WORKER_DIAGNOSTICS_ADDR="+freeAddr(t))
	p.says("does not fit into a dead-lettered message")
	testenv.Eventually(t, "the others are recorded", func() bool { return len(h.recorded()) == 5 })
	contains(t, p.get("/metrics", "").body, `telemetry_relay_dead_letter_publishes_total{result="too_large"} 1`, "telemetry_relay_events_released_total 1")
	p.stop(syscall.SIGTERM).exits(0).sums(summary{Received: 6, Submitted: 5, Released: 1, Ended: "signal"})
	h.deadLetters(0)
}

func values(byID map[string]*pubsubpb.PubsubMessage) []*pubsubpb.PubsubMessage {
	var all []*pubsubpb.PubsubMessage
	for _, m := range byID {
		all = append(all, m)
	}
	return all
}
