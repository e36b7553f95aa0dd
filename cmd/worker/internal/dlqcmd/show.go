package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

func (env commands) showcommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "one dead-lettered message: what is wrong, where, and how to fix it",
		ArgsUsage: "ID",
		Description: "ID is the event's, or the message id of the original message or of the dead-lettered message.\n" +
			"The queue stays as it is.\n\n" +
			"Example:\n\n" +
			"   worker dlq show 019a0000-0000-7000-8000-000000000001",
		Flags: []cli.Flag{formatFlag("table", "json", "ndjson"), revealFlag(), auditFlag(),
			&cli.BoolFlag{Name: "full", Usage: "show all the data (64 KiB of data that is no object); without it the output ends after 4 KiB"}},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.NArg() != 1 {
				return command.Usagef("show takes one ID, got %d", c.NArg())
			}
			id := c.Args().First()
			d, err := env.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			d.looks = true
			find := func() error { return d.find(ctx, id, c.Bool("full")) }
			if d.reveal {
				d.makePrivate(env.Stdout)
				return d.reading(ctx, "show --reveal", find, "id", id)
			}
			return find()
		},
	}
}

// find searches for the message with an id, and shows it.
func (d *session) find(ctx context.Context, id string, full bool) error {
	var found *dlq.Stored
	enough := errors.New("found")
	err := d.walk(ctx, d.filter, true, func(w *dlq.Walk) error {
		err := w.Each(ctx, func(s *dlq.Stored) error {
			if s.EventID != id && s.OriginalID != id && s.ID != id {
				return nil
			}
			found = s
			return enough
		}, nil)
		if errors.Is(err, enough) {
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case found == nil:
		return fmt.Errorf("no dead-lettered message has the id %q, or somebody else holds it", id)
	}
	d.touched.add(found.ID)
	if d.format == "table" {
		return d.show(found, full)
	}
	l := struct {
		messageJSON
		Field   string `json:"field,omitempty"`
		Advice  string `json:"advice"`
		Owner   string `json:"owner,omitempty"`
		Runbook string `json:"runbook,omitempty"`
	}{messageJSON: summarize(found, d.reveal), Field: dlq.Field(dlq.SafeDetail(found.Detail)), Advice: dlq.Advice(found)}
	l.Owner, l.Runbook = d.owner(found.Service)
	return command.PrintJSON(d.env.Stdout, l)
}

// maxShownData is how much of the data show prints, in bytes.
const maxShownData = 4 << 10

func (d *session) show(s *dlq.Stored, full bool) error {
	limit := maxShownData
	if full {
		limit = math.MaxInt
	}
	l, view := summarize(s, d.reveal), dlq.ViewOf(s, d.reveal)
	var b strings.Builder
	p := d.env.styler(d.env.Stdout)
	put := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s %s\n", text.Pad(p.paint(colourDim, name), 14, ' '), value)
		}
	}
	putPlain := func(name, value string) { put(name, terminal.Clean(value)) }
	put("reason", p.reason(l.Reason, l.Reason))
	put("detail", p.reason(l.Reason, l.Detail))
	putPlain("broken", l.Broken)
	putPlain("fault", l.Fault)
	putPlain("rejected", shortTime(s.RejectedAt))
	if !s.FirstRejectedAt.Equal(s.RejectedAt) {
		putPlain("first", shortTime(s.FirstRejectedAt)+", before it was replayed")
	}
	putPlain("attempts", fmt.Sprint(s.Attempts))
	putPlain("replays", fmt.Sprint(s.Replays))
	putPlain("event", l.EventID)
	putPlain("message", fmt.Sprintf("%s, published %s", l.MessageID, shortTime(s.OriginalPublishTime)))
	putPlain("dead letter", l.DeadLetterID)
	putPlain("subscription", l.Subscription)
	putPlain("worker", l.WorkerVersion)
	putPlain("services", l.ServicesDigest)
	owner, runbook := d.owner(s.Service)
	putPlain("owner", owner)
	putPlain("runbook", runbook)
	putPlain("ordering key", l.OrderingKey)

	field := dlq.Field(s.Detail)
	fmt.Fprintf(&b, "\n%s\n", p.paint(colourHead, "Attributes"))
	for _, key := range slices.Sorted(maps.Keys(view.Attributes)) {
		line := fmt.Sprintf("  %s = %s", terminal.Clean(key), terminal.Clean(view.Attributes[key]))
		if field == "attribute "+key {
			line += dlq.Here
		}
		b.WriteString(p.here(line) + "\n")
	}
	fmt.Fprintf(&b, "\n%s, %d bytes\n", p.paint(colourHead, "Data"), len(s.Original.Data))
	for line := range strings.SplitSeq(dlq.Point(view.Clip(limit), field), "\n") {
		b.WriteString(p.here(line) + "\n")
	}
	if view.HiddenBytes > 0 {
		fmt.Fprintf(&b, "\n%s hidden, because they are private or may be; --reveal shows them.\n", bytesAre(view.HiddenBytes))
	}
	fmt.Fprintf(&b, "\n%s\n", p.paint(colourHelp, dlq.Advice(s)))
	_, err := io.WriteString(d.env.Stdout, b.String())
	return err
}

func bytesAre(n int) string {
	if n == 1 {
		return "1 byte is"
	}
	return command.Comma(n) + " bytes are"
}

// here highlights the row of the faulty field.
func (p styler) here(line string) string {
	if strings.HasSuffix(line, dlq.Here) {
		return p.paint(colourBad, line)
	}
	return line
}
