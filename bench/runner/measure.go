package runner

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sourcegraph/telemetry-relay/bench/fakegateway"
	"github.com/sourcegraph/telemetry-relay/bench/fakepubsub"
	"github.com/sourcegraph/telemetry-relay/bench/load"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
)

// The consumers.
const (
	null   = "null"
	raw    = "raw"
	worker = "worker"
	bare   = "submit" // sends to the gateway, and receives nothing
)

// setup is one measured configuration.
type setup struct {
	consumer string
	plan     load.Plan
	workers  int      // processes on one subscription; 0 means 1
	vars     []string // of the worker's environment, besides the usual
	binary   string   // of the worker; empty means the measured one
	// unfinished is set if not all events will be recorded.
	unfinished bool
}

// Measurement is the outcome of one run.
type Measurement struct {
	Scenario string `json:"scenario"`
	Case     string `json:"case"`
	Consumer string `json:"consumer"`
	Workers  int    `json:"workers"`

	Plan            load.Plan          `json:"plan"`
	EventsPerSecond float64            `json:"events_per_second"`
	CPUPerMillion   float64            `json:"cpu_seconds_per_million"`
	CPU             float64            `json:"cpu_seconds"`
	Wall            float64            `json:"wall_seconds"`
	PeakMB          float64            `json:"peak_mib"`  // of the largest process
	Submitted       []int              `json:"submitted"` // by each worker, in events
	Pubsub          fakepubsub.Report  `json:"pubsub"`
	Gateway         fakegateway.Report `json:"gateway"`
	// FirstRecorded is the time from the start of the process to the first event
	// recorded, in milliseconds.
	FirstRecorded float64 `json:"first_recorded_ms"`
}

const runTimeout = 15 * time.Minute

// measure runs one setup and checks that every event arrived exactly once.
func (r *runner) measure(ctx context.Context, s setup) (m Measurement, err error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel() // kills processes that still run
	s.workers = max(1, s.workers)
	m = Measurement{Consumer: s.consumer, Workers: s.workers, Plan: s.plan}
	fakes, err := startFakes(ctx, s.plan)
	if err != nil {
		return m, err
	}
	began := time.Now()
	used, err := r.runConsumers(ctx, s, fakes)
	if err != nil {
		return m, err
	}
	if err := fakes.finish(&m); err != nil {
		return m, err
	}
	m.compute(used, began)
	if s.unfinished {
		return m, nil
	}
	return m, verify(s, m)
}

// fakes are the servers of one run, each a process of its own.
type fakes struct{ pubsub, gateway, sams *server }

func startFakes(ctx context.Context, plan load.Plan) (f fakes, err error) {
	if f.pubsub, err = startServer(ctx, "pubsub", plan); err != nil {
		return f, err
	}
	if f.gateway, err = startServer(ctx, "gateway", plan); err != nil {
		return f, err
	}
	f.sams, err = startServer(ctx, "sams", plan)
	return f, err
}

// finish ends the servers and takes their reports.
func (f fakes) finish(m *Measurement) error {
	var ignored samsserver.Stats
	return errors.Join(f.pubsub.finish(&m.Pubsub), f.gateway.finish(&m.Gateway), f.sams.finish(&ignored))
}

