package dlqcmd

import (
	"context"
	"io"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

func (root commands) purgeCommand() *cli.Command {
	return &cli.Command{
		Name:  "purge",
		Usage: "remove dead-lettered messages for good, with a backup",
		Description: "Needs a filter or --all, and --backup FILE or --no-backup. The backup holds lines as\n" +
			"export writes them; a message is removed once its line is on disk.\n\n" +
			"Example:\n\n" +
			"   worker dlq purge --service sams --until 72h --backup sams.ndjson",
		DisableSliceFlagSeparator: true,
		Flags: changeFlags(
			&cli.BoolFlag{Name: "all", Usage: "everything, without a filter"},
			&cli.StringFlag{Name: "backup", Usage: "write the removed messages to `FILE`, which must not exist"},
			&cli.BoolFlag{Name: "no-backup", Usage: "keep no copy of the removed messages"}),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			filter, err := filterOf(c)
			if err != nil {
				return err
			}
			narrow, backup := filter.Narrow(), c.String("backup")
			switch {
			case !narrow && !c.Bool("all"):
				return command.Usagef("purge removes for good: expected a filter such as --reason, or --all")
			case narrow && c.Bool("all"):
				return command.Usagef("expected a filter or --all, got both")
			case backup == "" && !c.Bool("no-backup"):
				return command.Usagef("purge removes for good: expected --backup FILE, or --no-backup")
			case backup != "" && c.Bool("no-backup"):
				return command.Usagef("expected --backup or --no-backup, got both")
			}
			if err := unused(backup); err != nil {
				return err
			}
			where := " for good"
			if backup != "" {
				where = ", with a backup in " + backup
			}
			return root.changeQueue(ctx, c, func(*session) change {
				return change{action: "purge", done: "purged", where: where, audit: []any{"backup", backup}}
			}, func(d *session) error {
				e := &dlq.Exporter{Broken: true}
				if backup == "" {
					return export(ctx, d, io.Discard, e, true)
				}
				return exportTo(ctx, d, backup, e, true)
			})
		},
	}
}
