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
	pubsub, err := startServer(ctx, "pubsub", s.plan)
	if err != nil {
		return m, err
	}
	gateway, err := startServer(ctx, "gateway", s.plan)
	if err != nil {
		return m, err
	}
	sams, err := startServer(ctx, "sams", s.plan)
	if err != nil {
		return m, err
	}

	began := time.Now()
	var used []usage
	if s.consumer == worker {
		environ, err := r.environ(s, pubsub.addr, gateway.addr, sams.addr)
		if err != nil {
			return m, err
		}
		if used, err = r.runWorkers(ctx, s, environ); err != nil {
			return m, err
		}
	} else {
		self, err := os.Executable()
		if err != nil {
			return m, err
		}
		plan, err := json.Marshal(s.plan)
		if err != nil {
			return m, err
		}
		addr := pubsub.addr
		if s.consumer == bare {
			addr = gateway.addr
		}
		u, err := consume(ctx, os.Environ(), false, self, s.consumer, addr, string(plan))
		if err != nil {
			return m, err
		}
		used = []usage{u}
	}
	var ignored samsserver.Stats
	if err := errors.Join(pubsub.finish(&m.Pubsub), gateway.finish(&m.Gateway), sams.finish(&ignored)); err != nil {
		return m, err
	}
	for _, u := range used {
		m.CPU += u.CPU
		m.Wall = max(m.Wall, u.Wall)
		m.PeakMB = max(m.PeakMB, u.PeakMB)
		if s.consumer == worker {
			m.Submitted = append(m.Submitted, u.Submitted)
		}
	}
	m.CPUPerMillion = m.CPU / float64(s.plan.Events) * 1e6
	switch {
	case s.consumer == bare:
		m.EventsPerSecond = float64(m.Gateway.Recorded) / m.Wall
	case m.Pubsub.Seconds > 0:
		m.EventsPerSecond = float64(m.Pubsub.Acked) / m.Pubsub.Seconds
	}
	if !m.Gateway.First.IsZero() {
		m.FirstRecorded = float64(m.Gateway.First.Sub(began).Microseconds()) / 1000
	}
	if s.unfinished {
		return m, nil
	}
	return m, verify(s, m)
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
