package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/sentry"
)

// These are durations, and "" in releases. Tests build with -ldflags="-X main.rejectSpan=2s
// -X main.pullWait=1s", so that they need not wait for intervals that are made for
// production.
var (
	// rejectSpan is app.Options.RejectSpan, the minute over which a verdict takes its
	// evidence.
	rejectSpan string
	// pullWait is consume.Intervals.Pull, the 3 s of each of the pulls at a drain's end.
	pullWait string
)

// durationOf returns the duration, or 0 for the default.
func durationOf(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0
	}
	return d
}

func (env environment) runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "relay events: the main job",
		Description: "Receives events, validates and completes them, submits them in batches, and\n" +
			"dead-letters events that cannot be delivered. With WORKER_MODE=drain (the default of a\n" +
			"Cloud Run job) it ends when the subscription is empty; with continuous it goes on\n" +
			"until SIGTERM or SIGINT. Then it prints a summary as one line of JSON.\n\n" +
			"Example:\n\n" +
			"   GOOGLE_CLOUD_PROJECT=my-project SAMS_CLIENT_ID=… SAMS_CLIENT_SECRET=… \\\n" +
			"   WORKER_MODE=drain worker run",
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			cfg, log, err := env.Load(config.ForRun)
			if err != nil {
				return err
			}
			defer app.LimitMemory(cfg)()
			reporter, err := sentry.New(sentry.Options{
				DSN: string(cfg.SentryDSN), Service: app.ServiceID, Environment: cfg.Environment, Version: version().Version,
				Schedule: cfg.JobSchedule, Deadline: cfg.JobDeadline,
				Secrets: []string{string(cfg.SAMSClientSecret), string(cfg.DiagnosticsSecret)},
			})
			if err != nil {
				return err
			}
			log = env.Logger(cfg, reporter)
			ending := app.NewEnding(ctx, cfg)
			defer func() {
				if err := reporter.Close(ending.Time()); err != nil {
					log.Warn("The last reports were not sent", "error", err)
				}
			}()
			var summary relay.Summary
			err = reporter.Job(func() (err error) {
				defer sentry.Panics(log)
				if summary, err = app.Run(ctx, cfg, app.Options{
					Version: version().Version, Logger: log, Ending: ending,
					RejectSpan: durationOf(rejectSpan), Intervals: consume.Intervals{Pull: durationOf(pullWait)},
				}); err != nil {
					log.Error("The run failed", "error", err)
				}
				return err
			})
			if printErr := command.PrintJSON(env.Stdout, summary); printErr != nil {
				return printErr
			}
			if err != nil {
				return command.Reported(err)
			}
			return nil
		},
	}
}
