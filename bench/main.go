// Command bench measures the cost of the worker, beside consumers that only acknowledge.
// See README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/bench/consumers"
	"github.com/sourcegraph/telemetry-relay/bench/fakegateway"
	"github.com/sourcegraph/telemetry-relay/bench/fakepubsub"
	"github.com/sourcegraph/telemetry-relay/bench/load"
	"github.com/sourcegraph/telemetry-relay/bench/runner"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().Run(ctx, os.Args)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func root() *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "measure the worker's cost per event, beside consumers that only acknowledge",
		Description: "Starts a Pub/Sub, a SAMS and a gateway that cost almost nothing, each in a process\n" +
			"of its own, runs each consumer in turn, and checks that every event arrived exactly\n" +
			"once. CPU is the time that the kernel has counted for the consumer's process.\n\n" +
			"Example:\n\n   go run ./bench --runs 3 --scenario throughput,latency --json today.json",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "scenario", Value: "throughput", Usage: "what to measure, separated by commas, or all:\n" + runner.Names()},
			&cli.StringFlag{Name: "case", Usage: "measure only the cases whose name contains this, \"250 ms, 500\" for example"},
			&cli.IntFlag{Name: "events", Value: 1_000_000, Usage: "events of a full backlog"},
			&cli.IntFlag{Name: "publishers", Value: 10, Usage: "publishers of a full backlog"},
			&cli.IntFlag{Name: "runs", Value: 3, Usage: "runs of each consumer, in turn"},
			&cli.StringFlag{Name: "worker", Usage: "binary to measure; built if not given"},
			&cli.StringFlag{Name: "against", Usage: "another binary, measured in turn with the worker, to see the effect of a change"},
			&cli.StringSliceFlag{Name: "set", Usage: "NAME=VALUE, a variable of every worker's environment (repeatable)"},
			&cli.StringFlag{Name: "json", Usage: "write all measurements to this file"},
			&cli.StringFlag{Name: "compare", Usage: "show the change since the measurements in this file"},
			&cli.StringFlag{Name: "profile", Usage: "write a CPU profile of a worker under full backlog to this file, and measure nothing"},
		},
		Commands: []*cli.Command{
			server("pubsub", func(ctx context.Context, p load.Plan) (string, func() any, error) {
				s, addr, err := fakepubsub.Start(p)
				return addr, func() any { return s.Close() }, err
			}),
			server("gateway", func(ctx context.Context, p load.Plan) (string, func() any, error) {
				s, addr, err := fakegateway.Start(p)
				return addr, func() any { return s.Close() }, err
			}),
			server("sams", func(ctx context.Context, p load.Plan) (string, func() any, error) {
				s, err := samsserver.Start(ctx, samsserver.Options{})
				if err != nil {
					return "", nil, err
				}
				return s.URL(), func() any { _ = s.Close(); return s.Stats() }, nil
			}),
			consumer("null", consumers.Null),
			consumer("raw", consumers.Raw),
			consumer("submit", consumers.Submit),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			return runner.Run(ctx, runner.Options{
				Scenarios:  c.String("scenario"),
				Case:       c.String("case"),
				Events:     c.Int("events"),
				Publishers: c.Int("publishers"),
				Runs:       c.Int("runs"),
				Worker:     c.String("worker"),
				Against:    c.String("against"),
				Set:        c.StringSlice("set"),
				JSON:       c.String("json"),
				Compare:    c.String("compare"),
				Profile:    c.String("profile"),
				Stdout:     os.Stdout,
				Stderr:     os.Stderr,
			})
		},
	}
}

// server is a hidden command that serves until its standard input ends, and then prints its
// report. Its first line is its address.
func server(name string, start func(context.Context, load.Plan) (string, func() any, error)) *cli.Command {
	return &cli.Command{
		Name: name, Hidden: true,
		Action: func(ctx context.Context, c *cli.Command) error {
			var plan load.Plan
			if err := json.Unmarshal([]byte(c.Args().First()), &plan); err != nil {
				return err
			}
			addr, end, err := start(ctx, plan)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(c.Root().Writer, addr); err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
				return err
			}
			return json.NewEncoder(c.Root().Writer).Encode(end())
		},
	}
}

// consumer is a hidden command that consumes a plan's messages from a server.
func consumer(name string, consume func(ctx context.Context, addr string, plan load.Plan) error) *cli.Command {
	return &cli.Command{
		Name: name, Hidden: true,
		Action: func(ctx context.Context, c *cli.Command) error {
			var plan load.Plan
			if err := json.Unmarshal([]byte(c.Args().Get(1)), &plan); err != nil {
				return err
			}
			return consume(ctx, c.Args().Get(0), plan)
		},
	}
}
