package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
)

func TestDrainEndsWhenIdle(t *testing.T) {
	h := newEnv(t)
	got := h.run("WORKER_MODE=", "CLOUD_RUN_JOB=relay", "WORKER_DRAIN_IDLE=1s").exits(0)
	got.sums(summary{Ended: "drained"})
	if got.took < time.Second {
		t.Errorf("it ended after %v, and must be idle for 1s first", got.took)
	}
	if n := strings.Count(got.stdout, "\n"); n != 1 {
		t.Errorf("%d lines on stdout, want the summary only:\n%s", n, got.stdout)
	}
}

func TestDrainEndsBeforeDeadline(t *testing.T) {
	h := newEnv(t)
	h.publish(events(0, 20)...)
	got := h.run(within(5 * time.Second)...).exits(0)
	got.sums(summary{Received: 20, Submitted: 20, Ended: "deadline"})
	if s := got.summary().Seconds; s < 5 || s > 5+busy.Seconds() {
		t.Errorf("it ended after %v seconds, want 5 or little more", s)
	}
	h.once(0, 20)
	h.empty()
}

// TestSignalReleasesWaitingEvents stops a worker with an open stream and a waiting batch.
// The stream is finished, and the batch released.
func TestSignalReleasesWaitingEvents(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			h := newEnv(t)
			open := make(chan struct{}, 10)
			h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
				switch {
				case has(events, 0):
					return gatewayserver.Fault{Err: gatewayserver.RetryAfter(codes.Unavailable, "later", time.Minute)}
				case has(events, 10):
					open <- struct{}{}
					return gatewayserver.Fault{Delay: time.Second}
				}
				return gatewayserver.Fault{}
			})
			p := h.startReady(continuous, "WORKER_BATCH_MAX_EVENTS=10")
			h.publish(events(0, 10)...)
			p.says("A stream to the gateway failed")
			h.publish(events(10, 20)...)
			<-open
			h.publish(invalid(20))
			h.deadLetters(1)
			got := p.stop(signal).exits(0)
			got.sums(summary{Received: 21, Submitted: 10, Rejected: map[string]int{"invalid_event": 1}, Released: 10, Ended: "signal"})
			h.once(10, 20)
			h.atOnce(20, 10)
		})
	}
}

// TestSignalReleasesABacklog stops a worker with far more events in flight than a slow
// gateway can take in time.
func TestSignalReleasesABacklog(t *testing.T) {
	h := newEnv(t)
	const all = 300
	payloads := make(chan struct{}, all)
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		payloads <- struct{}{}
		return gatewayserver.Fault{Delay: 300 * time.Millisecond}
	})
	h.publish(events(0, all)...)
	p := h.start(continuous, "WORKER_BATCH_MAX_EVENTS=10", "WORKER_SUBMIT_CONCURRENCY=1", "WORKER_SHUTDOWN_TIMEOUT=2s")
	<-payloads
	<-payloads
	got := p.stop(syscall.SIGTERM)
	s := got.summary()
	if got.status != 0 {
		t.Errorf("exit %d: a backlog is no failure", got.status)
	}
	if s.Ended != "signal" || s.Submitted < 10 || s.Released == 0 || s.Submitted+s.Released != s.Received {
		t.Errorf("summary %+v: want some submitted, the rest released", s)
	}
	if got.took > 2*time.Second+busy {
		t.Errorf("it took %v", got.took)
	}
	h.atOnce(all, all-s.Submitted)
}

// atOnce requires that this many messages are available at once, without a wait for leases,
// and that none of the events from 0 on is lost.
func (h *env) atOnce(all, left int) {
	h.t.Helper()
	began := time.Now()
	messages := h.take(subID, left)
	if took := time.Since(began); took > 25*time.Second { // leases are longer
		h.t.Errorf("what was released came back after %v only", took)
	}
	h.union(all, messages)
}

