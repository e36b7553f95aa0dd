package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/receipts"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
	"github.com/sourcegraph/telemetry-relay/internal/trace"
)

// NewTrace returns the command `worker trace`.
func NewTrace(e command.Env, opts Options) *cli.Command {
	root := commands{e, opts.withDefaults()}
	return &cli.Command{
		Name:      "trace",
		Usage:     "where an event is, as far as that can be proven",
		ArgsUsage: "EVENT-ID",
		Description: "Looks for an event in the dead-letter queue, in the receipts of replays (where\n" +
			"RECEIPTS_SUBSCRIPTION is set) and in your audit file, and says what it could not prove. EVENT-ID\n" +
			"may also be the message id of the original message or of the dead-lettered message. It changes\n" +
			"nothing: messages and receipts stay where they are.\n\n" +
			"Examples:\n\n" +
			"   worker trace 019a0000-0000-7000-8000-000000000001\n" +
			"   worker trace --output json 019a0000-0000-7000-8000-000000000001",
		Flags: []cli.Flag{
			command.OutputFlag(),
			&cli.StringSliceFlag{Name: "plan", Usage: "look into the journal of the plan in `FILE`, too; may be repeated. Plans in your audit file are looked at anyway"},
			&cli.StringFlag{Name: "audit-file", Usage: "read the audit records in `FILE` (default: telemetry-relay/audit.ndjson in the user's state folder)"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.NArg() != 1 {
				return command.Usagef("trace takes one EVENT-ID, got %d", c.NArg())
			}
			d, err := root.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			d.queue.looks = true
			t := tracer{session: d, id: c.Args().First(), plans: c.StringSlice("plan")}
			facts, err := t.facts(ctx)
			if err != nil {
				return err
			}
			answer := trace.Conclude(facts)
			if d.format == "json" {
				return command.PrintJSON(d.env.Stdout, struct {
					ID string `json:"id"`
					trace.Answer
				}{terminal.Clean(t.id), answer})
			}
			return t.print(answer)
		},
	}
}

// tracer gathers what is known about one event.
type tracer struct {
	session *session
	id      string
	// origins are ids of the messages that were first published with the event.
	origins []string
	// plans are files of plans whose journals may know the event.
	plans []string
}

func (t *tracer) facts(ctx context.Context) (trace.Facts, error) {
	f := trace.Facts{Now: time.Now(), Created: trace.CreatedAt(t.id)}
	if err := t.queue(ctx, &f); err != nil {
		return f, err
	}
	if err := t.receipts(ctx, &f); err != nil {
		return f, err
	}
	if err := t.journals(&f); err != nil {
		return f, err
	}
	t.audit(&f)
	if len(f.Rejections)+len(f.Receipts)+len(f.Actions) == 0 {
		t.waiting(ctx, &f)
	}
	return f, nil
}

// waiting asks for how long the oldest event has waited for the worker.
func (t *tracer) waiting(ctx context.Context, f *trace.Facts) {
	worker := t.session.cfg.SubscriptionName()
	age, err := t.session.backlog.oldestAge(ctx, worker)
	if err != nil {
		f.OldestDoubt = fmt.Sprintf("the age of the oldest event in %s is not known: %s", worker, terminal.Clean(err.Error()))
		return
	}
	f.Oldest = &age
}

// maxPlans bounds how many plans of the audit file are looked at, the latest first.
const maxPlans = 50

// journals looks into the journals of plans, which have the receipts that dlq status has
// taken. A plan of the audit file that cannot be read was moved or deleted.
func (t *tracer) journals(f *trace.Facts) error {
	for _, path := range t.plans {
		if err := t.journal(f, path); err != nil {
			return command.Usage(fmt.Errorf("%s: %w", path, err))
		}
	}
	applied, _ := trace.PlanFiles(t.session.audit.path()) // audit reports the error
	missing := 0
	for _, path := range applied[:min(len(applied), maxPlans)] {
		if !slices.Contains(t.plans, path) && t.journal(f, path) != nil {
			missing++
		}
	}
	if missing > 0 {
		t.session.console.say("worker: %s that you have applied cannot be read, and may know more", command.Plural(missing, "plan"))
	}
	return nil
}

func (t *tracer) journal(f *trace.Facts, path string) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	p, err := plan.Parse(text, compiles)
	if err != nil {
		return err
	}
	found, err := plan.Find(plan.JournalOf(path), p, append([]string{t.id}, t.origins...))
	if err != nil || found == nil {
		return err
	}
	if !found.Purged.IsZero() {
		f.Actions = append(f.Actions, trace.Action{At: found.Purged, By: found.By, What: "dlq apply (purge)"})
	}
	if !found.Published.IsZero() {
		f.Actions = append(f.Actions, trace.Action{At: found.Published, By: found.By, What: "dlq apply", ReplayID: dlq.Word(p.ID)})
	}
	for _, r := range found.Receipts {
		f.Receipts = append(f.Receipts, receipts.Receipt{
			ReplayID: dlq.Word(p.ID), OriginMessageID: r.Origin, EventID: r.Event, Verdict: receipts.Verdict(r.Verdict), Reason: dlq.Word(r.Reason), At: r.At,
		})
	}
	return nil
}

// queue looks for the event in the dead-letter queue.
func (t *tracer) queue(ctx context.Context, f *trace.Facts) error {
	err := t.session.queue.walk(ctx, t.session.filter, true, func(w *dlq.Walk) error {
		return w.Each(ctx, func(s *dlq.Stored) error {
			if !slices.Contains([]string{s.EventID, s.OriginalID, s.ID}, t.id) {
				return nil
			}
			origin, _ := event.Message{ID: s.OriginalID, PublishTime: s.OriginalPublishTime, Attributes: s.Original.Attributes}.Origin()
			t.origins = append(t.origins, origin)
			f.Rejections = append(f.Rejections, rejectionOf(s))
			return nil
		}, nil)
	})
	if err == nil && !t.session.queue.complete {
		f.QueueDoubt = "the queue may have more messages than were read"
	}
	// The latest rejection says where the event is.
	slices.SortFunc(f.Rejections, func(a, b trace.Rejection) int { return b.RejectedAt.Compare(a.RejectedAt) })
	return err
}

