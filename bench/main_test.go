package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/bench/runner"
)

// TestMain lets the test's own binary run as the benchmark's processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.ContainsFunc(root().Commands, func(c *cli.Command) bool { return c.Name == os.Args[1] }) {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestCostsPerEvent runs the benchmark on a small backlog. It checks that every event
// arrives exactly once, and guards the counts that do not depend on the machine.
func TestCostsPerEvent(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the worker")
	}
	const events = 100_000 // so many that the last, partial batches of a drain matter little
	file := filepath.Join(t.TempDir(), "measured.json")
	err := runner.Run(t.Context(), runner.Options{
		Scenarios: "throughput", Events: events, Publishers: 10, Runs: 1, JSON: file, Stdout: io.Discard, Stderr: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range readMeasured(t, file) {
		if m.Consumer != "worker" {
			continue
		}
		per1000 := func(n int) float64 { return float64(n) / events * 1000 }
		for _, guard := range []struct {
			what  string
			got   float64
			limit float64
		}{
			{"streams to the gateway per 1,000 events", per1000(m.Gateway.Streams), 1.5},
			{"acknowledge requests per 1,000 events", per1000(m.Pubsub.AckRPCs), 3},
			{"extended leases per 1,000 events", per1000(m.Pubsub.ModifyIDs), 1},
			{"redelivered messages", float64(m.Pubsub.Redelivered), 0},
		} {
			t.Logf("%s: %.2f", guard.what, guard.got)
			if guard.got > guard.limit {
				t.Errorf("%s: %.2f, want at most %.2f", guard.what, guard.got, guard.limit)
			}
		}
		return
	}
	t.Error("the worker was not measured")
}

// TestMemoryOfManyValues has valid events that take little memory as bytes and very much as
// values: hundreds of thousands of empty objects, nulls and numbers each. The worker's
// memory must stay within three times the bound on bytes in flight, plus the program itself
// and one such event. An honest event beside 30 of them may wait for seconds. Such an event
// would take 6 s and 16 MiB or more if its size were computed from the values.
func TestMemoryOfManyValues(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the worker")
	}
	const (
		outstanding = 16   // MiB
		program     = 80   // MiB
		longest     = 30e3 // ms, on a machine that is shared with other tests
	)
	file := filepath.Join(t.TempDir(), "measured.json")
	err := runner.Run(t.Context(), runner.Options{
		Scenarios: "values", Events: 33, Publishers: 1, Runs: 1, JSON: file, Stdout: io.Discard, Stderr: io.Discard,
		Set: []string{fmt.Sprintf("WORKER_MAX_OUTSTANDING_BYTES=%dMiB", outstanding)},
	})
	if err != nil {
		t.Fatal(err)
	}
	measured := readMeasured(t, file)
	if len(measured) == 0 {
		t.Fatal("nothing was measured")
	}
	for _, m := range measured {
		t.Logf("%s: peak %.0f MiB, honest events wait %.0f ms at most, %.1f s of CPU", m.Case, m.PeakMB, m.Gateway.P99, m.CPU)
		if limit := float64(3*outstanding + program); m.PeakMB > limit {
			t.Errorf("%s: peak memory of %.0f MiB, want %.0f at most", m.Case, m.PeakMB, limit)
		}
		if m.Gateway.P99 == 0 || m.Gateway.P99 > longest {
			t.Errorf("%s: honest events wait for %.0f ms, want %.0f at most", m.Case, m.Gateway.P99, longest)
		}
	}
}

// readMeasured reads the measurements of a run.
func readMeasured(t *testing.T, file string) (measured []runner.Measurement) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &measured); err != nil {
		t.Fatal(err)
	}
	return measured
}
