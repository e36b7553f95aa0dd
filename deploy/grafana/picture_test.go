package grafana_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/devstack"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/sample"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// TestDrawDashboard makes the picture of the dashboard: it runs a worker through some
// minutes with faults, has a real Prometheus scrape it, and draws what the
// panels' queries answer. It runs only when DASHBOARD_PICTURE says where to put
// the picture, and needs Debian's package prometheus:
//
//	DASHBOARD_PICTURE=../../docs/dashboard.png go test ./deploy/grafana -run TestDrawDashboard -v -timeout 10m
func TestDrawDashboard(t *testing.T) {
	picture := os.Getenv("DASHBOARD_PICTURE")
	if picture == "" {
		t.Skip("DASHBOARD_PICTURE does not say where to put the picture")
	}
	picture, err := filepath.Abs(picture)
	if err != nil {
		t.Fatal(err)
	}
	w := newFaults(t)
	began := time.Now()
	prometheus := scrape(t, w.endpoints)
	for _, step := range []struct {
		name        string
		seconds     int
		begin, ends func()
	}{
		{"fair", 40, nil, nil},
		{"the gateway is away", 30, w.stack.Gateway.Stop, func() { w.must(w.stack.Gateway.Restart(t.Context())) }},
		{"fair", 25, nil, nil},
		{"SAMS is away, and the tokens are revoked", 30, func() {
			w.stack.SAMS.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
				return http.StatusServiceUnavailable, "", 0, true
			})
			w.stack.SAMS.RevokeAll()
		}, func() { w.stack.SAMS.SetFault(nil) }},
		{"fair", 20, nil, nil},
		{"the dead-letter topic is away", 30, func() {
			w.stack.PubSub.SetFault(func(method string, _ any) error {
				if method == "Publish" {
					return status.Error(codes.Unavailable, "away")
				}
				return nil
			})
		}, func() { w.stack.PubSub.SetFault(nil) }},
		{"the gateway is slow", 40, func() { w.slow(800 * time.Millisecond) }, func() { w.slow(0) }},
		{"fair", 25, nil, nil},
		{"Pub/Sub refuses streams", 25, func() {
			w.stack.PubSub.RefuseStreams(-1, status.Error(codes.PermissionDenied, "User not authorized to perform this action."))
			w.stack.PubSub.BreakStreams(nil)
		}, func() { w.stack.PubSub.RefuseStreams(0, nil) }},
		{"fair", 30, nil, nil},
	} {
		t.Log(step.name)
		if step.begin != nil {
			step.begin()
		}
		time.Sleep(time.Duration(step.seconds) * time.Second)
		if step.ends != nil {
			step.ends()
		}
	}
	draw := exec.CommandContext(t.Context(), "go", "run", "./dashboard", "-prometheus", prometheus, "-dashboard", "../deploy/grafana/"+file,
		"-from", began.Format(time.RFC3339), "-rate-interval", "10s", "-out", picture)
	draw.Dir = "../../tools"
	if out, err := draw.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// faults is a worker with its dependencies, and a publisher.
type faults struct {
	t         *testing.T
	stack     *devstack.Stack
	endpoints string

	mu    sync.Mutex
	delay time.Duration
}

func newFaults(t *testing.T) *faults {
	t.Helper()
	stack, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &faults{t: t, stack: stack}
	payloads := 0
	stack.Gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		w.mu.Lock()
		defer w.mu.Unlock()
		payloads++
		f := gatewayserver.Fault{Delay: w.delay}
		if payloads%40 == 0 {
			f.Omit = []string{events[0].GetId()} // the backend failed for one of them
		}
		return f
	})
	cfg, err := config.Load(append(stack.Environ(), "WORKER_MODE=continuous", "WORKER_BATCH_MAX_DELAY=200ms", "WORKER_DIAGNOSTICS_ADDR=127.0.0.1:0"), config.ForRun)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	listening := make(chan string, 1)
	var ends sync.WaitGroup
	ends.Go(func() {
		summary, err := app.Run(ctx, cfg, app.Options{Version: "1.0.0", Logger: slog.New(slog.DiscardHandler), OnListen: func(addr string) { listening <- addr }})
		t.Logf("%+v, %v", summary, err)
	})
	w.endpoints = <-listening
	ends.Go(func() { w.publish(ctx) })
	t.Cleanup(func() {
		stop()
		ends.Wait()
		w.must(stack.Close())
	})
	return w
}

func (w *faults) must(err error) {
	if err != nil {
		w.t.Error(err)
	}
}

func (w *faults) slow(delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay = delay
}

// publish publishes some 300 events a second, a few of them bad.
func (w *faults) publish(ctx context.Context) {
	events, err := sample.Events(120_000)
	w.must(err)
	bad, err := sample.Bad()
	w.must(err)
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		chunk := append([]ndjson.Message{}, events[:30]...)
		events = events[30:]
		if n%4 == 0 {
			chunk = append(chunk, bad[n/4%len(bad)])
		}
		if n%10 == 0 { // as if on-call replayed one
			chunk[0].Attributes = maps.Clone(chunk[0].Attributes)
			chunk[0].Attributes[event.AttrReplayID] = "20261127T090000Z-000000"
			chunk[0].Attributes[event.AttrReplayCount] = "1"
		}
		// The topic may be made to fail for the worker's sake; a service would retry.
		for w.stack.Publish(chunk) != nil && ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// scrape starts a Prometheus that scrapes the endpoints, and returns its URL.
func scrape(t *testing.T, endpoints string) string {
	t.Helper()
	dir := t.TempDir()
	conf := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs: [{job_name: telemetry-relay, static_configs: [{targets: [%q]}]}]\n", endpoints)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, err := testenv.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--log.level=warn")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // it was killed
	})
	return "http://" + addr
}
