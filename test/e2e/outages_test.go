package e2e_test

import (
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// untouched requires that this many messages are available at once and have never been
// delivered, because a delivery would count as an attempt.
func (h *env) untouched(want int) {
	h.t.Helper()
	h.take(subID, want)
}

// union requires that each of the events from 0 on is recorded or left.
func (h *env) union(all int, left []*pubsubpb.PubsubMessage) {
	h.t.Helper()
	seen := h.recorded()
	for _, m := range left {
		seen[expect(h.t, m).event.GetId()]++
	}
	for i := range all {
		if seen[eventID(i)] == 0 {
			h.t.Errorf("event %d is lost", i)
		}
	}
}

func TestGatewayDownAtStart(t *testing.T) {
	for _, c := range []struct {
		name string
		down func(h *env)
	}{
		{"not listening", func(h *env) { h.gateway.Stop() }},
		{"unavailable", func(h *env) { h.gateway.SetDown(true) }},
		{"resetting", func(h *env) {
			h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
				return gatewayserver.Fault{Err: status.Error(codes.Internal, "SAMS is unreachable")}
			})
		}},
		{"token refused", func(h *env) {
			h.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
				return gatewayserver.Fault{Err: status.Error(codes.PermissionDenied, "permission denied")}
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newEnv(t)
			h.publish(events(0, 3)...)
			c.down(h)
			got := h.run(within(5 * time.Second)...).exits(1)
			got.sums(summary{Ended: "deadline"})
			contains(t, got.stderr, "gateway")
			h.untouched(3)
		})
	}
	t.Run("nothing to receive", func(t *testing.T) {
		h := newEnv(t)
		h.gateway.Stop()
		h.run(within(5 * time.Second)...).exits(1).sums(summary{Ended: "deadline"})
	})
	t.Run("back in time", func(t *testing.T) {
		h := newEnv(t)
		h.publish(events(0, 3)...)
		h.gateway.Stop()
		p := h.start()
		p.says("Not delivering")
		h.must(h.gateway.Restart(t.Context()))
		p.wait().exits(0).sums(summary{Received: 3, Submitted: 3, Ended: "drained"})
		h.once(0, 3)
		h.empty()
	})
}

func TestRelayContinuesAfterGatewayOutage(t *testing.T) {
	h := newEnv(t)
	p := h.startReady(continuous)
	h.publish(events(0, 20)...)
	testenv.Eventually(t, "the first events are settled", func() bool { return p.metric("telemetry_relay_events_submitted_total") == 20 })
	h.gateway.Stop()
	h.publish(events(20, 120)...)
	p.says("Not delivering")
	h.must(h.gateway.Restart(t.Context()))
	testenv.Eventually(t, "the others are recorded", func() bool { return len(h.recorded()) == 120 })
	p.stop(syscall.SIGTERM).exits(0).sums(summary{Received: 120, Submitted: 120, Ended: "signal"})
	h.once(0, 120)
	h.deadLetters(0)
	h.empty()
}

// TestSignalInAGatewayOutageReleasesEvents stops a worker in the middle of an outage.
// Events in flight are released, and the exit status shows the outage.
func TestSignalInAGatewayOutageReleasesEvents(t *testing.T) {
	h := newEnv(t)
	p := h.startReady(continuous)
	h.publish(events(0, 20)...)
	testenv.Eventually(t, "the first events are settled", func() bool { return p.metric("telemetry_relay_events_submitted_total") == 20 })
	h.gateway.Stop()
	h.publish(events(20, 50)...)
	p.says("Not delivering")
	got := p.stop(syscall.SIGTERM).exits(1)
	s := got.summary()
	if s.Submitted != 20 || s.Ended != "signal" {
		t.Errorf("summary %+v", s)
	}
	contains(t, got.stderr, "the gateway is not available")
	h.union(50, h.take(subID, 30))
	h.deadLetters(0)
}

func TestRelayContinuesAfterSAMSOutage(t *testing.T) {
	for _, c := range []struct {
		name string
		down func(h *env)
	}{
		{"failing", func(h *env) {
			h.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
				return http.StatusServiceUnavailable, `{"error":"` + clientSecret + `"}`, 0, true
			})
		}},
		{"not listening", func(h *env) { h.check(h.sams.Close()) }},
		{"busy", func(h *env) {
			h.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
				return http.StatusTooManyRequests, "", 0, true
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newEnv(t)
			h.publish(events(0, 3)...)
			c.down(h)
			got := h.run(within(5 * time.Second)...).exits(1)
			got.sums(summary{Ended: "deadline"})
			contains(t, got.stderr, "SAMS")
			omits(t, got.stderr+got.stdout, clientSecret)
			h.untouched(3)
		})
	}
	t.Run("and back", func(t *testing.T) {
		h := newEnv(t)
		h.publish(events(0, 3)...)
		h.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
			return http.StatusBadGateway, "", 0, true
		})
		p := h.start()
		p.says("Not delivering")
		h.sams.SetFault(nil)
		p.wait().exits(0).sums(summary{Received: 3, Submitted: 3, Ended: "drained"})
		h.once(0, 3)
	})
}