// TestSignalFinishesTheOpenStream stops a worker whose last stream is open. The stream is
// finished, and all events are settled.
func TestSignalFinishesTheOpenStream(t *testing.T) {
	h := newEnv(t)
	started := make(chan struct{}, 100)
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		started <- struct{}{}
		return gatewayserver.Fault{Delay: 700 * time.Millisecond}
	})
	h.publish(events(0, 30)...)
	h.publish(invalid(30), invalid(31))
	p := h.start(continuous)
	<-started
	h.deadLetters(2)
	p.stop(syscall.SIGTERM).exits(0).sums(summary{Received: 32, Submitted: 30, Rejected: map[string]int{"invalid_event": 2}, Ended: "signal"})
	h.once(0, 30)
	h.empty()
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		return gatewayserver.Fault{Hang: true}
	})
	h.publish(event(1))
	p := h.start(continuous, "WORKER_SHUTDOWN_TIMEOUT=5m")
	p.says("Submitting a batch")
	p.signal(syscall.SIGTERM)
	p.says("Stopping")
	began := time.Now()
	p.stop(syscall.SIGTERM).exits(1)
	if took := time.Since(began); took > busy { // and not the five minutes of the shutdown
		t.Errorf("the second signal took %v", took)
	}
}

// TestSignalBeforeTheGatewayIsReachedFails stops a worker that has not reached the gateway
// yet. The exit status must show the outage.
func TestSignalBeforeTheGatewayIsReachedFails(t *testing.T) {
	h := newEnv(t)
	h.gateway.SetDown(true)
	h.publish(event(1))
	p := h.start(continuous)
	p.says("Not delivering")
	p.stop(syscall.SIGTERM).exits(1).sums(summary{Ended: "signal"})
	h.take(subID, 1)
}

// TestAllConfigurationFaultsAreListed has many faults at once. All are listed, each with
// its variable, and the process ends before it does anything else.
func TestAllConfigurationFaultsAreListed(t *testing.T) {
	t.Parallel()
	began := time.Now()
	got := execute(t, []string{
		"PUBSUB_TOPIC=a/b", "SAMS_URL=http://example.com", "TELEMETRY_GATEWAY_URL=gopher://x", "SAMS_CLIENT_SECRET=" + clientSecret,
		"WORKER_MODE=sometimes", "WORKER_DRAIN_IDLE=soon", "WORKER_BATCH_MAX_EVENTS=0", "WORKER_REJECT_AFTER=-1",
		"WORKER_SUBMIT_CONCURRENCY=many", "WORKER_MAX_OUTSTANDING_BYTES=1XB", "PORT=99999999", "LOG_LEVEL=loud",
		"WORKER_SERVICES={services: [{id: BAD}]}", "WORKER_INSECURE_DEV=perhaps",
	}, nil, "run").exits(2)
	contains(t, got.stderr, "GOOGLE_CLOUD_PROJECT", "PUBSUB_TOPIC", "SAMS_URL", "TELEMETRY_GATEWAY_URL", "SAMS_CLIENT_ID",
		"WORKER_MODE", "WORKER_DRAIN_IDLE", "WORKER_BATCH_MAX_EVENTS", "WORKER_REJECT_AFTER", "WORKER_SUBMIT_CONCURRENCY",
		"WORKER_MAX_OUTSTANDING_BYTES", "PORT", "LOG_LEVEL", "WORKER_SERVICES", "WORKER_INSECURE_DEV", "expected")
	omits(t, got.stderr, clientSecret)
	if got.stdout != "" {
		t.Errorf("stdout: %q", got.stdout)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("it took %v", took)
	}
}

