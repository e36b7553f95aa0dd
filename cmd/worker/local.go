package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/devstack"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/sample"
	"github.com/sourcegraph/telemetry-relay/internal/logging"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// defaultEvents is how many sample events there are.
const defaultEvents = 2000

func (env environment) localCommand() *cli.Command {
	return &cli.Command{
		Name:  "local",
		Usage: "the main job with nothing installed: embedded Pub/Sub, SAMS and gateway, and sample events",
		Description: "Starts a small Pub/Sub, SAMS and Telemetry Gateway in this process, publishes real\n" +
			"sample events (and a few bad ones), relays them, and says what became of them.\n" +
			"Variables that begin with WORKER_ or LOG_ are honoured.\n\n" +
			"With PUBSUB_EMULATOR_HOST it relays from the Pub/Sub emulator there, instead of the\n" +
			"embedded one, in the project GOOGLE_CLOUD_PROJECT (default: local): Google's emulator\n" +
			"also speaks REST, for services without a client library. Missing topics and\n" +
			"subscriptions are made, and no sample events are published unless --events says so.\n\n" +
			"Examples:\n\n" +
			"   worker local\n" +
			"   worker local --events 100000 --output json\n" +
			"   worker local --keep-running      then point a service at it; it prints what becomes of\n" +
			"                                    each event, and the address of a page that shows it, too",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "events", Value: defaultEvents, Usage: "how many valid sample events to relay", Validator: func(n int) error {
				if n < 0 || n > maxLocalEvents {
					return fmt.Errorf("expected 0 to %d, got %d", maxLocalEvents, n)
				}
				return nil
			}},
			&cli.BoolFlag{Name: "keep-running", Usage: "go on until Ctrl-C, for a service to publish to"},
			&cli.StringFlag{Name: "pubsub-addr", Usage: "host:port of the embedded Pub/Sub (default: any free port on 127.0.0.1)"},
			command.OutputFlag(),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			opts := localOptions{
				events:       c.Int("events"),
				keepRunning:  c.Bool("keep-running"),
				pubsubAddr:   c.String("pubsub-addr"),
				json:         c.String("output") == "json",
				emulatorHost: env.variable("PUBSUB_EMULATOR_HOST"),
				project:      cmp.Or(env.variable("GOOGLE_CLOUD_PROJECT"), devstack.Project),
			}
			if opts.emulatorHost != "" && opts.pubsubAddr != "" {
				return command.Usagef("--pubsub-addr is for the embedded Pub/Sub, and PUBSUB_EMULATOR_HOST uses another")
			}
			if opts.emulatorHost != "" && !c.IsSet("events") {
				opts.events = 0 // the emulator may have data of its own
			}
			return env.local(ctx, opts)
		},
	}
}

// maxLocalEvents is how many sample events fit into memory.
const maxLocalEvents = 5_000_000

type localOptions struct {
	events      int
	keepRunning bool
	pubsubAddr  string
	json        bool

	emulatorHost, project string // of an emulator to use instead; empty if there is none
}

// variable returns the value of an environment variable, or "".
func (env environment) variable(name string) string {
	for _, v := range slices.Backward(env.Vars) {
		if value, found := strings.CutPrefix(v, name+"="); found {
			return value
		}
	}
	return ""
}

func (env environment) local(ctx context.Context, opts localOptions) (err error) {
	report := newLocalReport(env.Stdout, opts.keepRunning && !opts.json)
	stack, err := devstack.Start(ctx, devstack.Options{
		PubSubAddr: opts.pubsubAddr, EmulatorHost: opts.emulatorHost, EmulatorProject: opts.project, OnRecord: report.record,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stack.Close()) }()

	cfg, err := config.Load(env.localVariables(stack, opts), config.ForRun)
	if err != nil {
		return err
	}
	log := logging.New(env.Stderr, cfg.LogLevel, cfg.LogFormat)
	slog.SetDefault(log)

	total, err := publishSamples(stack, opts.events)
	if err != nil {
		return err
	}
	run := app.Options{Version: version().Version, Logger: log, Intervals: localIntervals(opts), OnDeadLetter: report.reject}
	switch {
	case report.feed != nil:
		pages, startErr := env.startLocalPages(ctx, stack, cfg, opts, report.feed)
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, pages.close()) }()
		run.OnProgress = func(p relay.Progress) { report.feed.SetDuplicates(p.Duplicates) }
		run.OnListen = func(endpoints string) { env.welcome(stack, pages, endpoints, total) }
	case terminal.Is(env.Stderr):
		bar := newProgressBar(terminal.Own(env.Stderr), total)
		defer func() { _ = bar.Finish() }()
		run.OnProgress = func(p relay.Progress) {
			bar.Describe(p.State)
			_ = bar.Set(p.Submitted + p.AllRejected() + p.Duplicates) // a picture only
		}
	}
	summary, runErr := app.Run(ctx, cfg, run)
	if opts.json {
		err = command.PrintJSON(env.Stdout, summary)
	} else {
		err = report.summary(summary, opts)
	}
	return errors.Join(err, runErr)
}

// localIntervals returns the intervals of the Pub/Sub client. The embedded Pub/Sub is in this
// process, so that a short wait shows that it is empty.
func localIntervals(opts localOptions) consume.Intervals {
	if opts.emulatorHost != "" {
		return consume.Intervals{}
	}
	return consume.Intervals{Pull: 200 * time.Millisecond}
}

func newProgressBar(out io.Writer, total int) *progressbar.ProgressBar {
	return progressbar.NewOptions(total, progressbar.OptionSetWriter(out),
		progressbar.OptionSetDescription("relaying"), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("events"), progressbar.OptionClearOnFinish(), progressbar.OptionSetRenderBlankState(true))
}

// localVariables returns the configuration of the run: that of the stack, with short waits,
// and with the WORKER_ and LOG_ variables of the environment.
func (env environment) localVariables(stack *devstack.Stack, opts localOptions) []string {
	vars := []string{"LOG_LEVEL=warn", "WORKER_DRAIN_IDLE=1s", "WORKER_BATCH_MAX_DELAY=200ms"}
	vars = append(vars, slices.DeleteFunc(slices.Clone(env.Vars), func(v string) bool {
		return !strings.HasPrefix(v, "WORKER_") && !strings.HasPrefix(v, "LOG_")
	})...)
	vars = append(vars, stack.Environ()...)
	if !opts.keepRunning {
		return append(vars, "WORKER_MODE=drain", "WORKER_DIAGNOSTICS_ADDR=")
	}
	vars = append(vars, "WORKER_MODE=continuous")
	if !slices.ContainsFunc(vars, func(v string) bool { return strings.HasPrefix(v, "WORKER_DIAGNOSTICS_ADDR=") }) {
		vars = append(vars, "WORKER_DIAGNOSTICS_ADDR=127.0.0.1:0")
	}
	return vars
}

// publishSamples publishes n valid events to the topic, with the bad ones spread among them.
func publishSamples(stack *devstack.Stack, n int) (total int, err error) {
	events, err := sample.Events(n)
	if err != nil {
		return 0, err
	}
	if n > 0 {
		bad, err := sample.Bad()
		if err != nil {
			return 0, err
		}
		for i, m := range bad {
			events = slices.Insert(events, len(events)*(i+1)/(len(bad)+1), m)
		}
	}
	return len(events), stack.Publish(events)
}
