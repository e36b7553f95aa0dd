package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

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
	put := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-14s %s\n", name, dlq.Plain(value))
		}
	}
	put("reason", string(s.Reason))
	put("detail", s.Detail)
	if s.Broken != nil {
		put("broken", s.Broken.Error())
	}
	put("rejected", shortTime(s.RejectedAt))
	put("attempts", fmt.Sprint(s.Attempts))
	put("replays", fmt.Sprint(s.Replays))
	put("event", s.EventID)
	put("message", fmt.Sprintf("%s, published %s", s.OriginalID, shortTime(s.OriginalPublishTime)))
	put("dead letter", s.ID)
	put("subscription", s.Subscription)
	put("worker", s.WorkerVersion)
	owner, runbook := d.owner(s.Service)
	put("owner", owner)
	put("runbook", runbook)
	put("ordering key", s.Original.OrderingKey)

	field := dlq.Field(s.Detail)
	b.WriteString("\nAttributes\n")
	for _, key := range slices.Sorted(maps.Keys(s.Original.Attributes)) {
		fmt.Fprintf(&b, "  %s = %s", dlq.Plain(key), dlq.Plain(s.Original.Attributes[key]))
		if field == "attribute "+key {
			b.WriteString("   <── here")
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "\nData, %d bytes\n", len(s.Original.Data))
	b.WriteString(dlq.Point(dlq.Show(s.Original.Data, reveal), field))
	fmt.Fprintf(&b, "\n\n%s\n", dlq.Mending(s))
	_, err := io.WriteString(d.env.stdout, b.String())
	return err
}
