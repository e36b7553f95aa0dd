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

func (root commands) showCommand() *cli.Command {
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
			d, err := root.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			d.queue.looks = true
			look := func() error { return find(ctx, d, id, c.Bool("full")) }
			if d.reveal {
				d.console.makePrivate(d.env.Stdout)
				return d.audit.reading(ctx, "show --reveal", d.filter, look, "id", id)
			}
			return look()
		},
	}
}

// find searches for the message with an id, and shows it.
func find(ctx context.Context, d *session, id string, full bool) error {
	var found *dlq.Stored
	enough := errors.New("found")
	err := d.queue.walk(ctx, d.filter, true, func(w *dlq.Walk) error {
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
		return fmt.Errorf("no dead-lettered message has the id %q, or another process has leased it", id)
	}
	d.audit.touched.add(found.ID)
	owner, runbook := ownerOf(d.cfg.Services, found.Service)
	if d.format == "table" {
		m := shown{message: found, style: stylerFor(d.env, d.env.Stdout), owner: owner, runbook: runbook, reveal: d.reveal, limit: maxShownData}
		if full {
			m.limit = math.MaxInt
		}
		_, err := io.WriteString(d.env.Stdout, m.text())
		return err
	}
	return command.PrintJSON(d.env.Stdout, struct {
		messageJSON
		Field   string `json:"field,omitempty"`
		Advice  string `json:"advice"`
		Owner   string `json:"owner,omitempty"`
		Runbook string `json:"runbook,omitempty"`
	}{summarize(found, d.reveal), dlq.Field(dlq.SafeDetail(found.Detail)), dlq.Advice(found), owner, runbook})
}

// maxShownData bounds the data that show prints without --full, in bytes.
const maxShownData = 4 << 10

// shown is a message as show prints it for a person.
type shown struct {
	message        *dlq.Stored
	style          styler
	owner, runbook string // of the service; may be empty
	reveal         bool   // private data is shown, too
	limit          int    // of the data, in bytes
}

// text returns the whole output.
func (m *shown) text() string {
	var b strings.Builder
	m.facts(&b)
	m.contents(&b)
	fmt.Fprintf(&b, "\n%s\n", m.style.paint(colourHelp, dlq.Advice(m.message)))
	return b.String()
}

// facts writes one row for each fact about the message.
func (m *shown) facts(b *strings.Builder) {
	s, l := m.message, summarize(m.message, m.reveal)
	put := func(name, value string) {
		if value != "" {
			fmt.Fprintf(b, "%s %s\n", text.Pad(m.style.paint(colourDim, name), 14, ' '), value)
		}
	}
	putPlain := func(name, value string) { put(name, terminal.Clean(value)) }
	put("reason", m.style.reason(l.Reason, l.Reason))
	put("detail", m.style.reason(l.Reason, l.Detail))
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
	putPlain("dead-letter id", l.DeadLetterID)
	putPlain("subscription", l.Subscription)
	putPlain("worker", l.WorkerVersion)
	putPlain("services", l.ServicesDigest)
	putPlain("owner", m.owner)
	putPlain("runbook", m.runbook)
	putPlain("ordering key", l.OrderingKey)
}

// contents writes the attributes and the data, with a mark at the faulty field.
func (m *shown) contents(b *strings.Builder) {
	view, field := dlq.ViewOf(m.message, m.reveal), dlq.Field(m.message.Detail)
	fmt.Fprintf(b, "\n%s\n", m.style.paint(colourHead, "Attributes"))
	for _, key := range slices.Sorted(maps.Keys(view.Attributes)) {
		line := fmt.Sprintf("  %s = %s", terminal.Clean(key), terminal.Clean(view.Attributes[key]))
		if field == "attribute "+key {
			line += dlq.Here
		}
		b.WriteString(m.style.here(line) + "\n")
	}
	fmt.Fprintf(b, "\n%s, %d bytes\n", m.style.paint(colourHead, "Data"), len(m.message.Original.Data))
	for line := range strings.SplitSeq(dlq.Point(view.Clip(m.limit), field), "\n") {
		b.WriteString(m.style.here(line) + "\n")
	}
	if view.HiddenBytes > 0 {
		fmt.Fprintf(b, "\n%s hidden, because they are private or may be; --reveal shows them.\n", bytesAre(view.HiddenBytes))
	}
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