// rejectionOf describes a message in the queue for a trace.
func rejectionOf(s *dlq.Stored) trace.Rejection {
	fault := dlq.FaultOf(s)
	l := trace.Rejection{
		Fault: fault.ID(), Reason: fault.Reason, Service: fault.Service, Detail: detailOf(s), RejectedAt: s.RejectedAt, FirstRejectedAt: s.FirstRejectedAt,
		Release: dlq.Word(s.Original.Attributes[event.AttrServiceVersion]), Replays: s.Replays, DeadLetterID: s.ID,
	}
	if s.Replays > 0 {
		l.ReplayID = dlq.Word(s.Original.Attributes[event.AttrReplayID])
	}
	return l
}

// receipts looks for receipts of the event. It acknowledges none.
func (t *tracer) receipts(ctx context.Context, f *trace.Facts) error {
	name := t.session.receipts.name
	if !t.session.receipts.there() {
		f.ReceiptsDoubt = "RECEIPTS_SUBSCRIPTION is not set, so that no receipt was read"
		return nil
	}
	f.ReceiptsDoubt = "the worker's receipts are best effort, and dlq status moves those of a plan into its journal, which was only read if --plan or the audit file names the plan"
	err := t.session.receipts.each(ctx, func(_ *dlq.Queue, messages []*pubsubpb.PubsubMessage) error {
		for _, m := range messages {
			r, ok := receipts.Read(m.GetAttributes())
			if ok && (r.EventID == t.id || r.OriginMessageID == t.id || slices.Contains(t.origins, r.OriginMessageID)) {
				r.ReplayID = dlq.Word(r.ReplayID)
				f.Receipts = append(f.Receipts, r)
			}
		}
		return nil
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return errors.New("interrupted; every receipt is back")
	case status.Code(err) == codes.NotFound, status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.Unauthenticated:
		// The queue and the audit file have answers of their own.
		f.ReceiptsDoubt = fmt.Sprintf("the receipts in %s cannot be read (%v)", name, status.Code(err))
		return nil
	}
	return err
}

// audit looks for the commands that have replayed or removed the event.
func (t *tracer) audit(f *trace.Facts) {
	path := t.session.audit.path()
	if path == "" {
		f.ActionsDoubt = "there is no audit file, because you have no home folder"
		return
	}
	f.ActionsDoubt = fmt.Sprintf("%s has only what you did on this machine, and a command that changed many messages does not name each", terminal.Clean(path))
	about := trace.Selector{IDs: append([]string{t.id}, t.origins...)}
	for _, l := range f.Rejections {
		about.IDs = append(about.IDs, l.DeadLetterID)
		about.Replays = append(about.Replays, l.ReplayID)
	}
	for _, r := range f.Receipts {
		about.IDs = append(about.IDs, r.OriginMessageID)
		about.Replays = append(about.Replays, r.ReplayID)
	}
	actions, err := trace.ReadAudit(path, about)
	if err != nil {
		f.ActionsDoubt = "the audit file cannot be read: " + terminal.Clean(err.Error())
	}
	f.Actions = append(f.Actions, actions...)
}

func (t *tracer) print(a trace.Answer) error {
	var b strings.Builder
	p := stylerFor(t.session.env, t.session.env.Stdout)
	put := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %s %s\n", text.Pad(p.paint(colourDim, name), 14, ' '), terminal.Clean(value))
		}
	}
	fmt.Fprintf(&b, "%s\n", terminal.Clean(a.Summary))
	for _, l := range a.Rejections {
		fmt.Fprintf(&b, "\n%s\n", p.paint(colourHead, "In the queue"))
		put("reason", l.Reason)
		put("fault", l.Fault)
		put("detail", l.Detail)
		put("rejected", shortTime(l.RejectedAt))
		if !l.FirstRejectedAt.Equal(l.RejectedAt) {
			put("first", shortTime(l.FirstRejectedAt)+", before it was replayed")
		}
		put("release", l.Release)
		put("dead-letter id", l.DeadLetterID)
		put("next", "worker dlq show "+l.DeadLetterID)
	}
	for _, r := range a.Replays {
		fmt.Fprintf(&b, "\n%s\n", p.paint(colourHead, "Replayed"))
		put("replay", r.ID)
		if r.Action != nil {
			put("by", r.Action.By+" with "+r.Action.What)
			put("at", shortTime(r.Action.At))
		}
		verdict := string(r.Verdict)
		if r.Reason != "" {
			verdict += " (" + r.Reason + ")"
		}
		if !r.At.IsZero() {
			verdict += ", " + shortTime(r.At)
		}
		put("verdict", verdict)
	}
	for _, o := range a.Others {
		fmt.Fprintf(&b, "\n%s\n", p.paint(colourHead, "Changed"))
		put("command", o.What)
		put("by", o.By)
		put("at", shortTime(o.At))
		put("filter", o.Filter)
	}
	if len(a.Unproven) > 0 {
		fmt.Fprintf(&b, "\n%s\n", p.paint(colourHead, "Not proven"))
		for _, sentence := range a.Unproven {
			fmt.Fprintf(&b, "  %s\n", terminal.Clean(sentence))
		}
	}
	_, err := io.WriteString(t.session.env.Stdout, b.String())
	return err
}
