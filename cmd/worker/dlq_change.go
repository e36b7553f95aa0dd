package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/logging"
)

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Usage: "do it without asking; needed where nobody can be asked"}
}

// change is what a command does to the queue.
type change struct {
	action string // replay
	done   string // replayed
	plan   string // what will be done with the letters, for the question
	quiet  bool   // nothing is changed, so nobody is asked
	dryRun bool
	// stderr says that stdout is taken: the result goes to stderr.
	stderr bool
	format string
}

// counts are what a change did. Left is what is in the queue afterwards.
type counts struct{ matched, done, failed, left int }

// canAsk refuses a change that nobody has agreed to and nobody can be asked about.
func (env environment) canAsk(c *cli.Command) error {
	if c.Bool("yes") || env.stdinIsTerminal() {
		return nil
	}
	return usagef("dlq %s changes the queue: expected --yes, as there is no terminal to ask on", c.Name)
}

// agree asks, unless that is settled, and reports whether to go on.
func (d *desk) agree(ctx context.Context, yes bool, ch change) (bool, error) {
	if yes || ch.quiet {
		return true, nil
	}
	// What comes while the question stands was not agreed to.
	d.filter.PublishedBefore = time.Now()
	err := d.walk(ctx, false, func(w *dlq.Walk) error {
		return w.Each(ctx, func(*dlq.Stored) error { d.expected++; return nil }, nil)
	})
	if err != nil {
		return false, err
	}
	fmt.Fprintf(d.env.stderr, "%s letters (%s) will be %s. Go on? [y/N] ", humanize.Comma(int64(d.expected)), d.filter, ch.plan)
	answer := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(d.env.stdin).ReadString('\n') // no answer is a no
		answer <- strings.ToLower(strings.TrimSpace(text))
	}()
	select {
	case text := <-answer:
		if text == "y" || text == "yes" {
			return true, nil
		}
		fmt.Fprintln(d.env.stderr, "Nothing was changed.")
		return false, nil
	case <-ctx.Done():
		fmt.Fprintln(d.env.stderr)
		return false, ctx.Err()
	}
}

// run makes a change: act fills in all counts but those that the walk knows.
func (d *desk) run(ctx context.Context, ch change, act func(w *dlq.Walk, n *counts) error) error {
	// The level must not hide who changed what.
	audit := logging.New(d.env.stderr, "info", d.cfg.LogFormat).With(
		"audit", true, "action", "dlq "+ch.action, "who", d.env.who(), "filter", d.filter.String(),
		"subscription", d.cfg.DeadLetterSubscriptionName())
	if !ch.quiet {
		audit.Info("Changing the dead-letter queue")
	}
	var n counts
	err := d.walk(ctx, false, func(w *dlq.Walk) error {
		if d.filter.PublishedBefore.IsZero() {
			d.filter.PublishedBefore = w.Queue.Started()
		}
		err := act(w, &n)
		n.matched, n.left = w.Matched, w.Queue.Held()
		if w.Late > 0 {
			fmt.Fprintf(d.env.stderr, "worker: %d letters came after the start and were left\n", w.Late)
		}
		if err == nil && n.matched < d.expected {
			fmt.Fprintf(d.env.stderr, "worker: %d letters of those counted before did not come: somebody else has them, or took them\n", d.expected-n.matched)
		}
		return err
	})
	if ch.dryRun {
		n.done = 0
	}
	if !ch.quiet {
		log := audit.With("matched", n.matched, ch.done, n.done, "failed", n.failed, "left", n.left)
		if err != nil {
			log.Error("The change of the dead-letter queue has ended early", "error", err)
		} else {
			log.Info("Changed the dead-letter queue")
		}
	}
	if err != nil {
		fmt.Fprintln(d.env.stderr, "worker: the queue was not read to its end, so there may be more left than was counted")
	}
	out := d.env.stdout
	if ch.stderr {
		out = d.env.stderr
	}
	var printErr error
	if ch.format == "table" {
		_, printErr = fmt.Fprintf(out, "%d matched, %d %s, %d failed; %d are left in the queue\n", n.matched, n.done, ch.done, n.failed, n.left)
	} else {
		_, printErr = fmt.Fprintf(out, "{\"matched\":%d,%q:%d,\"failed\":%d,\"left\":%d}\n", n.matched, ch.done, n.done, n.failed, n.left)
	}
	switch {
	case err != nil:
		return err
	case printErr != nil:
		return printErr
	case n.failed > 0 && !ch.dryRun:
		return reported{fmt.Errorf("%d letters failed", n.failed)}
	}
	return nil
}

// report tells why a letter is left, as long as there are not too many.
func (d *desk) report() func(*dlq.Stored, error) {
	const most = 20
	told := 0
	return func(s *dlq.Stored, why error) {
		switch told++; {
		case told <= most:
			id := s.EventID
			if id == "" {
				id = "message " + s.OriginalID
			}
			fmt.Fprintf(d.env.stderr, "worker: %s is left: %s\n", dlq.Plain(id), dlq.Plain(why.Error()))
		case told == most+1:
			fmt.Fprintln(d.env.stderr, "worker: more are left; they are only counted from here on")
		}
	}
}

// who returns who is at work, as far as the environment says it.
func (env environment) who() string {
	vars := map[string]string{}
	for _, entry := range env.vars {
		name, value, _ := strings.Cut(entry, "=")
		vars[name] = value
	}
	for _, value := range []string{vars["CLOUDSDK_CORE_ACCOUNT"], gcloudAccount(vars), vars["USER"], vars["LOGNAME"]} {
		if value != "" {
			return value
		}
	}
	return "unknown"
}

// gcloudAccount reads the active account of the Google Cloud CLI, if there is one.
func gcloudAccount(vars map[string]string) string {
	dir := vars["CLOUDSDK_CONFIG"]
	if dir == "" {
		if vars["HOME"] == "" {
			return ""
		}
		dir = filepath.Join(vars["HOME"], ".config", "gcloud")
	}
	name := "default"
	if active, err := os.ReadFile(filepath.Join(dir, "active_config")); err == nil {
		name = strings.TrimSpace(string(active))
	}
	content, err := os.ReadFile(filepath.Join(dir, "configurations", "config_"+filepath.Base(name)))
	if err != nil {
		return ""
	}
	for text := range strings.Lines(string(content)) {
		if key, value, ok := strings.Cut(text, "="); ok && strings.TrimSpace(key) == "account" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
