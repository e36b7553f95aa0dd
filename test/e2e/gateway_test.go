package e2e_test

import (
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// poison is the event that the gateway does not accept.
const poison = 13

// has reports whether a payload has the event.
func has(events []*gatewayserver.Event, i int) bool {
	return slices.ContainsFunc(events, func(e *gatewayserver.Event) bool { return e.GetId() == eventID(i) })
}

// onlyPoison requires that the poison was dead-lettered, and that all other events up to
// last were recorded once.
func (h *env) onlyPoison(last int, reason string) deadLetter {
	h.t.Helper()
	h.once(0, poison)
	h.once(poison+1, last)
	if n := h.recorded()[eventID(poison)]; n != 0 {
		h.t.Errorf("the poison was recorded %d times", n)
	}
	h.empty()
	for _, l := range h.deadLetters(1) {
		if l.DLQ["dlq_reason"] != reason || l.DLQ["dlq_event_id"] != eventID(poison) {
			h.t.Errorf("the dead-lettered message says %v", l.DLQ)
		}
		return l
	}
	h.t.FailNow()
	return deadLetter{}
}

// TestLeftOut has one event that the gateway's Pub/Sub refuses, with the request that has
// it. Its neighbours are repeatedly left out beside it.
func TestLeftOut(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetLose(func(ids []string) bool { return slices.Contains(ids, eventID(poison)) })
	h.publish(events(0, 150)...)
	h.run("WORKER_REJECT_AFTER=3").exits(0).
		sums(summary{Received: 150, Submitted: 149, Rejected: map[string]int{"gateway_rejected": 1}, Ended: "drained"})
	l := h.onlyPoison(150, "gateway_rejected")
	if n, err := strconv.Atoi(l.DLQ["dlq_attempts"]); err != nil || n < 3 {
		t.Errorf("dlq_attempts is %q, want 3 at least", l.DLQ["dlq_attempts"])
	}
}

// TestLeftOutAndUndecided has two events, of which one is never recorded. The other one is
// not enough for a verdict, so the event stays in flight.
func TestLeftOutAndUndecided(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetLose(func(ids []string) bool { return slices.Contains(ids, eventID(0)) })
	h.publish(events(0, 2)...)
	got := h.run("WORKER_BATCH_MAX_DELAY=50ms").exits(0)
	got.sums(summary{Received: 2, Submitted: 1, Released: 1, Ended: "drained"})
	contains(t, got.stderr, "not decided whether they are at fault", eventID(0))
	h.deadLetters(0)
}

// TestEventLeftOutOnceIsRecorded has an event that is left out once, as by a transient
// fault.
func TestEventLeftOutOnceIsRecorded(t *testing.T) {
	h := newEnv(t)
	var tried atomic.Int64
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		if has(events, poison) && tried.Add(1) == 1 {
			return gatewayserver.Fault{Omit: []string{eventID(poison)}}
		}
		return gatewayserver.Fault{}
	})
	h.publish(events(0, 50)...)
	h.run("WORKER_REJECT_AFTER=2").exits(0).sums(summary{Received: 50, Submitted: 50, Ended: "drained"})
	h.once(0, 50)
	h.deadLetters(0)
}

// TestRefusedEventIsDeadLettered has one event because of which the gateway refuses the
// whole stream.
func TestRefusedEventIsDeadLettered(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.FailedPrecondition} {
		t.Run(code.String(), func(t *testing.T) {
			h := newEnv(t)
			h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
				if has(events, poison) {
					return gatewayserver.Fault{Err: status.Error(code, "no")}
				}
				return gatewayserver.Fault{}
			})
			h.publish(events(0, 50)...)
			h.run().exits(0).
				sums(summary{Received: 50, Submitted: 49, Rejected: map[string]int{"gateway_refused": 1}, Ended: "drained"})
			l := h.onlyPoison(50, "gateway_refused")
			if n, err := strconv.Atoi(l.DLQ["dlq_attempts"]); err != nil || n < 1 {
				t.Errorf("dlq_attempts is %q", l.DLQ["dlq_attempts"])
			}
		})
	}
}

// TestEventThatFailsStreamsIsDeadLettered has one event whose streams fail with a transient
// error, as when the gateway cannot decode it.
func TestEventThatFailsStreamsIsDeadLettered(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		if has(events, poison) {
			return gatewayserver.Fault{Err: status.Error(codes.Internal, "cannot decode")}
		}
		return gatewayserver.Fault{}
	})
	h.publish(events(0, 50)...)
	p := h.start(continuous, "WORKER_REJECT_AFTER=2")
	// The verdict needs other events that are recorded.
	next := 50
	testenv.Eventually(t, "the poison is dead-lettered", func() bool {
		h.publish(event(next))
		next++
		return strings.Contains(p.stderr.String(), "Dead-lettered a message")
	})
	testenv.Eventually(t, "everything else is recorded", func() bool { return len(h.recorded()) == next-1 })
	p.stop(syscall.SIGTERM).exits(0).
		sums(summary{Received: next, Submitted: next - 1, Rejected: map[string]int{"gateway_refused": 1}, Ended: "signal"})
	h.onlyPoison(next, "gateway_refused")
}

