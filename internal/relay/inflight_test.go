package relay

import (
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dedup"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
)

// TestInflightSetForgetsWhatIsSettled adds events and redeliveries, and removes them in
// another order.
func TestInflightSetForgetsWhatIsSettled(t *testing.T) {
	s := newInflightSet(func(id string) bool { return id == "sams" }, metrics.New())
	hasher := dedup.NewHasher()
	now := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	add := func(n int, service, environment string) *inflight {
		e := &inflight{message: &consume.Message{}, received: now.Add(time.Duration(n) * time.Second)}
		if service != "" {
			e.fingerprint = hasher.Event(0, [16]byte{byte(n)}, nil)
			e.publisher = s.publisherOf(event.Publisher{ServiceID: service, Environment: environment})
		}
		s.add(e)
		return e
	}
	first, second := add(1, "sams", "dev"), add(2, "sams", "prod")
	rejected, unlisted := add(3, "", ""), add(4, "anybody", "dev")
	s.addRedelivery(second, &consume.Message{})
	s.suspect(second)
	s.suspect(second)
	s.suspectAlone(second)

	if s.count != 4 || s.redelivered != 1 || s.activeServices != 2 || len(s.publishers) != 3 || s.leftOut != 1 || s.undecided != 1 {
		t.Errorf("%d events, %d redeliveries, %d services, %d publishers, %d left out, %d undecided", s.count, s.redelivered, s.activeServices, len(s.publishers), s.leftOut, s.undecided)
	}
	if s.find(second.fingerprint) != second || s.find(hasher.Event(0, [16]byte{9}, nil)) != nil {
		t.Error("an event is not found by its fingerprint")
	}
	if first.publisher.service != second.publisher.service || unlisted.publisher.service.label != metrics.OtherService {
		t.Error("environments share their service, and services that are not listed share one")
	}
	if !s.light(unlisted.publisher.service) || s.light(first.publisher.service) {
		t.Error("one of three events is less than half, and two are not")
	}
	if age := s.oldestAge(now.Add(time.Minute)); age != 59*time.Second {
		t.Errorf("the oldest is %v old", age)
	}
	s.remove(first)
	if age := s.oldestAge(now.Add(time.Minute)); age != 58*time.Second {
		t.Errorf("the oldest is %v old after the first is removed", age)
	}
	second.publisher.active++
	for _, e := range []*inflight{rejected, unlisted, second} {
		s.remove(e)
		if !e.settled || e.message != nil {
			t.Error("a removed event keeps its message")
		}
	}
	if len(s.publishers) != 1 {
		t.Errorf("%d publishers, want the one with a stream", len(s.publishers))
	}
	second.publisher.active--
	s.forget(second.publisher)
	if s.count != 0 || s.redelivered != 0 || s.activeServices != 0 || len(s.publishers) != 0 || len(s.events) != 0 || s.leftOut != 0 || s.undecided != 0 || s.oldest != nil || s.newest != nil {
		t.Errorf("the set is not empty: %+v", s)
	}
}
