package dlqcmd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

func (root commands) exportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "the original messages as lines for `worker publish`",
		ArgsUsage: "[FILE]",
		Description: "Writes to FILE, which must not exist and only you can read, or to stdout. The queue keeps its messages unless\n" +
			"--remove, which removes them once their lines are written. The result goes to stdout\n" +
			"with FILE, else to stderr.\n\n" +
			"Examples:\n\n" +
			"   worker dlq export --service sams messages.ndjson\n" +
			"   worker dlq export --reason unknown_service --remove --yes messages.ndjson",
		DisableSliceFlagSeparator: true,
		Flags: changeFlags(
			&cli.StringFlag{Name: "to", Usage: "write to `FILE`, as without the flag's name"},
			&cli.BoolFlag{Name: "remove", Usage: "remove from the queue what was written"}),
		Action: func(ctx context.Context, c *cli.Command) error {
			path, err := exportPath(c)
			if err != nil {
				return err
			}
			remove := c.Bool("remove")
			return root.changeQueue(ctx, c, func(d *session) change {
				d.console.streams = path == ""
				return change{
					action: "export", done: "exported", where: ", and remove them from the queue", quiet: !remove, stderr: path == "",
					audit: []any{"file", path},
				}
			}, func(d *session) error {
				e := &dlq.Exporter{}
				write := func() error { return exportTo(ctx, d, path, e, remove) }
				if path == "" {
					d.console.makePrivate(d.env.Stdout)
					write = func() error { return export(ctx, d, terminal.JSON(d.env.Stdout), e, remove) }
				}
				if remove {
					return write() // the audit record of the change has the messages
				}
				return d.audit.reading(ctx, "export", d.filter, write, "file", path)
			})
		},
	}
}

// exportPath returns the new file of the arguments; empty means stdout.
func exportPath(c *cli.Command) (string, error) {
	if c.NArg() > 1 {
		return "", command.Usagef("export takes one FILE, got %d", c.NArg())
	}
	path := c.Args().First()
	if c.IsSet("to") {
		if path != "" {
			return "", command.Usagef("expected FILE or --to FILE, got both")
		}
		path = c.String("to")
	}
	if path == "-" {
		path = ""
	}
	return path, unused(path)
}

// exportTo exports the selected messages to a new file, and removes them if asked.
func exportTo(ctx context.Context, d *session, path string, e *dlq.Exporter, remove bool) error {
	f, err := create(path)
	if err != nil {
		return err
	}
	return errors.Join(export(ctx, d, f, e, remove), f.Close())
}

// export writes the selected messages as lines to w, and removes them if asked. If w is
// a file, it removes a message only after its line is on disk.
func export(ctx context.Context, d *session, w io.Writer, e *dlq.Exporter, remove bool) error {
	out := bufio.NewWriterSize(w, 1<<20)
	e.Out, e.Report = out, d.skipped.add
	e.Sync = func() error {
		if err := out.Flush(); err != nil {
			return err
		}
		if f, ok := w.(syncer); ok {
			return syncFile(f)
		}
		return nil
	}
	e.OnDone = func(ids []string) { d.audit.touched.add(ids...) }
	return d.run(ctx, func(n *counts) error {
		defer func() { n.done, n.failed = e.Done, e.Failed }()
		return d.queue.pass(ctx, d.filter, n, func(walk *dlq.Walk) error {
			if remove {
				e.Remove = walk.Queue.Remove
			}
			return walk.Each(ctx, e.Add, func() error { return e.Flush(ctx) })
		})
	})
}

type syncer interface{ Sync() error }

// syncFile returns when what was written is on disk. Pipes and terminals have nothing to
// sync.
func syncFile(f syncer) error {
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// unused refuses a file that exists, before the question and the reading.
func unused(path string) error {
	if _, err := os.Lstat(path); path != "" && err == nil {
		return command.Usagef("%s exists already, and is not overwritten", path)
	}
	return nil
}

// create creates a file that only the user may read. It overwrites none.
func create(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, command.Usagef("%s exists already, and is not overwritten", path)
	}
	if err != nil {
		return nil, command.Usage(err)
	}
	return f, nil
}
