package dlqcmd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

func (root commands) listCommand() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "the dead-lettered messages, one a line",
		Description: "Lists messages in the order in which Pub/Sub gives them. The queue stays as it is.\n\n" +
			"Examples:\n\n" +
			"   worker dlq list --limit 20\n" +
			"   worker dlq list --reason invalid_event --output ndjson",
		DisableSliceFlagSeparator: true,
		Flags:                     append(filterFlags(), formatFlag("table", "json", "ndjson"), revealFlag(), auditFlag()),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			d, err := root.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			d.queue.looks = true
			d.console.streams = true
			stdout := d.env.Stdout
			if d.format != "table" {
				stdout = terminal.JSON(stdout)
			}
			out := bufio.NewWriter(stdout)
			l := lister{out: out, style: stylerFor(d.env, d.env.Stdout), format: d.format, reveal: d.reveal}
			list := func() error {
				return d.queue.walk(ctx, d.filter, true, func(w *dlq.Walk) error {
					visit := func(s *dlq.Stored) error {
						d.audit.touched.add(s.ID)
						return l.message(s)
					}
					if err := w.Each(ctx, visit, out.Flush); err != nil {
						return err
					}
					l.end()
					return out.Flush()
				})
			}
			if d.reveal {
				d.console.makePrivate(d.env.Stdout)
				return d.audit.reading(ctx, "list --reveal", d.filter, list)
			}
			return list()
		},
	}
}

// lister prints messages as they come.
type lister struct {
	style  styler
	out    io.Writer
	format string
	reveal bool
	count  int
}

func (l *lister) message(s *dlq.Stored) error {
	l.count++
	if l.format == "table" {
		if l.count == 1 {
			head := []string{"REJECTED", "REASON", "SERVICE", "FEATURE/ACTION", "ID", "DETAIL"}
			for i := range head {
				head[i] = l.style.paint(colourHead, head[i])
			}
			if err := l.row(head...); err != nil {
				return err
			}
		}
		j := summarize(s, l.reveal)
		id := j.EventID
		if id == "" {
			id = j.MessageID
		}
		return l.row(l.style.paint(colourDim, shortTime(s.RejectedAt)), l.style.reason(j.Reason, cell(j.Reason)), cell(j.Service),
			eventName(j.Feature, j.Action), cell(id), cell(detailOf(s)))
	}
	separator := ""
	if l.format == "json" {
		if separator = ","; l.count == 1 {
			separator = "["
		}
	}
	line, err := json.Marshal(summarize(s, l.reveal))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(l.out, "%s%s\n", separator, line)
	return err
}

// listWidths are the widths of all columns but the last. They are fixed, because the
// list is printed while the queue is read.
var listWidths = []int{20, 20, 18, 32, 36}

// row prints a row of the table. Colours do not count as width.
func (l *lister) row(cells ...string) error {
	for i, width := range listWidths {
		cells[i] = text.Pad(cells[i], width, ' ')
	}
	line := strings.Join(cells, "  ")
	_, err := fmt.Fprintln(l.out, line)
	return err
}

func (l *lister) end() {
	switch {
	case l.format == "json" && l.count == 0:
		fmt.Fprintln(l.out, "[]")
	case l.format == "json":
		fmt.Fprintln(l.out, "]")
	case l.format == "table" && l.count == 0:
		fmt.Fprintln(l.out, "no dead-lettered messages")
	}
}

// detailOf returns why the message cannot be restored, or else the detail.
func detailOf(s *dlq.Stored) string {
	if s.Broken != nil {
		return terminal.Clean(s.Broken.Error())
	}
	return dlq.SafeDetail(s.Detail)
}

// messageJSON is the form of a message for programs.
type messageJSON struct {
	EventID             string            `json:"event_id,omitempty"`
	MessageID           string            `json:"message_id"`
	DeadLetterID        string            `json:"dead_letter_id"`
	Fault               string            `json:"fault"`
	Reason              string            `json:"reason"`
	Detail              string            `json:"detail"`
	RejectedAt          time.Time         `json:"rejected_at"`
	FirstRejectedAt     time.Time         `json:"first_rejected_at"`
	OriginalPublishTime time.Time         `json:"publish_time"`
	Attempts            int               `json:"attempts"`
	Replays             int               `json:"replays"`
	Service             string            `json:"service"`
	Environment         string            `json:"environment"`
	Feature             string            `json:"feature,omitempty"`
	Action              string            `json:"action,omitempty"`
	Subscription        string            `json:"subscription,omitempty"`
	WorkerVersion       string            `json:"worker_version,omitempty"`
	ServicesDigest      string            `json:"services_digest,omitempty"`
	Broken              string            `json:"broken,omitempty"`
	OrderingKey         string            `json:"ordering_key,omitempty"`
	Attributes          map[string]string `json:"attributes"`
	// Data is an object, or a text if the data is not an object.
	Data json.RawMessage `json:"data"`
	// HiddenBytes counts the hidden bytes of data, attributes and ordering key.
	HiddenBytes int `json:"hidden_bytes"`
}

func summarize(s *dlq.Stored, reveal bool) messageJSON {
	view := dlq.ViewOf(s, reveal)
	l := messageJSON{
		EventID: s.EventID, MessageID: s.OriginalID, DeadLetterID: s.ID,
		Fault: dlq.FaultOf(s).ID(), Reason: string(s.Reason), Detail: s.Detail, RejectedAt: s.RejectedAt, FirstRejectedAt: s.FirstRejectedAt, ServicesDigest: s.ServicesDigest, OriginalPublishTime: s.OriginalPublishTime,
		Attempts: s.Attempts, Replays: s.Replays, Service: s.Service, Environment: s.Environment,
		Feature: s.Feature, Action: s.Action, Subscription: s.Subscription, WorkerVersion: s.WorkerVersion,
		OrderingKey: s.Original.OrderingKey, Attributes: view.Attributes, Data: view.JSON(), HiddenBytes: view.HiddenBytes,
	}
	if s.Broken != nil {
		l.Broken = s.Broken.Error()
	}
	if reveal {
		return l
	}
	l.EventID, l.Reason, l.Detail = dlq.SafeID(s.EventID), dlq.Word(l.Reason), dlq.SafeDetail(s.Detail)
	l.Service, l.Environment = dlq.Word(s.Service), dlq.Word(s.Environment)
	l.Feature, l.Action = dlq.SafeName(s)
	l.WorkerVersion = dlq.Word(s.WorkerVersion)
	if l.OrderingKey != "" {
		l.OrderingKey = dlq.Hidden
	}
	return l
}