// TestInconsistentSettingsAreRefused has settings that are valid alone, but together would
// stall the worker or lose events.
func TestInconsistentSettingsAreRefused(t *testing.T) {
	t.Parallel()
	base := []string{"GOOGLE_CLOUD_PROJECT=p", "SAMS_CLIENT_ID=id", "SAMS_CLIENT_SECRET=" + clientSecret}
	for name, c := range map[string]struct{ vars, names []string }{
		"batch over outstanding": {[]string{"WORKER_BATCH_MAX_EVENTS=100", "WORKER_MAX_OUTSTANDING_EVENTS=99"}, []string{"WORKER_BATCH_MAX_EVENTS", "WORKER_MAX_OUTSTANDING_EVENTS"}},
		"bytes over outstanding": {[]string{"WORKER_MAX_OUTSTANDING_BYTES=1MiB"}, []string{"WORKER_BATCH_MAX_BYTES", "WORKER_MAX_OUTSTANDING_BYTES"}},
		"delay over idle":        {[]string{"WORKER_MODE=drain", "WORKER_BATCH_MAX_DELAY=20s"}, []string{"WORKER_BATCH_MAX_DELAY", "WORKER_DRAIN_IDLE"}},
		"no time to receive":     {[]string{"WORKER_MODE=drain", "JOB_EXECUTION_DEADLINE=13s"}, []string{"JOB_EXECUTION_DEADLINE", "WORKER_SHUTDOWN_TIMEOUT"}},
		"longer than Cloud Run":  {[]string{"CLOUD_RUN_JOB=x", "WORKER_SHUTDOWN_TIMEOUT=10s"}, []string{"WORKER_SHUTDOWN_TIMEOUT"}},
		"same topic":             {[]string{"DLQ_TOPIC=telemetry-events"}, []string{"DLQ_TOPIC", "PUBSUB_TOPIC"}},
		"same subscription":      {[]string{"DLQ_SUBSCRIPTION=telemetry-events-relay"}, []string{"DLQ_SUBSCRIPTION", "PUBSUB_SUBSCRIPTION"}},
		"two services.yaml":      {[]string{"WORKER_SERVICES={}", "WORKER_SERVICES_FILE=/dev/null"}, []string{"WORKER_SERVICES", "WORKER_SERVICES_FILE"}},
		"plain text":             {[]string{"TELEMETRY_GATEWAY_URL=http://127.0.0.1:1"}, []string{"TELEMETRY_GATEWAY_URL", "WORKER_INSECURE_DEV"}},
		"plain text far away":    {[]string{"TELEMETRY_GATEWAY_URL=http://10.0.0.1:1", "WORKER_INSECURE_DEV=true"}, []string{"TELEMETRY_GATEWAY_URL", "loopback"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := execute(t, append(base, c.vars...), nil, "run").exits(2)
			contains(t, got.stderr, c.names...)
			if got.stdout != "" {
				t.Errorf("stdout: %q", got.stdout)
			}
		})
	}
}

// TestMissingResourcesEndRun lacks one of the resources in Pub/Sub. The run waits, because
// it may just have been created, and ends before it pulls.
func TestMissingResourcesEndRun(t *testing.T) {
	for _, c := range []struct {
		name, variable, id string
		vars               []string
		remove             func(h *env)
	}{
		{"subscription", "PUBSUB_SUBSCRIPTION", "no-such-subscription", []string{"PUBSUB_SUBSCRIPTION=no-such-subscription"}, nil},
		{"dead-letter topic", "DLQ_TOPIC", dlqID, nil, func(h *env) { h.deleteTopic(dlqID) }},
		{"topic", "PUBSUB_TOPIC", "no-such-topic", []string{"PUBSUB_TOPIC=no-such-topic"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newEnv(t)
			h.publish(event(1))
			if c.remove != nil {
				c.remove(h)
			}
			got := h.run(c.vars...).exits(1)
			contains(t, got.stderr, c.variable, c.id, "does not exist", "missing; waiting for it")
			got.sums(summary{Ended: "error"})
			if got.took < 15*time.Second || got.took > 15*time.Second+busy {
				t.Errorf("it ended after %v, want 15s", got.took)
			}
			h.untouched(1)
		})
	}
	t.Run("everything", func(t *testing.T) {
		h := newEnv(t)
		got := h.run("GOOGLE_CLOUD_PROJECT=elsewhere", "PUBSUB_TOPIC=the-topic", "PUBSUB_SUBSCRIPTION=the-subscription", "DLQ_TOPIC=the-dlq").exits(1)
		contains(t, got.stderr, "the-topic", "the-subscription", "the-dlq")
	})
	t.Run("until it is created", func(t *testing.T) {
		h := newEnv(t)
		h.deleteSubscription(subID)
		p := h.start()
		p.says("missing; waiting for it")
		h.subscribe(subID, topicID)
		h.publish(event(1))
		p.wait().exits(0).sums(summary{Received: 1, Submitted: 1, Ended: "drained"})
	})
	t.Run("topic of the subscription", func(t *testing.T) {
		h := newEnv(t)
		h.publish(event(1))
		h.deleteTopic(topicID)
		got := h.run().exits(1)
		contains(t, got.stderr, fmt.Sprintf("subscriptions/%s", subID), "deleted")
		got.sums(summary{Ended: "error"})
	})
}
