package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// changeFlags are the flags of every command that can change the queue.
func changeFlags(more ...cli.Flag) []cli.Flag {
	flags := append(filterFlags(), formatFlag("table", "json", "ndjson"), command.YesFlag(), auditFlag())
	return append(flags, more...)
}

// change describes the change that a command makes.
type change struct {
	action string // replay
	done   string // replayed
	where  string // the end of the question: to the topic
	quiet  bool   // nothing is changed: no question and no audit
	dryRun bool
	// stderr sends the result to stderr, because stdout has the messages.
	stderr bool
	// audit are the attributes of the audit records of this command.
	audit []any
}

// counts are the results of a change.
type counts struct {
	matched, done, failed int
	// skipped were replayed too often before. They are neither done nor failed.
	skipped int
	// left is the number of messages in the queue afterwards.
	left int
	// canaries were replayed first. again is how many of them were rejected again.
	canaries, again int
}

// changeQueue runs a command that can change the queue: it connects, asks, and calls
// work.
func (root commands) changeQueue(ctx context.Context, c *cli.Command, plan func(*session) change, work func(*session) error) error {
	d, err := root.open(ctx, c)
	if err != nil {
		return err
	}
	defer d.close()
	d.change = plan(d)
	d.queue.looks = d.change.quiet
	if !d.change.quiet {
		if err := canAsk(root.env, c.Name, c.Bool("yes")); err != nil {
			return err
		}
		if ok, err := d.confirm(ctx, c.Bool("yes")); !ok {
			return err
		}
	}
	return work(d)
}

// canAsk refuses a command that would have to ask and has no terminal.
func canAsk(env command.Env, name string, yes bool) error {
	if yes || env.StdinIsTerminal() {
		return nil
	}
	return command.Usagef("dlq %s changes the queue: expected --yes, as there is no terminal to ask on", name)
}

// agreed asks a question, unless --yes has answered it, and reports whether to go on.
func agreed(ctx context.Context, env command.Env, name string, yes bool, question string) (bool, error) {
	if err := canAsk(env, name, yes); err != nil || yes {
		return yes, err
	}
	goOn, err := env.Ask(ctx, question)
	if err != nil {
		return false, errors.New("interrupted; nothing was changed")
	}
	return goOn, nil
}

// confirm asks, unless --yes has answered, and reports whether to go on.
func (d *session) confirm(ctx context.Context, yes bool) (bool, error) {
	if yes {
		return true, nil
	}
	n, services, err := d.count(ctx, d.filter)
	if err != nil {
		return false, err
	}
	if n.matched == 0 {
		return false, errors.Join(d.printCounts(n), d.nothing())
	}
	goOn, err := d.env.Ask(ctx, fmt.Sprintf("%s %s of %s events of %s%s? They are: %s.", capital(d.change.action),
		command.Comma(n.matched), d.queue.atLeast(d.queue.inQueue), command.Plural(services, "service"), d.change.where, d.filter))
	if err != nil {
		return false, errors.New("interrupted; nothing was changed, and all messages are in the queue")
	}
	return goOn, nil
}

// run makes the change by calling work, audits it, and prints the counts.
func (d *session) run(ctx context.Context, work func(n *counts) error) error {
	var audit *slog.Logger
	if !d.change.quiet {
		audit = d.audit.begin(ctx, d.change.action, d.filter, d.change.audit...)
		audit.Info("Changing the dead-letter queue")
	}
	d.skipped = skipReport{say: d.console.say}
	var n counts
	err := work(&n)
	if d.change.dryRun {
		n.done = 0
	}
	if !d.change.quiet {
		log := audit.With("matched", n.matched, d.change.done, n.done, "failed", n.failed, "over_max_replays", n.skipped, "left", n.left).With(d.audit.touched.attributes()...)
		if !d.queue.complete {
			log = log.With("left_at_least", true)
		}
		if err != nil {
			log.Error("The change of the dead-letter queue has ended early", "error", err)
		} else {
			log.Info("Changed the dead-letter queue")
		}
	}
	if err != nil && !d.queue.complete {
		d.console.say("worker: the queue was not read to its end, so there may be more left than was counted")
	}
	d.skipped.end()
	printErr := d.printCounts(n)
	switch {
	case err != nil:
		return err
	case printErr != nil:
		return printErr
	case n.matched == 0 && !d.change.quiet:
		return d.nothing()
	case n.failed > 0 && !d.change.dryRun:
		return command.Reported(fmt.Errorf("%d messages failed", n.failed))
	}
	return nil
}

// nothing is the end of a change that selects no message: a typing error must not
// look like success.
func (d *session) nothing() error {
	d.console.say("worker: no message matches %s: nothing was changed", d.filter)
	return command.Reported(errors.New("no message matches"))
}

// printCounts prints the result.
func (d *session) printCounts(n counts) error {
	out := d.env.Stdout
	if d.change.stderr {
		out = d.env.Stderr
	}
	if d.format != "table" {
		more := ""
		if n.skipped > 0 {
			more += fmt.Sprintf(`,"over_max_replays":%d`, n.skipped)
		}
		if n.canaries > 0 {
			more += fmt.Sprintf(`,"canaries":%d,"canaries_seen_again":%d`, n.canaries, n.again)
		}
		if !d.queue.complete {
			more += `,"left_at_least":true`
		}
		_, err := fmt.Fprintf(out, "{\"matched\":%d,%q:%d,\"failed\":%d,\"left\":%d%s}\n", n.matched, d.change.done, n.done, n.failed, n.left, more)
		return err
	}
	skipped := ""
	if n.skipped > 0 {
		skipped = fmt.Sprintf(", %d not touched because they were replayed too often before (--max-replays)", n.skipped)
	}
	least := ""
	if !d.queue.complete {
		least = "at least "
	}
	_, err := fmt.Fprintf(out, "%d matched, %d %s, %d failed%s; %s%d are left in the queue\n", n.matched, n.done, d.change.done, n.failed, skipped, least, n.left)
	return err
}

// nameOf returns the event id, or the message id, for a terminal.
func nameOf(s *dlq.Stored) string {
	if id := dlq.SafeID(s.EventID); id != "" {
		return id
	}
	return terminal.Clean("message " + s.OriginalID)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
