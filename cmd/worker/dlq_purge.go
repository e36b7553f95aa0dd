package main

import (
	"context"
	"errors"
	"io"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

func (env environment) dlqPurgeCommand() *cli.Command {
	return &cli.Command{
		Name:  "purge",
		Usage: "remove dead letters for good, with a backup",
		Description: "Needs a filter or --all, and --backup FILE or --no-backup. The backup holds lines as\n" +
			"export writes them; a letter is removed once its line is safe.\n\n" +
			"Example:\n\n" +
			"   worker dlq purge --service sams --until 72h --backup sams.ndjson",
		DisableSliceFlagSeparator: true,
		Flags: append(filterFlags(), formatFlag("table", "json", "ndjson"), yesFlag(),
			&cli.BoolFlag{Name: "all", Usage: "everything, without a filter"},
			&cli.StringFlag{Name: "backup", Usage: "write what is removed to `FILE`, which must not exist"},
			&cli.BoolFlag{Name: "no-backup", Usage: "keep nothing of what is removed"}),
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			if err := noArguments(c); err != nil {
				return err
			}
			narrow, backup := filterOf(c).Narrow(), c.String("backup")
			switch {
			case !narrow && !c.Bool("all"):
				return usagef("purge removes for good: expected a filter such as --reason, or --all")
			case narrow && c.Bool("all"):
				return usagef("expected a filter or --all, got both")
			case backup == "" && !c.Bool("no-backup"):
				return usagef("purge removes for good: expected --backup FILE, or --no-backup")
			case backup != "" && c.Bool("no-backup"):
				return usagef("expected --backup or --no-backup, got both")
			}
			if err := env.canAsk(c); err != nil {
				return err
			}
			d, err := env.openDesk(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			ch := change{action: "purge", done: "purged", plan: "removed for good", format: c.String("output")}
			if backup != "" {
				ch.plan = "removed, with a backup in " + backup
			}
			if ok, err := d.agree(ctx, c.Bool("yes"), ch); !ok {
				return err
			}
			target := io.Discard
			if backup != "" {
				f, err := create(backup)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				target = f
			}
			return d.run(ctx, ch, func(w *dlq.Walk, n *counts) error {
				e := d.exporter(target)
				e.Broken, e.Remove = true, w.Queue.Remove
				defer func() { n.done, n.failed = e.Done, e.Failed }()
				return w.Each(ctx, e.Letter, func() error { return e.Flush(ctx) })
			})
		},
	}
}
