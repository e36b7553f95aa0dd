package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/dlqcmd"
	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/publishcmd"
)

// environment has the commands of this package.
type environment struct{ command.Env }

// run runs a command line and returns the exit status.
func run(ctx context.Context, env command.Env) int {
	return command.Main(ctx, env, root)
}

func root(e command.Env) *cli.Command {
	env := environment{e}
	return &cli.Command{
		Name:  "worker",
		Usage: "relays telemetry events from Pub/Sub to Telemetry Gateway",
		Description: "Services publish minimal events to a Pub/Sub topic; worker completes and records them.\n" +
			"All settings are environment variables; docs/configuration.md lists them.\n\n" +
			"Try it with nothing installed:\n\n   worker local",
		HideVersion: true,
		Reader:      env.Stdin,
		Writer:      env.Stdout,
		ErrWriter:   env.Stderr,
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return command.Usagef("there is no command %q", c.Args().First())
			}
			return cli.ShowRootCommandHelp(c)
		},
		Commands: []*cli.Command{
			env.runCommand(),
			env.localCommand(),
			env.checkCommand(),
			env.setupCommand(),
			publishcmd.New(e),
			dlqcmd.New(e, dlqcmd.Options{}),
			dlqcmd.NewTrace(e, dlqcmd.Options{}),
			env.versionCommand(),
		},
	}
}
