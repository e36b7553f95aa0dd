package app_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// refusalCodes are those with which Pub/Sub refuses a stream.
var refusalCodes = []codes.Code{codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.FailedPrecondition, codes.Unimplemented}

// TestRefusedStreams has Pub/Sub refuse streams. Only refusals that last end a run.
func TestRefusedStreams(t *testing.T) {
	t.Parallel()
	for _, code := range refusalCodes {
		t.Run(code.String()+" once", func(t *testing.T) {
			t.Parallel()
			h := newEnv(t)
			h.pubsub.RefuseStreams(1, status.Error(code, "for a moment"))
			h.publish(numbered(100)...)
			if s, err := h.run(t.Context()); err != nil || s.Ended != relay.Drained {
				t.Errorf("got %s, %v", toJSON(s), err)
			}
			h.once(100)
			if log := h.log.String(); !strings.Contains(log, "Pub/Sub refuses a stream") || !strings.Contains(log, code.String()) {
				t.Error("no warning names the code")
			}
		})
		t.Run(code.String()+" for good", func(t *testing.T) {
			t.Parallel()
			h := newEnv(t)
			h.pubsub.RefuseStreams(-1, status.Error(code, "for good"))
			h.publish(numbered(1)...)
			s, err := h.run(t.Context(), "WORKER_MODE=continuous")
			if err == nil || s.Ended != relay.Failed || !strings.Contains(err.Error(), subName) || !strings.Contains(err.Error(), code.String()) ||
				!strings.Contains(err.Error(), "check ") {
				t.Errorf("got %s, %v", toJSON(s), err)
			}
			if left := h.pubsub.Messages(subName); len(left) != 1 {
				t.Errorf("%d messages are left in the subscription", len(left))
			}
		})
	}
	t.Run("other codes never end a run, but no stream is no success", func(t *testing.T) {
		t.Parallel()
		h := newEnv(t)
		h.pubsub.RefuseStreams(-1, status.Error(codes.Unavailable, "down"))
		h.publish(numbered(1)...)
		s, err := h.run(t.Context(), "JOB_EXECUTION_DEADLINE=24s", "WORKER_SHUTDOWN_TIMEOUT=4s")
		if err == nil || s.Ended != relay.Deadline || !strings.Contains(err.Error(), "no stream from Pub/Sub has been open") {
			t.Errorf("got %s, %v", toJSON(s), err)
		}
		if !strings.Contains(h.log.String(), "No stream from Pub/Sub is open") {
			t.Error("no warning")
		}
	})
}

// TestDrainProvesEmptiness has all sources of a drain's proof be empty for some time
// although there are messages.
func TestDrainProvesEmptiness(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	var pulls atomic.Int32
	h.pubsub.SetFault(func(method string, _ any) error {
		if method == "Pull" && pulls.Add(1) <= 20 {
			return pubsubserver.ErrEmpty
		}
		return nil
	})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for h.pubsub.Pings(subName) < 4 && t.Context().Err() == nil {
			time.Sleep(5 * time.Millisecond) // until the streams have answered once
		}
		h.pubsub.SilenceStreams(subName)
		h.publish(numbered(50)...)
	})
	s, err := h.runWith(t.Context(), consume.Intervals{Pull: 300 * time.Millisecond, Ping: 2 * time.Second, Answer: time.Second, OpenGrace: 200 * time.Millisecond},
		"WORKER_DRAIN_IDLE=2s")
	publishing.Wait()
	if err != nil || s.Ended != relay.Drained || s.Submitted != 50 {
		t.Errorf("got %s, %v", toJSON(s), err)
	}
	h.empty()
}

// TestDrainWithoutProof has Pub/Sub answer one stream and stay silent on all others, so the
// run cannot know that the subscription is empty.
func TestDrainWithoutProof(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	h.publish(numbered(10)...)
	go func() {
		for t.Context().Err() == nil {
			if len(h.gateway.Recorded()) == 10 {
				h.pubsub.SilenceOpenings(-1)
				h.pubsub.SilenceStreams(subName)
				return
			}
			time.Sleep(5 * time.Millisecond) // until the events are recorded
		}
	}()
	s, err := h.runWith(t.Context(), consume.Intervals{Pull: 300 * time.Millisecond, Ping: 2 * time.Second, Answer: time.Second, OpenGrace: 200 * time.Millisecond},
		"JOB_EXECUTION_DEADLINE=20s", "WORKER_SHUTDOWN_TIMEOUT=4s", "WORKER_DRAIN_IDLE=1s")
	if err != nil || s.Ended != relay.Deadline || s.Submitted != 10 {
		t.Errorf("got %s, %v", toJSON(s), err)
	}
	if !strings.Contains(h.log.String(), "could not prove that the subscription is empty") {
		t.Error("no warning")
	}
}

// TestStreamMetrics looks at the metrics of the streams.
func TestStreamMetrics(t *testing.T) {
	t.Parallel()
	h := newEnv(t)
	h.pubsub.RefuseStreams(2, status.Error(codes.PermissionDenied, "for a moment"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var (
		text string
		done = make(chan struct{})
	)
	_, err := app.Run(ctx, h.config("WORKER_MODE=continuous", "WORKER_DIAGNOSTICS_ADDR=127.0.0.1:0"), app.Options{
		Version: "test", Logger: slog.New(slog.DiscardHandler),
		OnListen: func(addr string) {
			go func() {
				defer close(done)
				defer cancel()
				for ctx.Err() == nil && !strings.Contains(text, "telemetry_relay_pubsub_streams 4") {
					response, err := http.Get("http://" + addr + "/metrics")
					if err != nil {
						return
					}
					body, err := io.ReadAll(response.Body)
					_ = response.Body.Close()
					if err != nil {
						return
					}
					text = string(body)
				}
			}()
		},
	})
	<-done
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{`telemetry_relay_pubsub_streams 4`, `telemetry_relay_pubsub_stream_refusals_total{code="PermissionDenied"} 2`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}
