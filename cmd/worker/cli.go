package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/logging"
	"github.com/sourcegraph/telemetry-relay/internal/secrets"
	"github.com/sourcegraph/telemetry-relay/internal/sentry"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// environment is what a command sees of the world around the process.
type environment struct {
	args   []string
	vars   []string // of the form of os.Environ
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// Exit statuses, as documented for every command.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake in how a command was called.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// reported is an error that the user has been told of already.
type reported struct{ error }

// run runs a command line and returns the exit status.
func run(ctx context.Context, env environment) int {
	// Whatever is printed, nothing in it may control the terminal.
	env.stdout, env.stderr = terminal.NewWriter(env.stdout), terminal.NewWriter(env.stderr)
	err := env.root().Run(ctx, env.args)
	var (
		usage  usageError
		faults config.Faults
		told   reported
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &faults):
		fmt.Fprintf(env.stderr, "worker: %v\n", faults)
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(env.stderr, "worker: %v\nRun 'worker --help' or 'worker COMMAND --help' to see how it is used.\n", usage)
		return exitUsage
	case errors.As(err, &told):
	case errors.Is(err, syscall.EPIPE): // whoever reads has had enough
	default:
		fmt.Fprintf(env.stderr, "worker: %s\n", secrets.Mask(err.Error()))
	}
	return exitFailed
}

func (env environment) root() *cli.Command {
	root := &cli.Command{
		Name:  "worker",
		Usage: "relays telemetry events from Pub/Sub to Telemetry Gateway",
		Description: "Services publish minimal events to a Pub/Sub topic; worker completes and records them.\n" +
			"All settings are environment variables; docs/configuration.md lists them.\n\n" +
			"Try it with nothing installed:\n\n   worker local",
		HideVersion: true,
		Reader:      env.stdin,
		Writer:      env.stdout,
		ErrWriter:   env.stderr,
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usagef("there is no command %q", c.Args().First())
			}
			return cli.ShowRootCommandHelp(c)
		},
		Commands: []*cli.Command{
			env.runCommand(),
			env.localCommand(),
			env.checkCommand(),
			env.setupCommand(),
			env.publishCommand(),
			env.dlqCommand(),
			env.versionCommand(),
		},
	}
	strict(root)
	return root
}

// strict makes every mistake in the use of a command a usageError, and leaves
// the exit to main.
func strict(c *cli.Command) {
	c.OnUsageError = func(_ context.Context, _ *cli.Command, err error, _ bool) error { return usageError{err} }
	c.ExitErrHandler = func(context.Context, *cli.Command, error) {}
	for _, sub := range c.Commands {
		strict(sub)
	}
}

// noArguments refuses arguments for commands that take none.
func noArguments(c *cli.Command) error {
	if c.Args().Present() {
		return usagef("%s takes no arguments, got %q", c.Name, c.Args().First())
	}
	return nil
}

// load reads the configuration and makes the logger that it asks for.
func (env environment) load(purpose config.Purpose) (*config.Config, *slog.Logger, error) {
	cfg, err := config.Load(env.vars, purpose)
	if err != nil {
		return nil, nil, err
	}
	return cfg, env.logger(cfg, &sentry.Reporter{}), nil
}

// logger makes the logger, also of the libraries. Repeated errors are neither
// logged nor reported too often.
func (env environment) logger(cfg *config.Config, reporter *sentry.Reporter) *slog.Logger {
	h := logging.New(env.stderr, cfg.LogLevel, cfg.LogFormat).Handler()
	known := append(config.OTLPSecrets(env.vars), string(cfg.SAMSClientSecret), string(cfg.DiagnosticsSecret),
		secrets.Basic(cfg.SAMSClientID, string(cfg.SAMSClientSecret)))
	log := slog.New(logging.Limit(logging.Mask(reporter.Handler(logging.Correlate(h, cfg.TelemetryProject())), known...)))
	logging.SetDefault(log)
	return log
}

// printJSON prints v as one line.
func printJSON(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(terminal.JSON(w), "%s\n", line)
	return err
}

// outputFlag chooses between a text for people and JSON.
func outputFlag() cli.Flag {
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

// stdinIsTerminal reports whether a person types the input.
func (env environment) stdinIsTerminal() bool {
	return terminal.Is(env.stdin)
}

// lookup returns a variable's value; empty if it is not set.
func (env environment) lookup(name string) string {
	for _, entry := range slices.Backward(env.vars) { // the last one counts
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}
