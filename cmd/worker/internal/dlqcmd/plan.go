package dlqcmd

import (
	"context"
	"io"
	"os"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

func (root commands) planCommand() *cli.Command {
	return &cli.Command{
		Name:  "plan",
		Usage: "what a replay will do with each fault, checked on every event",
		Description: "Reads a file that says what happens to which fault (see stats):\n\n" +
			"   F-7c3a91: {jq: '.user.userId |= tonumber'}   # correct the data, and replay\n" +
			"   F-11aa22: replay                             # replay as it is\n" +
			"   F-33bb44: purge                              # remove, with a backup\n" +
			"   F-55cc66: keep                               # leave; so is what the file does not name\n\n" +
			"It checks every event of these faults as the worker does, prints field by field what\n" +
			"the expressions change in all of them, and writes the plan, which pins the messages,\n" +
			"the expressions, the services list and the queue. An event that the worker would reject\n" +
			"is not in the plan. The queue stays as it is until `worker dlq apply`.\n\n" +
			"Example:\n\n" +
			"   worker dlq plan --fix fixes.yaml -o plan.json",
		DisableSliceFlagSeparator: true,
		Flags: append(filterFlags(), formatFlag("table", "json", "ndjson"), revealFlag(), auditFlag(),
			&cli.StringFlag{Name: "fix", Usage: "the `FILE` that says what happens to which fault"},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write the plan to `FILE`, which must not exist"},
			countFlag("max-replays", defaultMaxReplays, "leave events that were replayed `N` times before"),
			&cli.BoolFlag{Name: "services-anyway", Usage: "check also with another services list than the running worker has"},
			&cli.BoolFlag{Name: "no-check", Usage: "plan also events that the worker would reject"}),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			out := c.String("out")
			if c.String("fix") == "" || out == "" {
				return command.Usagef("expected --fix FILE and -o FILE")
			}
			fixes, err := readFixes(c.String("fix"))
			if err != nil {
				return err
			}
			if err := unused(out); err != nil {
				return err
			}
			d, err := root.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			d.queue.looks = true
			p := planner{session: d, fixes: fixes, out: out, maxReplays: c.Int("max-replays"), unchecked: c.Bool("no-check")}
			if !d.reveal {
				return p.run(ctx)
			}
			d.console.makePrivate(d.env.Stdout)
			d.console.makePrivate(d.env.Stderr)
			return d.audit.reading(ctx, "plan --reveal", d.filter, func() error { return p.run(ctx) }, "file", out)
		},
	}
}

// compiles returns the error of an expression that does not compile.
func compiles(expression string) error {
	_, err := dlq.CompileFix(expression)
	return err
}

// readFixes reads the file of --fix.
func readFixes(path string) (plan.Fixes, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	fixes, err := plan.ParseFixes(text, compiles)
	if err != nil {
		return nil, command.Usagef("%s: %w", path, err)
	}
	return fixes, nil
}

// readFile reads a file that a person names.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, command.Usage(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, plan.MaxBytes+1))
	switch {
	case err != nil:
		return nil, command.Usage(err)
	case len(text) > plan.MaxBytes:
		return nil, command.Usagef("%s is larger than %d bytes", path, plan.MaxBytes)
	}
	return text, nil
}

// fixesOf compiles the expressions of a plan's groups, by fault.
func fixesOf(steps map[string]plan.Step) (map[string]*dlq.Fix, error) {
	fixes := map[string]*dlq.Fix{}
	for id, step := range steps {
		if step.Action != plan.Fix {
			continue
		}
		fix, err := dlq.CompileFix(step.JQ)
		if err != nil {
			return nil, err // it was compiled before
		}
		fix.Name = "jq"
		fixes[id] = fix
	}
	return fixes, nil
}