// TestRevokedTokenIsReplacedOnce revokes the token in the middle of a run. One new one must
// suffice.
func TestRevokedTokenIsReplacedOnce(t *testing.T) {
	h := newEnv(t)
	p := h.startReady(continuous)
	h.publish(events(0, 10)...)
	testenv.Eventually(t, "the first events are settled", func() bool { return p.metric("telemetry_relay_events_submitted_total") == 10 })
	h.sams.RevokeAll()
	h.publish(events(10, 20)...)
	testenv.Eventually(t, "the others are recorded", func() bool { return len(h.recorded()) == 20 })
	p.stop(syscall.SIGTERM).exits(0).sums(summary{Received: 20, Submitted: 20, Ended: "signal"})
	h.once(0, 20)
	if n := h.sams.Stats().TokensIssued; n != 2 {
		t.Errorf("%d tokens were issued, want 2", n)
	}
}

// TestBadCredentialsEndRun has mistakes of the operator. The run ends at once and says what
// to do.
func TestBadCredentialsEndRun(t *testing.T) {
	const wrong = "wr0ng-s3cr3t"
	t.Run("secret", func(t *testing.T) {
		h := newEnv(t)
		h.publish(events(0, 3)...)
		got := h.run(continuous, "SAMS_CLIENT_SECRET="+wrong).exits(1)
		got.sums(summary{Ended: "error"})
		contains(t, got.stderr, "SAMS_CLIENT_ID", "SAMS_CLIENT_SECRET", "invalid_client")
		omits(t, got.stderr+got.stdout, wrong, clientSecret)
		h.untouched(3)
	})
	t.Run("scope", func(t *testing.T) {
		h := newEnv(t)
		h.publish(events(0, 3)...)
		other, err := samsserver.Start(t.Context(), samsserver.Options{ClientID: clientID, ClientSecret: clientSecret, Scopes: []string{"other::events::read"}})
		h.must(err)
		t.Cleanup(func() { h.check(other.Close()) })
		got := h.run(continuous, "SAMS_URL="+other.URL()).exits(1)
		got.sums(summary{Ended: "error"})
		contains(t, got.stderr, "telemetry_gateway::events::write", "invalid_scope")
		omits(t, got.stderr+got.stdout, clientSecret)
		h.untouched(3)
	})
}

// TestDeadLetterTopicDeleted deletes the dead-letter topic in the middle of a run.
func TestDeadLetterTopicDeleted(t *testing.T) {
	t.Run("for good", func(t *testing.T) {
		h := newEnv(t)
		p := h.startReady(continuous)
		h.deleteTopic(dlqID)
		h.publish(invalid(100), invalid(101), invalid(102))
		h.publish(events(0, 20)...)
		p.says("The dead-letter topic does not take messages")
		testenv.Eventually(t, "the healthy events are recorded", func() bool { return len(h.recorded()) == 20 })
		got := p.stop(syscall.SIGTERM).exits(1)
		got.sums(summary{Received: 23, Submitted: 20, Released: 3, Ended: "signal"})
		contains(t, got.stderr, "dead-letter topic")
		h.once(0, 20)
		h.take(subID, 3)
	})
	t.Run("and back", func(t *testing.T) {
		h := newEnv(t)
		p := h.startReady()
		h.deleteTopic(dlqID)
		h.deleteSubscription(dlqSubID)
		h.publish(invalid(100), invalid(101), invalid(102))
		p.says("The dead-letter topic does not take messages")
		// No subscription gets messages that are published between the return of the topic
		// and that of its subscription, so the worker sleeps meanwhile. The first call
		// waits until the emulator has answered the worker's earlier requests.
		p.signal(syscall.SIGSTOP)
		h.createTopic("a-while")
		h.createTopic(dlqID)
		h.subscribe(dlqSubID, dlqID)
		p.signal(syscall.SIGCONT)
		p.wait().exits(0).sums(summary{Received: 3, Rejected: map[string]int{"invalid_event": 3}, Ended: "drained"})
		h.deadLetters(3)
		h.empty()
	})
}

// TestNothingRecorded has a gateway whose backend fails: streams end well, and nothing is
// recorded. That is no evidence against the events.
func TestNothingRecorded(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		return gatewayserver.Fault{OmitAll: true}
	})
	h.publish(events(0, 40)...)
	got := h.run(append(within(10*time.Second), "WORKER_REJECT_AFTER=1", "WORKER_BATCH_MAX_EVENTS=10")...).exits(1)
	s := got.summary()
	if s.Submitted != 0 || len(s.Rejected) != 0 || s.Released != s.Received || s.Received == 0 || s.Ended != "deadline" {
		t.Errorf("summary %+v: want everything released", s)
	}
	contains(t, got.stderr, "records nothing")
	h.deadLetters(0)
	h.union(40, h.take(subID, 40))
}

// TestEventsAreRecordedAfterASilentOutage has the same outage, and its end.
func TestEventsAreRecordedAfterASilentOutage(t *testing.T) {
	h := newEnv(t)
	var failing atomic.Bool
	failing.Store(true)
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		return gatewayserver.Fault{OmitAll: failing.Load()}
	})
	h.publish(events(0, 40)...)
	p := h.start("WORKER_REJECT_AFTER=2")
	p.says("records nothing")
	failing.Store(false)
	p.wait().exits(0).sums(summary{Received: 40, Submitted: 40, Ended: "drained"})
	h.once(0, 40)
	h.deadLetters(0)
	h.empty()
}