// TestRefusedIdentityDelaysNoOther has one service whose identity the gateway refuses.
func TestRefusedIdentityDelaysNoOther(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetOnStream(func(info gatewayserver.StreamInfo) gatewayserver.Fault {
		if info.Identity.ServiceID == "sams" {
			return gatewayserver.Fault{Err: status.Error(codes.InvalidArgument, "no such service")}
		}
		return gatewayserver.Fault{}
	})
	h.publish(events(0, 20)...)
	h.publish(named(string(event(20).GetData()), "service_id", "sams"), named(string(event(21).GetData()), "service_id", "sams"))
	h.run().exits(0).sums(summary{Received: 22, Submitted: 20, Rejected: map[string]int{"gateway_refused": 2}, Ended: "drained"})
	h.once(0, 20)
	h.deadLetters(2)
	h.empty()
}

// TestWrongServerEndsRun has another server at the gateway's address.
func TestWrongServerEndsRun(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
		return gatewayserver.Fault{Err: status.Error(codes.Unimplemented, "unknown service")}
	})
	h.publish(events(0, 3)...)
	got := h.run(continuous).exits(1)
	got.sums(summary{Ended: "error"})
	contains(t, got.stderr, "TELEMETRY_GATEWAY_URL")
	h.untouched(3)
}

// TestCutStreamsAreRepeated cuts every first stream in the middle.
func TestCutStreamsAreRepeated(t *testing.T) {
	for _, c := range []struct {
		name  string
		phase gatewayserver.Phase
		times int // that the events of such a stream are recorded
	}{
		{"before it is recorded", gatewayserver.BeforeRecording, 1},
		{"before it is answered", gatewayserver.BeforeResponding, 2},
		{"behind its answer", gatewayserver.AfterResponding, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newEnv(t)
			var payloads atomic.Int64
			h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
				if payloads.Add(1) == 1 {
					return gatewayserver.Fault{Err: status.Error(codes.Unavailable, "cut"), Phase: c.phase}
				}
				return gatewayserver.Fault{}
			})
			h.publish(events(0, 30)...)
			h.run("WORKER_BATCH_MAX_DELAY=500ms").exits(0).sums(summary{Received: 30, Submitted: 30, Ended: "drained"})
			peak := 0
			ids := h.recorded()
			for i := range 30 {
				peak = max(peak, ids[eventID(i)])
				if ids[eventID(i)] == 0 {
					t.Errorf("event %d is lost", i)
				}
			}
			if peak != c.times {
				t.Errorf("an event was recorded %d times, want %d", peak, c.times)
			}
			h.deadLetters(0)
			h.empty()
		})
	}
}

// TestHangingStreamTimesOut has a gateway that does not answer. The stream ends by its
// timeout, and the events are submitted again.
func TestHangingStreamTimesOut(t *testing.T) {
	h := newEnv(t)
	var payloads atomic.Int64
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		return gatewayserver.Fault{Hang: payloads.Add(1) == 1}
	})
	h.publish(events(0, 10)...)
	h.run("WORKER_SUBMIT_TIMEOUT=1s").exits(0).sums(summary{Received: 10, Submitted: 10, Ended: "drained"})
	h.once(0, 10)
}

// TestTwoWorkersShareASubscription drains one subscription with two workers.
func TestTwoWorkersShareASubscription(t *testing.T) {
	h := newEnv(t)
	const all = 1000
	// The emulator keeps messages that it has sent to an ending stream until their lease of
	// ten seconds is over. So the second worker must wait longer for the messages that the
	// first one left.
	const idle = "WORKER_DRAIN_IDLE=14s"
	first, second := h.startReady(idle), h.startReady(idle)
	for i := 0; i < all; i += 50 {
		h.publish(events(i, i+50)...)
	}
	h.publish(invalid(all))
	a, b := first.wait().exits(0).summary(), second.wait().exits(0).summary()
	if a.Submitted+b.Submitted != all || a.Rejected["invalid_event"]+b.Rejected["invalid_event"] != 1 || a.Released+b.Released != 0 {
		t.Errorf("summaries %+v and %+v", a, b)
	}
	if a.Submitted == 0 || b.Submitted == 0 {
		t.Errorf("one of them had nothing to do: %+v and %+v", a, b)
	}
	h.once(0, all)
	h.deadLetters(1)
	h.empty()
}
