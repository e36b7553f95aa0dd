// Package runner measures: it starts servers and consumers as processes, reads from the
// kernel what they cost, and reports.
package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sourcegraph/telemetry-relay/bench/load"
)

// Options of a benchmark.
type Options struct {
	Scenarios  string   // names, separated by commas, or all
	Case       string   // a part of the names of the cases to measure; empty: all
	Events     int      // of a full backlog
	Publishers int      // of a full backlog
	Runs       int      // number of runs of each consumer
	Worker     string   // the binary; empty: it is built
	Against    string   // another one, measured in turn with it; empty: none
	JSON       string   // file to write; empty: none
	Compare    string   // file to compare with; empty: none
	Profile    string   // file of a profile; empty: measure
	Set        []string // NAME=VALUE, for every worker's environment, besides the scenario's own
	Stdout     io.Writer
	Stderr     io.Writer
}

type runner struct {
	Options
	worker string
	dir    string
}

// Run measures the scenarios and prints a table for each.
func Run(ctx context.Context, opts Options) (err error) {
	if opts.Events < 1 || opts.Publishers < 1 || opts.Runs < 1 {
		return fmt.Errorf("expected at least one event, publisher and run, got %d, %d and %d", opts.Events, opts.Publishers, opts.Runs)
	}
	list, err := chosen(opts.Scenarios)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(s scenario) bool { return len(chosenCases(s, opts)) > 0 }) {
		return fmt.Errorf("no case of %s has a name that contains %q", opts.Scenarios, opts.Case)
	}
	var before []Measurement
	if opts.Compare != "" {
		b, err := os.ReadFile(opts.Compare)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &before); err != nil {
			return fmt.Errorf("%s: %w", opts.Compare, err)
		}
	}
	r := &runner{Options: opts, worker: opts.Worker}
	if r.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(r.dir) }() // a temporary one
	if r.worker == "" {
		if r.worker, err = buildWorker(ctx, r.dir); err != nil {
			return err
		}
	}
	if opts.Profile != "" {
		return r.profile(ctx)
	}
	var all []Measurement
	for _, s := range list {
		measured, err := r.scenario(ctx, s)
		if err != nil {
			return fmt.Errorf("scenario %s: %w", s.name, err)
		}
		all = append(all, measured...)
		report(opts.Stdout, s, measured, before)
	}
	if opts.JSON == "" {
		return nil
	}
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(opts.JSON, append(b, '\n'), 0o600)
}

// scenario measures the cases in turn, so that a temporary disturbance of the machine
// affects all of them.
func (r *runner) scenario(ctx context.Context, s scenario) (all []Measurement, err error) {
	runs := r.Runs
	if s.runs > 0 {
		runs = s.runs
	}
	for run := range runs {
		for _, c := range r.doubled(chosenCases(s, r.Options)) {
			fmt.Fprintf(r.Stderr, "%s, run %d of %d: %s\n", s.name, run+1, runs, c.name)
			m, err := r.measure(ctx, c.setup)
			if err != nil {
				return nil, err
			}
			m.Scenario, m.Case = s.name, c.name
			all = append(all, m)
		}
	}
	return all, nil
}

// chosenCases are the cases of a scenario that are to be measured.
func chosenCases(s scenario, opts Options) []testCase {
	return slices.DeleteFunc(s.cases(opts), func(c testCase) bool { return !strings.Contains(c.name, opts.Case) })
}

// doubled adds a copy of each case of the worker with the other binary.
func (r *runner) doubled(cases []testCase) (all []testCase) {
	for _, c := range cases {
		all = append(all, c)
		if c.consumer == worker && r.Against != "" {
			c.name += ", against"
			c.binary = r.Against
			all = append(all, c)
		}
	}
	return all
}

// profile fetches a CPU profile of a worker under full backlog.
func (r *runner) profile(ctx context.Context) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	fetched := make(chan error, 1)
	go func() { fetched <- r.fetchProfile(ctx, "http://"+addr+"/debug/pprof/profile?seconds=4") }()
	_, err = r.measure(ctx, setup{
		consumer: worker, plan: load.Plan{Events: r.Events, Publishers: r.Publishers}, vars: []string{"WORKER_DIAGNOSTICS_ADDR=" + addr},
	})
	if profileErr := <-fetched; err == nil {
		err = profileErr
	}
	return err
}

func (r *runner) fetchProfile(ctx context.Context, url string) error {
	var response *http.Response
	again := time.NewTicker(10 * time.Millisecond) // until the worker serves it
	defer again.Stop()
	for response == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if response, err = http.DefaultClient.Do(request); err == nil {
			break
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { _ = response.Body.Close() }() // only read
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: HTTP %d: %s", response.StatusCode, b)
	}
	return os.WriteFile(r.Profile, b, 0o600)
}
