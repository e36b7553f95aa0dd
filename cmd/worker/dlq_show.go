package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

func (env environment) dlqShowCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "one dead letter: what is wrong, where, and how it is mended",
		ArgsUsage: "ID",
		Description: "ID is the event's, or the message id of the original message or of the dead letter.\n" +
			"The queue stays as it is.\n\n" +
			"Example:\n\n" +
			"   worker dlq show 019a0000-0000-7000-8000-000000000001",
		Flags: []cli.Flag{formatFlag("table", "json", "ndjson"), revealFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.NArg() != 1 {
				return usagef("show takes one ID, got %d", c.NArg())
			}
			id := c.Args().First()
			d, err := env.openDesk(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			var found *dlq.Stored
			enough := errors.New("found")
			err = d.walk(ctx, d.filter, true, func(w *dlq.Walk) error {
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
				return fmt.Errorf("no dead letter has the id %q, or somebody else holds it", id)
			case d.format == "table":
				return d.show(found, c.Bool("reveal"))
			}
			l := struct {
				letterJSON
				Field   string `json:"field,omitempty"`
				Mending string `json:"mending"`
				Owner   string `json:"owner,omitempty"`
				Runbook string `json:"runbook,omitempty"`
			}{letterJSON: summarize(found, c.Bool("reveal")), Field: dlq.Field(found.Detail), Mending: dlq.Mending(found)}
			l.Owner, l.Runbook = d.owner(found.Service)
			return printJSON(env.stdout, l)
		},
	}
}

func (d *desk) show(s *dlq.Stored, reveal bool) error {
	var b strings.Builder
	p := d.env.painter(d.env.stdout)
	put := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s %s\n", text.Pad(p.paint(colourDim, name), 14, ' '), value)
		}
	}
	putPlain := func(name, value string) { put(name, dlq.Plain(value)) }
	put("reason", p.reason(string(s.Reason), dlq.Plain(string(s.Reason))))
	put("detail", p.reason(string(s.Reason), dlq.Plain(s.Detail)))
	if s.Broken != nil {
		putPlain("broken", s.Broken.Error())
	}
	putPlain("rejected", shortTime(s.RejectedAt))
	putPlain("attempts", fmt.Sprint(s.Attempts))
	putPlain("replays", fmt.Sprint(s.Replays))
	putPlain("event", s.EventID)
	putPlain("message", fmt.Sprintf("%s, published %s", s.OriginalID, shortTime(s.OriginalPublishTime)))
	putPlain("dead letter", s.ID)
	putPlain("subscription", s.Subscription)
	putPlain("worker", s.WorkerVersion)
	owner, runbook := d.owner(s.Service)
	putPlain("owner", owner)
	putPlain("runbook", runbook)
	putPlain("ordering key", s.Original.OrderingKey)

	field := dlq.Field(s.Detail)
	fmt.Fprintf(&b, "\n%s\n", p.paint(colourHead, "Attributes"))
	for _, key := range slices.Sorted(maps.Keys(s.Original.Attributes)) {
		line := fmt.Sprintf("  %s = %s", dlq.Plain(key), dlq.Plain(s.Original.Attributes[key]))
		if field == "attribute "+key {
			line += dlq.Here
		}
		b.WriteString(p.here(line) + "\n")
	}
	fmt.Fprintf(&b, "\n%s, %d bytes\n", p.paint(colourHead, "Data"), len(s.Original.Data))
	for line := range strings.SplitSeq(dlq.Point(dlq.Show(s.Original.Data, reveal), field), "\n") {
		b.WriteString(p.here(line) + "\n")
	}
	fmt.Fprintf(&b, "\n%s\n", p.paint(colourHelp, dlq.Mending(s)))
	_, err := io.WriteString(d.env.stdout, b.String())
	return err
}

// here paints a line that is pointed at.
func (p painter) here(line string) string {
	if strings.HasSuffix(line, dlq.Here) {
		return p.paint(colourBad, line)
	}
	return line
}
