package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

func (env environment) dlqExportCommand() *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "the original messages as lines for `worker publish`",
		ArgsUsage: "[FILE]",
		Description: "Writes to FILE, which must not exist, or to stdout. The queue keeps its letters unless\n" +
			"--remove, which removes them once their lines are written. What it did goes to stdout\n" +
			"with FILE, else to stderr.\n\n" +
			"Examples:\n\n" +
			"   worker dlq export --service sams letters.ndjson\n" +
			"   worker dlq export --reason unknown_service --remove --yes letters.ndjson",
		DisableSliceFlagSeparator: true,
		Flags: append(filterFlags(), formatFlag("table", "json", "ndjson"), yesFlag(),
			&cli.BoolFlag{Name: "remove", Usage: "remove from the queue what was written"}),
		Action: func(ctx context.Context, c *cli.Command) (err error) {
			if c.NArg() > 1 {
				return usagef("export takes one FILE, got %d", c.NArg())
			}
			remove := c.Bool("remove")
			if remove {
				if err := env.canAsk(c); err != nil {
					return err
				}
			}
			d, err := env.openDesk(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			ch := change{action: "export", done: "exported", plan: "written, and removed from the queue", quiet: !remove, format: c.String("output")}
			if ok, err := d.agree(ctx, c.Bool("yes"), ch); !ok {
				return err
			}
			target := env.stdout
			if path := c.Args().First(); path != "" && path != "-" {
				f, err := create(path)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				target = f
			} else {
				ch.stderr, d.streams = true, true
			}
			return d.run(ctx, ch, func(w *dlq.Walk, n *counts) error {
				e := d.exporter(target)
				if remove {
					e.Remove = w.Queue.Remove
				}
				defer func() { n.done, n.failed = e.Done, e.Failed }()
				return w.Each(ctx, e.Letter, func() error { return e.Flush(ctx) })
			})
		},
	}
}

// create creates a file that only the caller may read, and overwrites none.
func create(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, usagef("%s exists already, and is not overwritten", path)
	}
	if err != nil {
		return nil, usageError{err}
	}
	return f, nil
}

// exporter writes lines to w so that they survive the machine, if w is a file.
func (d *desk) exporter(w io.Writer) *dlq.Exporter {
	out := bufio.NewWriterSize(w, 1<<20)
	return &dlq.Exporter{Out: out, Report: d.report(), Sync: func() error {
		if err := out.Flush(); err != nil {
			return err
		}
		f, ok := w.(*os.File)
		if !ok {
			return nil
		}
		// Pipes and terminals have nothing to sync.
		if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
		return nil
	}}
}
