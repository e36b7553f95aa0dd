// Package sentry reports logged errors to Sentry, and checks in when a job starts and
// ends, so that Sentry notices a missing or failed execution.
package sentry

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/getsentry/sentry-go"
)

// Options of a Reporter.
type Options struct {
	// DSN is the address of the Sentry project, with its key; empty: nothing is reported.
	DSN                           string
	Service, Environment, Version string
	// Schedule is the job's cron expression; empty: no job, and no check-ins.
	Schedule string
	// Deadline is how long an execution may take; 0: not known.
	Deadline time.Duration
	// Secrets are replaced wherever a report holds one.
	Secrets []string
}

// Reporter reports to Sentry. The zero value reports nothing.
type Reporter struct {
	hub     *sentry.Hub
	client  *sentry.Client
	options Options
}

// scheduleMargin is how late an execution may start: Cloud Run has to find a
// machine for it.
const scheduleMargin = 5 * time.Minute

// New returns a reporter; it sends when there is something to report.
func New(opts Options) (*Reporter, error) {
	if opts.DSN == "" {
		return &Reporter{}, nil
	}
	client, err := sentry.NewClient(sentry.ClientOptions{
		Dsn:         opts.DSN,
		Environment: opts.Environment,
		Release:     opts.Service + "@" + opts.Version,
		// This package builds each report completely. The integrations would add data
		// of their own, such as the environment.
		Integrations:         func([]sentry.Integration) []sentry.Integration { return nil },
		DisableClientReports: true,
		// Without a buffer of its own the client ends at once, even if Sentry is
		// unavailable.
		DisableTelemetryBuffer: true,
	})
	if err != nil {
		return nil, fmt.Errorf("SENTRY_DSN: %w", err)
	}
	return &Reporter{client: client, hub: sentry.NewHub(client, sentry.NewScope()), options: opts}, nil
}

// Job runs an execution of the job between its two check-ins, and returns run's error.
func (r *Reporter) Job(run func() error) error {
	if r.hub == nil || r.options.Schedule == "" {
		return run()
	}
	return r.hub.WithMonitor(r.options.Service+"-"+r.options.Environment, &sentry.MonitorConfig{
		Schedule:      sentry.CrontabSchedule(r.options.Schedule),
		CheckInMargin: minutes(scheduleMargin),
		MaxRuntime:    minutes(r.options.Deadline),
		Timezone:      "UTC",
	}, run)
}

// minutes rounds up: Sentry counts in minutes.
func minutes(d time.Duration) int64 { return int64((d + time.Minute - 1) / time.Minute) }

// Panics logs a panic, so that it is reported, and panics again. Defer it.
func Panics(log *slog.Logger) {
	if p := recover(); p != nil {
		// The value may hold a part of a message.
		log.Error("The worker panicked", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
		panic(p)
	}
}

// Close sends the reports that are left, within a time limit, and ends.
func (r *Reporter) Close(within time.Duration) error {
	if r.hub == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	sent := r.client.FlushWithContext(ctx)
	r.client.Close()
	if !sent {
		return fmt.Errorf("not all reports were taken by Sentry within %v", within)
	}
	return nil
}
