// Package command has what the commands of the worker share: the environment of
// the process, exit statuses, errors for them, questions and output.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/logging"
	"github.com/sourcegraph/telemetry-relay/internal/secrets"
	"github.com/sourcegraph/telemetry-relay/internal/sentry"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// Env is the part of the process that a command may use. Tests pass their own.
type Env struct {
	Args   []string
	Vars   []string // of the form of os.Environ
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Exit statuses, as documented for every command.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// UsageError is a mistake in the call of a command: exit status 2.
type UsageError struct{ error }

// Unwrap returns the cause.
func (e UsageError) Unwrap() error { return e.error }

// Usage makes an error a UsageError.
func Usage(err error) error { return UsageError{err} }

// Usagef formats a UsageError.
func Usagef(format string, args ...any) error {
	return UsageError{fmt.Errorf(format, args...)}
}

// reported is an error that the command has already printed.
type reported struct{ error }

// Reported makes the exit status 1 without printing the error again.
func Reported(err error) error { return reported{err} }

// Main runs the command line env.Args and returns the exit status. root builds the commands
// on the environment that it gets, whose outputs are safe for a terminal.
func Main(ctx context.Context, env Env, root func(Env) *cli.Command) int {
	// Nothing that a command prints may control the terminal.
	env.Stdout, env.Stderr = terminal.NewWriter(env.Stdout), terminal.NewWriter(env.Stderr)
	top := root(env)
	strict(top)
	err := top.Run(ctx, env.Args)
	var (
		usage   UsageError
		faults  config.Faults
		printed reported
	)
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &faults):
		fmt.Fprintf(env.Stderr, "worker: %v\n", faults)
		return ExitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(env.Stderr, "worker: %v\nRun 'worker --help' or 'worker COMMAND --help' to see how it is used.\n", usage)
		return ExitUsage
	case errors.As(err, &printed):
	case errors.Is(err, syscall.EPIPE): // the reader of the output has closed it
	default:
		fmt.Fprintf(env.Stderr, "worker: %s\n", secrets.Mask(err.Error()))
	}
	return ExitFailed
}

// strict turns every mistake in the call of a command into a UsageError, and leaves the
// exit to Main.
func strict(c *cli.Command) {
	c.OnUsageError = func(_ context.Context, _ *cli.Command, err error, _ bool) error { return UsageError{err} }
	c.ExitErrHandler = func(context.Context, *cli.Command, error) {}
	for _, sub := range c.Commands {
		strict(sub)
	}
}

// NoArguments refuses arguments for commands that take none.
func NoArguments(c *cli.Command) error {
	if c.Args().Present() {
		return Usagef("%s takes no arguments, got %q", c.Name, c.Args().First())
	}
	return nil
}

// Load reads the configuration and returns it with its logger.
func (env Env) Load(purpose config.Purpose) (*config.Config, *slog.Logger, error) {
	cfg, err := config.Load(env.Vars, purpose)
	if err != nil {
		return nil, nil, err
	}
	return cfg, env.Logger(cfg, &sentry.Reporter{}), nil
}

// Logger returns the logger, and sets that of the libraries. It limits how often a repeated
// error is logged and reported.
func (env Env) Logger(cfg *config.Config, reporter *sentry.Reporter) *slog.Logger {
	h := logging.New(env.Stderr, cfg.LogLevel, cfg.LogFormat).Handler()
	known := append(config.OTLPSecrets(env.Vars), string(cfg.SAMSClientSecret), string(cfg.DiagnosticsSecret),
		secrets.Basic(cfg.SAMSClientID, string(cfg.SAMSClientSecret)))
	log := slog.New(logging.Limit(logging.Mask(reporter.Handler(logging.Correlate(h, cfg.TelemetryProject())), known...)))
	logging.SetDefault(log)
	return log
}

// PrintJSON prints v as one line.
func PrintJSON(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(terminal.JSON(w), "%s\n", text)
	return err
}

// OutputFlag chooses between a text for people and JSON.
func OutputFlag() cli.Flag {
	return &cli.StringFlag{
		Name:  "output",
		Value: "text",
		Usage: "text, or json: one object on one line",
		Validator: func(s string) error {
			if s != "text" && s != "json" {
				return fmt.Errorf("expected text or json, got %q", s)
			}
			return nil
		},
	}
}

// StdinIsTerminal reports whether a person types the input.
func (env Env) StdinIsTerminal() bool {
	return terminal.Is(env.Stdin)
}

// Lookup returns a variable's value; empty if it is not set.
func (env Env) Lookup(name string) string {
	for _, entry := range slices.Backward(env.Vars) { // the last one counts
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// Plural writes a number with its noun, such as "1 event" and "1,200 events".
func Plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return Comma(n) + " " + noun
}

// Comma writes a number with commas between its thousands.
func Comma(n int) string { return humanize.Comma(int64(n)) }

// OutliveReaders makes a write to a closed pipe an error instead of the end of the process,
// because a command must return its leased messages first.
func OutliveReaders() { signal.Ignore(syscall.SIGPIPE) }
