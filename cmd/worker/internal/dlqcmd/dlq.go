// Package dlqcmd has the commands of `worker dlq`, with which on-call reads and changes
// the dead-letter queue.
package dlqcmd

import (
	"context"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// Options are how long the commands wait. Zero values are the defaults; tests set
// shorter times.
type Options struct {
	Queue dlq.QueueOptions
	// RefusalPatience is how long the topic may refuse the first events: 15 s.
	RefusalPatience time.Duration
	// CanaryLook is how long a canary waits before it looks through the queue, so
	// that a rejection is seen before the wait is over: 5 min.
	CanaryLook time.Duration
	// LookAgain is how long a canary waits for messages that another reader has
	// leased, because a canary may be among them: 30 s.
	LookAgain time.Duration
	// ReceiptsLook is how long a canary waits before it reads the receipts again: 10 s.
	ReceiptsLook time.Duration
	// OpenBrowser opens a file in the person's browser; nil: the desktop's opener.
	OpenBrowser func(ctx context.Context, path string) error
	// MonitoringEndpoint is the address of another Cloud Monitoring, which asks for no
	// credentials; empty: Google's, or none if Pub/Sub is an emulator.
	MonitoringEndpoint string
}

func (o Options) withDefaults() Options {
	if o.CanaryLook == 0 {
		o.CanaryLook = 5 * time.Minute
	}
	if o.ReceiptsLook == 0 {
		o.ReceiptsLook = 10 * time.Second
	}
	if o.LookAgain == 0 {
		o.LookAgain = 30 * time.Second
	}
	return o
}

// commands are the commands below `worker dlq`.
type commands struct {
	env  command.Env
	opts Options
}

// New returns the command `worker dlq`.
func New(e command.Env, opts Options) *cli.Command {
	root := commands{e, opts.withDefaults()}
	return &cli.Command{
		Name:  "dlq",
		Usage: "the dead-letter queue: see, plan, replay, remove, restore",
		Description: "Reads DLQ_SUBSCRIPTION. A message that a command does not act on is back in the queue at once.\n" +
			"\"At least N\" (as JSON: left_at_least, count_at_least) says that a command cannot know\n" +
			"whether it saw the whole queue; stderr says why.\n\n" +
			"Examples:\n\n" +
			"   worker dlq stats\n" +
			"   worker dlq show 019a0000-0000-7000-8000-000000000001\n" +
			"   worker dlq replay --reason invalid_event --dry-run",
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return command.Usagef("there is no command dlq %q", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
		Commands: []*cli.Command{
			root.statsCommand(),
			root.listCommand(),
			root.showCommand(),
			root.exportCommand(),
			root.replayCommand(),
			root.purgeCommand(),
			root.planCommand(),
			root.applyCommand(),
			root.statusCommand(),
			root.restoreCommand(),
			root.uiCommand(),
		},
	}
}