// runConsumers runs the consumers of a setup until they end, and returns what each has used.
func (r *runner) runConsumers(ctx context.Context, s setup, f fakes) ([]usage, error) {
	if s.consumer == worker {
		environ, err := r.environ(s, f.pubsub.addr, f.gateway.addr, f.sams.addr)
		if err != nil {
			return nil, err
		}
		return r.runWorkers(ctx, s, environ)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	plan, err := json.Marshal(s.plan)
	if err != nil {
		return nil, err
	}
	addr := f.pubsub.addr
	if s.consumer == bare {
		addr = f.gateway.addr
	}
	u, err := consume(ctx, os.Environ(), false, self, s.consumer, addr, string(plan))
	return []usage{u}, err
}

// compute computes the figures of a run that began at that time, from the servers' reports and
// from what its consumers have used.
func (m *Measurement) compute(used []usage, began time.Time) {
	for _, u := range used {
		m.CPU += u.CPU
		m.Wall = max(m.Wall, u.Wall)
		m.PeakMB = max(m.PeakMB, u.PeakMB)
		if m.Consumer == worker {
			m.Submitted = append(m.Submitted, u.Submitted)
		}
	}
	m.CPUPerMillion = m.CPU / float64(m.Plan.Events) * 1e6
	switch {
	case m.Consumer == bare:
		m.EventsPerSecond = float64(m.Gateway.Recorded) / m.Wall
	case m.Pubsub.BulkSeconds > 0:
		m.EventsPerSecond = float64(m.Pubsub.BulkAcked) / m.Pubsub.BulkSeconds
	}
	if !m.Gateway.First.IsZero() {
		m.FirstRecorded = float64(m.Gateway.First.Sub(began).Microseconds()) / 1000
	}
}

// verify checks that every event arrived exactly once.
func verify(s setup, m Measurement) error {
	p, g := m.Pubsub, m.Gateway
	if s.consumer == bare {
		if g.Recorded != s.plan.Events || g.Twice > 0 || g.Wrong > 0 {
			return fmt.Errorf("%s: not every event arrived exactly once: %+v", s.consumer, g)
		}
		return nil
	}
	if p.Acked != s.plan.Events || p.Wrong > 0 {
		return fmt.Errorf("%s: not every message was acknowledged, or a wrong one was: %+v", s.consumer, p)
	}
	if s.consumer != worker {
		return nil
	}
	if g.Recorded != s.plan.Events-s.plan.Rejected() || g.Twice > 0 || g.Wrong > 0 || p.DeadLetters != s.plan.Rejected() {
		return fmt.Errorf("worker: not every event arrived exactly once: gateway %+v, Pub/Sub %+v", g, p)
	}
	return nil
}

func (r *runner) runWorkers(ctx context.Context, s setup, environ []string) ([]usage, error) {
	used, errs := make([]usage, s.workers), make([]error, s.workers)
	var wg sync.WaitGroup
	for i := range s.workers {
		wg.Go(func() { used[i], errs[i] = consume(ctx, environ, s.unfinished, cmp.Or(s.binary, r.worker), "run") })
	}
	wg.Wait()
	return used, errors.Join(errs...)
}

// environ returns a worker's environment, with the plan's services.
func (r *runner) environ(s setup, pubsub, gateway, sams string) ([]string, error) {
	var services strings.Builder
	services.WriteString("unknownServices: reject\nservices:\n")
	for n := range s.plan.Publishers {
		services.WriteString("  - id: " + load.ServiceID(n) + "\n")
	}
	file := filepath.Join(r.dir, fmt.Sprintf("services-%d.yaml", s.plan.Publishers))
	if err := os.WriteFile(file, []byte(services.String()), 0o600); err != nil {
		return nil, err
	}
	environ := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"GOOGLE_CLOUD_PROJECT=bench", "PUBSUB_EMULATOR_HOST=" + pubsub,
		"PUBSUB_TOPIC=events", "PUBSUB_SUBSCRIPTION=events", "DLQ_TOPIC=dlq",
		"TELEMETRY_GATEWAY_URL=http://" + gateway, "SAMS_URL=" + sams,
		"SAMS_CLIENT_ID=" + samsserver.DefaultClientID, "SAMS_CLIENT_SECRET=" + samsserver.DefaultClientSecret,
		"WORKER_INSECURE_DEV=true", "ENVIRONMENT_ID=" + load.Environment, "WORKER_SERVICES_FILE=" + file,
		"WORKER_MODE=drain", "WORKER_DRAIN_IDLE=1s", "LOG_LEVEL=warn",
	}
	return slices.Concat(environ, r.Set, s.vars), nil
}

// freeAddr returns an address that is free at this moment.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
