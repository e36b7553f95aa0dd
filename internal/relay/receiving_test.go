package relay

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

func TestRunWithoutStreamIsNoSuccess(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	const denied = "PermissionDenied: no"
	since := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name   string
		health consume.Health
		want   string
	}{
		{"streams are open", consume.Health{Open: 4, EverOpen: true}, ""},
		{"nothing is to be received, as in an outage of the gateway", consume.Health{}, ""},
		{"stopped soon after the start", consume.Health{NoneSince: since(3 * time.Second)}, ""},
		{"no stream was ever open", consume.Health{NoneSince: since(10 * time.Second), LastError: denied},
			"no stream from Pub/Sub has been open for 10s: PermissionDenied: no"},
		{"a stream is being opened again", consume.Health{NoneSince: since(30 * time.Second), EverOpen: true}, ""},
		{"none has been open for a minute", consume.Health{NoneSince: since(time.Minute), EverOpen: true},
			"no stream from Pub/Sub has been open for 1m0s"},
	} {
		if got := noStreamAtEnd(c.health, now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// withoutStreams is a Pub/Sub whose streams cannot be opened while down is set. Its
// gateway is well.
type withoutStreams struct{ down atomic.Bool }

func (w *withoutStreams) Stream(ctx context.Context, _ consume.Flow) (consume.Stream, error) {
	if w.down.Load() {
		return nil, status.Error(codes.Unavailable, "no route")
	}
	return quietStream{ctx, make(chan struct{}, 1)}, nil
}

func (*withoutStreams) Pull(ctx context.Context, _ int, immediately bool) (consume.Response, error) {
	if !immediately {
		<-ctx.Done()
	}
	return consume.NewResponse(nil), nil
}

func (*withoutStreams) Acknowledge(context.Context, []string) error { return nil }
func (*withoutStreams) ModifyAckDeadline(context.Context, []string, time.Duration) error {
	return nil
}
func (*withoutStreams) Submit(context.Context, submit.Batch) submit.Result { return submit.Result{} }
func (*withoutStreams) Probe(context.Context, string) error                { return nil }
func (*withoutStreams) Tokenless() bool                                    { return false }

// quietStream answers pings and delivers nothing.
type quietStream struct {
	ctx   context.Context
	pings chan struct{}
}

func (s quietStream) Ping() error {
	s.pings <- struct{}{}
	return nil
}

func (s quietStream) Recv() (consume.Response, error) {
	select {
	case <-s.pings:
		return consume.NewResponse(nil), nil
	case <-s.ctx.Done():
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
}

// TestWorkerWithoutStreamIsNotReady has no stream open for more than a minute: the worker says
// that it is not ready, and a run that ends so is no success.
func TestWorkerWithoutStreamIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services, err := policy.NewSet(nil, true)
		if err != nil {
			t.Fatal(err)
		}
		w := &withoutStreams{}
		r := New(w, w, nil, Options{
			Batch: batch.Limits{Events: 10, Bytes: 1 << 20, Delay: time.Second}, Streams: 1,
			Consume:         consume.Options{MaxEvents: 100, MaxBytes: 1 << 20},
			ShutdownTimeout: 8 * time.Second, Services: services, Metrics: metrics.New(), Logger: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := r.Run(ctx)
			ended <- err
		}()
		ready := func(want bool, when string) {
			t.Helper()
			if got := r.Status(); got.Ready != want {
				t.Errorf("%s: %+v", when, got)
			}
		}
		time.Sleep(5 * time.Minute)
		ready(true, "with streams")
		w.down.Store(true)
		time.Sleep(time.Minute)
		ready(true, "streams that are open stay open")
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("a run that ends with streams: %v", err)
		}

		r = New(w, w, nil, r.opts)
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		go func() {
			_, err := r.Run(ctx)
			ended <- err
		}()
		time.Sleep(55 * time.Second)
		ready(true, "after 55 s without a stream")
		time.Sleep(10 * time.Second)
		ready(false, "after 65 s without a stream")
		if reason := r.Status().Reason; !strings.Contains(reason, "no stream from Pub/Sub has been open for 1m") || !strings.Contains(reason, "Unavailable: no route") {
			t.Errorf("the reason is %q", reason)
		}
		w.down.Store(false)
		time.Sleep(15 * time.Second)
		ready(true, "with streams again")
		w.down.Store(true)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
