package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/bench/runner"
)

// TestMain lets the test's own binary play the parts of the benchmark's
// processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.ContainsFunc(root().Commands, func(c *cli.Command) bool { return c.Name == os.Args[1] }) {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestCounts runs the benchmark on a small backlog, which checks that every event
// arrives exactly once, and guards what does not depend on the machine.
func TestCounts(t *testing.T) {
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
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var measured []runner.Measurement
	if err := json.Unmarshal(b, &measured); err != nil {
		t.Fatal(err)
	}
	for _, m := range measured {
		if m.Consumer != "worker" {
			continue
		}
		per1000 := func(n int) float64 { return float64(n) / events * 1000 }
		for _, guard := range []struct {
			what string
			got  float64
			most float64
		}{
			{"streams to the gateway per 1,000 events", per1000(m.Gateway.Streams), 1.5},
			{"acknowledge requests per 1,000 events", per1000(m.Pubsub.AckRPCs), 3},
			{"extended leases per 1,000 events", per1000(m.Pubsub.ModifyIDs), 1},
			{"redelivered messages", float64(m.Pubsub.Redelivered), 0},
		} {
			t.Logf("%s: %.2f", guard.what, guard.got)
			if guard.got > guard.most {
				t.Errorf("%s: %.2f, want at most %.2f", guard.what, guard.got, guard.most)
			}
		}
		return
	}
	t.Error("the worker was not measured")
}
