package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// changeFlags are those of every command that can change the queue.
func changeFlags(more ...cli.Flag) []cli.Flag {
	flags := append(filterFlags(), formatFlag("table", "json", "ndjson"), command.YesFlag())
	return append(flags, more...)
}

// change is what a command does to the queue.
type change struct {
	action string // replay
	done   string // replayed
	where  string // the end of the question: to the topic
	quiet  bool   // nothing is changed, so nobody is asked
	dryRun bool
	// stderr says that stdout is taken: the result goes to stderr.
	stderr bool
	// audit is what the audit lines say beyond what all of them say.
	audit []any
}

// counts are what a change did.
type counts struct {
	matched, done, failed int
	// spared were replayed too often before; they are neither done nor failed.
	spared int
	// left is what is in the queue afterwards.
	left int
	// canaries went ahead, and again is how many of them came back.
	canaries, again int
}

// alter is the way of every command that can change the queue: it connects,
// asks, and leaves the change itself to make.
func (env commands) alter(ctx context.Context, c *cli.Command, plan func(*desk) change, work func(*desk) error) error {
	d, err := env.openDesk(ctx, c)
	if err != nil {
		return err
	}
	defer d.close()
	d.change = plan(d)
	if !d.change.quiet {
		if !c.Bool("yes") && !env.StdinIsTerminal() {
			return command.Usagef("dlq %s changes the queue: expected --yes, as there is no terminal to ask on", c.Name)
		}
		if ok, err := d.agree(ctx, c.Bool("yes")); !ok {
			return err
		}
	}
	return work(d)
}

// agree asks, unless that is settled, and reports whether to go on.
func (d *desk) agree(ctx context.Context, yes bool) (bool, error) {
	if yes {
		return true, nil
	}
	n, services, err := d.count(ctx)
	if err != nil {
		return false, err
	}
	if n.matched == 0 {
		return false, d.tell(n)
	}
	agreed, err := d.env.Ask(ctx, fmt.Sprintf("%s %s of %s events of %s%s? They are: %s.", capital(d.change.action),
		humanize.Comma(int64(n.matched)), d.atLeast(d.inQueue), command.Plural(services, "service"), d.change.where, d.filter))
	if err != nil {
		return false, errors.New("interrupted; nothing was changed, and all letters are in the queue")
	}
	return agreed, nil
}

// count counts what is chosen, and of how many services.
func (d *desk) count(ctx context.Context) (n counts, services int, err error) {
	seen := map[string]struct{}{}
	err = d.pass(ctx, &n, func(w *dlq.Walk) error {
		return w.Each(ctx, func(s *dlq.Stored) error {
			seen[s.Service] = struct{}{}
			return nil
		}, nil)
	})
	d.expected = n.matched
	return n, len(seen), err
}

// run makes the change by work, which counts what it does, and tells it.
func (d *desk) run(ctx context.Context, work func(n *counts) error) error {
	var audit *slog.Logger
	if !d.change.quiet {
		audit = d.audit(ctx, d.change.action, d.change.audit...)
		audit.Info("Changing the dead-letter queue")
	}
	var n counts
	err := work(&n)
	if d.change.dryRun {
		n.done = 0
	}
	if !d.change.quiet {
		log := audit.With("matched", n.matched, d.change.done, n.done, "failed", n.failed, "over_max_replays", n.spared, "left", n.left).With(d.touched.attributes()...)
		if !d.wholly {
			log = log.With("left_at_least", true)
		}
		if err != nil {
			log.Error("The change of the dead-letter queue has ended early", "error", err)
		} else {
			log.Info("Changed the dead-letter queue")
		}
	}
	if err != nil && !d.wholly {
		d.say("worker: the queue was not read to its end, so there may be more left than was counted")
	}
	printErr := d.tell(n)
	switch {
	case err != nil:
		return err
	case printErr != nil:
		return printErr
	case n.failed > 0 && !d.change.dryRun:
		return command.Reported(fmt.Errorf("%d letters failed", n.failed))
	}
	return nil
}

// pass goes through the queue once for a change. It chooses only from what was
// there when the first pass began.
func (d *desk) pass(ctx context.Context, n *counts, act func(w *dlq.Walk) error) error {
	return d.walk(ctx, d.filter, false, func(w *dlq.Walk) error {
		w.FromStart = true
		err := act(w)
		n.matched, n.left = w.Matched, w.Queue.Held()
		if w.Late > 0 {
			d.say("worker: %s that came after the start: left in the queue", command.Plural(w.Late, "letter"))
		}
		return err
	})
}

// tell prints what was done.
func (d *desk) tell(n counts) error {
	out := d.env.Stdout
	if d.change.stderr {
		out = d.env.Stderr
	}
	if d.format != "table" {
		more := ""
		if n.spared > 0 {
			more += fmt.Sprintf(`,"over_max_replays":%d`, n.spared)
		}
		if n.canaries > 0 {
			more += fmt.Sprintf(`,"canaries":%d,"canaries_seen_again":%d`, n.canaries, n.again)
		}
		if !d.wholly {
			more += `,"left_at_least":true`
		}
		_, err := fmt.Fprintf(out, "{\"matched\":%d,%q:%d,\"failed\":%d,\"left\":%d%s}\n", n.matched, d.change.done, n.done, n.failed, n.left, more)
		return err
	}
	spared := ""
	if n.spared > 0 {
		spared = fmt.Sprintf(", %d not touched because they were replayed too often before (--max-replays)", n.spared)
	}
	least := ""
	if !d.wholly {
		least = "at least "
	}
	_, err := fmt.Fprintf(out, "%d matched, %d %s, %d failed%s; %s%d are left in the queue\n", n.matched, n.done, d.change.done, n.failed, spared, least, n.left)
	return err
}

// report tells why a letter is left, as long as there are not too many.
func (d *desk) report() func(*dlq.Stored, error) {
	const most = 20
	told := 0
	return func(s *dlq.Stored, why error) {
		switch told++; {
		case told <= most:
			d.say("worker: %s is left: %s", nameOf(s), dlq.SafeDetail(why.Error()))
		case told == most+1:
			d.say("worker: more are left; they are only counted from here on")
		}
	}
}

// nameOf is what a letter's event is called on a terminal.
func nameOf(s *dlq.Stored) string {
	if id := dlq.SafeID(s.EventID); id != "" {
		return id
	}
	return terminal.Clean("message " + s.OriginalID)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
