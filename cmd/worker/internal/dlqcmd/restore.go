package dlqcmd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

func (root commands) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "put removed messages back into the dead-letter queue",
		ArgsUsage: "FILE",
		Description: "Publishes the messages of a backup or an export to DLQ_TOPIC, as they were: with the same\n" +
			"data, reasons, times and ids. FILE is what purge --backup, replay --backup, apply or\n" +
			"export has written. Every line is checked before the first is published. A message that\n" +
			"is in FILE twice is restored once; one that is still in the queue is there twice then.\n\n" +
			"After an interruption it says from which line --from-line goes on.\n\n" +
			"Example:\n\n" +
			"   worker dlq restore plan.json.backup",
		Flags: []cli.Flag{
			formatFlag("table", "json", "ndjson"), command.YesFlag(), auditFlag(),
			&cli.IntFlag{Name: "from-line", Value: 1, Usage: "begin with line `N` of FILE", Validator: func(n int) error {
				if n < 1 {
					return fmt.Errorf("expected a line of at least 1, got %d", n)
				}
				return nil
			}},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.NArg() != 1 {
				return command.Usagef("restore takes one FILE, got %d", c.NArg())
			}
			r := restoring{path: c.Args().First(), from: c.Int("from-line")}
			n, err := r.check(ctx)
			if err != nil {
				return err
			}
			d, err := root.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			r.session = d
			if n == 0 {
				d.console.say("worker: %s has no message: nothing was changed", r.path)
				return errors.Join(r.print(0, 0), command.Reported(errors.New("no message")))
			}
			question := fmt.Sprintf("Put %s back on %s?", command.Plural(n, "message"), d.cfg.DeadLetterTopicName())
			if ok, err := agreed(ctx, d.env, "restore", c.Bool("yes"), question); !ok {
				return err
			}
			return r.restore(ctx, n)
		},
	}
}

// restoring restores the messages of a file.
type restoring struct {
	session *session
	path    string
	from    int // the first line
}

const (
	// maxBackupLine is the longest line, in bytes: more than 10 MB in base64.
	maxBackupLine = 32 << 20
	// maxBadLines bounds the bad lines that the command prints.
	maxBadLines = 20
)

// each calls visit for each message of the file with the number of its line, and bad for
// each line that is no message of the queue. A message whose line is there twice is
// visited once, because a backup that was interrupted may have it again.
func (r *restoring) each(ctx context.Context, visit func(line int, m *pubsubpb.PubsubMessage) error, bad func(line int, err error)) error {
	f, err := os.Open(r.path)
	if err != nil {
		return command.Usage(err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	seed := maphash.MakeSeed()
	seen := map[uint64]struct{}{}
	in := bufio.NewReaderSize(f, 1<<20)
	for n := 1; ; n++ {
		text, err := backupLine(in)
		if errors.Is(err, io.EOF) && len(text) == 0 {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s, line %d: %w", r.path, n, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n < r.from || len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		m, id, err := parseBackup(text)
		if err != nil {
			bad(n, err)
			continue
		}
		if id != "" {
			key := maphash.String(seed, id)
			if _, twice := seen[key]; twice {
				continue
			}
			seen[key] = struct{}{}
		}
		if err := visit(n, m); err != nil {
			return err
		}
	}
}

// parseBackup returns the message of a line, and the id that it had in the queue.
func parseBackup(text []byte) (*pubsubpb.PubsubMessage, string, error) {
	line, err := ndjson.Parse(text)
	if err != nil {
		return nil, "", err
	}
	id := ""
	if line.DeadLetter != nil {
		id = line.DeadLetter.ID
	}
	m, err := dlq.Restore(line)
	return m, id, err
}

// backupLine returns a line, without its break, in memory of its own.
func backupLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxBackupLine {
			return nil, fmt.Errorf("it has more than %d bytes", maxBackupLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\r\n"), err
		}
	}
}

// check checks every line, and returns the number of messages.
func (r *restoring) check(ctx context.Context) (n int, err error) {
	var errs []error
	bad := 0
	err = r.each(ctx, func(int, *pubsubpb.PubsubMessage) error { n++; return nil }, func(line int, err error) {
		if bad++; bad <= maxBadLines {
			errs = append(errs, fmt.Errorf("%s, line %d: %w", r.path, line, err))
		}
	})
	if bad > maxBadLines {
		errs = append(errs, fmt.Errorf("and %d more lines", bad-maxBadLines))
	}
	if err == nil && bad > 0 {
		err = fmt.Errorf("nothing was restored:\n%w", errors.Join(errs...))
	}
	return n, err
}

// restore publishes the messages.
func (r *restoring) restore(ctx context.Context, n int) error {
	d := r.session
	client, err := topic.NewClient(ctx, d.cfg.DeadLetterTopicName(), app.PubSubOptions(d.cfg)...)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // Everything is confirmed by then.
	audit := d.audit.begin(ctx, "restore", &dlq.Filter{}, "file", r.path, "topic", d.cfg.DeadLetterTopicName(), "messages", n)
	audit.Info("Changing the dead-letter queue")
	bounds := command.PublishBounds(d.opts.RefusalPatience)
	restorer := dlq.Restorer{Publish: func(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
		err := topic.PublishPatiently(ctx, client, messages, bounds, command.SayRetrying(d.console.say))
		if err == nil {
			d.console.advance(len(messages))
		}
		return err
	}}
	d.console.showBar("restoring", float64(n), "messages")
	var lines []int // of the messages that are not confirmed yet
	err = r.each(ctx, func(line int, m *pubsubpb.PubsubMessage) error {
		before := restorer.Done
		err := restorer.Add(ctx, m)
		lines = append(lines[min(len(lines), restorer.Done-before):], line)
		return err
	}, func(int, error) {}) // check has seen them
	if err == nil {
		err = restorer.Flush(ctx)
	}
	d.console.hideBar()
	printErr := r.print(n, restorer.Done)
	audit = audit.With("restored", restorer.Done)
	if err != nil {
		audit.Error("The change of the dead-letter queue has ended early", "error", err)
		return r.ended(ctx, restorer.Done, n, lines, err)
	}
	audit.Info("Changed the dead-letter queue")
	return printErr
}

// ended says how a restore that ended early goes on.
func (r *restoring) ended(ctx context.Context, done, n int, lines []int, err error) error {
	goOn := ""
	if len(lines) > 0 {
		goOn = fmt.Sprintf(". `worker dlq restore %s --from-line %d` goes on", r.path, lines[0])
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %d of %s are restored%s", done, command.Plural(n, "message"), goOn)
	}
	return fmt.Errorf("publish to %s (DLQ_TOPIC): %w%s; %d of %s are restored%s", r.session.cfg.DeadLetterTopicName(), err, publisherHint(err), done, command.Plural(n, "message"), goOn)
}

func (r *restoring) print(n, done int) error {
	if r.session.format != "table" {
		return command.PrintJSON(r.session.env.Stdout, struct {
			Matched  int `json:"matched"`
			Restored int `json:"restored"`
			Failed   int `json:"failed"`
		}{n, done, n - done})
	}
	_, err := fmt.Fprintf(r.session.env.Stdout, "%s restored\n", command.Plural(done, "message"))
	return err
}
