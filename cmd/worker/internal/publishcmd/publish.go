// Package publishcmd is `worker publish`: it checks lines of events and publishes them.
package publishcmd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// New returns the command `worker publish`.
func New(env command.Env) *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "publish events from a file or stdin, or only check them",
		ArgsUsage: "[FILE]",
		Description: "Publishes events to PUBSUB_TOPIC, one a line:\n\n" +
			"   {\"attributes\":{\"service_id\":\"sams\"},\"data\":{\"feature\":\"sams.user\",\"action\":\"created\"}}\n\n" +
			"Each is first checked exactly as the worker will; those that it would reject are\n" +
			"reported with their line and not published, and the exit status is 1.\n" +
			"Without FILE, or with -, events are read from stdin.\n\n" +
			"With --check nothing is published and no Pub/Sub is needed, only services.yaml\n" +
			"(WORKER_SERVICES_FILE or WORKER_SERVICES, if not the one it was built with) and\n" +
			"ENVIRONMENT_ID for events without service_environment. With --catalogue, each event\n" +
			"must also be as the service's telemetry.yaml lists it.\n\n" +
			"Examples:\n\n" +
			"   worker publish events.ndjson\n" +
			"   worker publish --check events.ndjson\n" +
			"   worker publish --check --catalogue telemetry.yaml events.ndjson\n" +
			"   worker dlq export | worker publish --as-is -",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "as-is", Usage: "publish without checking"},
			&cli.BoolFlag{Name: "check", Usage: "check without publishing"},
			&cli.StringFlag{Name: "catalogue", Usage: "with --check: also by this telemetry.yaml"},
			command.OutputFlag(),
		},
		Action: func(ctx context.Context, c *cli.Command) error { return publish(ctx, env, c) },
	}
}

// publish runs the command.
func publish(ctx context.Context, env command.Env, c *cli.Command) error {
	if c.NArg() > 1 {
		return command.Usagef("publish takes one FILE, got %d", c.NArg())
	}
	check, asIs := c.Bool("check"), c.Bool("as-is")
	if check && asIs {
		return command.Usagef("--check and --as-is exclude each other")
	}
	if c.IsSet("catalogue") && !check {
		return command.Usagef("--catalogue needs --check")
	}
	purpose := config.ForPubSub
	if check {
		purpose = config.ForCheck
	}
	cfg, _, err := env.Load(purpose)
	if err != nil {
		return err
	}
	input, name := env.Stdin, "stdin"
	if path := c.Args().First(); path != "" && path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return command.Usage(err)
		}
		defer f.Close() //nolint:errcheck // The file was only read.
		input, name = f, path
	} else if env.StdinIsTerminal() {
		fmt.Fprintln(env.Stderr, "Reading events from the terminal, one a line; end with Ctrl-D.")
	}
	p := publisher{topicName: cfg.TopicName(), bounds: command.PublishBounds(0), stderr: env.Stderr, source: name}
	if !asIs {
		p.decoder = event.NewDecoder(cfg.Services, cfg.Environment)
	}
	if file := c.String("catalogue"); file != "" {
		if p.catalogue, err = readCatalogue(file); err != nil {
			return command.Usage(err)
		}
	}
	if check {
		p.topic = &nowhere{}
		return reportCheck(env, c.String("output"), &p, p.run(ctx, input))
	}
	client, err := topic.NewClient(ctx, cfg.TopicName(), app.PubSubOptions(cfg)...)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // Everything is confirmed by then.
	p.topic = client
	return reportPublish(env, c.String("output"), &p, p.run(ctx, input))
}

// nowhere is a topic for events that are only checked.
type nowhere struct{}

func (*nowhere) Publish(context.Context, []*pubsubpb.PubsubMessage) error { return nil }

// report prints the results of the lines, as JSON or as a sentence. Bad lines are an error
// if there is no other.
func (p *publisher) report(env command.Env, output string, asJSON any, sentence, fault string, err error) error {
	if output == "json" {
		err = errors.Join(err, command.PrintJSON(env.Stdout, asJSON))
	} else {
		_, printErr := fmt.Fprintln(env.Stdout, sentence)
		err = errors.Join(err, printErr)
	}
	if err == nil && p.done.Invalid+p.done.Failed > 0 {
		return command.Reported(errors.New(fault))
	}
	return err
}

func reportPublish(env command.Env, output string, p *publisher, err error) error {
	return p.report(env, output, p.done,
		fmt.Sprintf("published %d events to %s; %d lines were not published", p.done.Published, p.topicName, p.done.Invalid+p.done.Failed),
		"some lines were not published", err)
}

func reportCheck(env command.Env, output string, p *publisher, err error) error {
	counts := struct {
		Valid   int `json:"valid"`
		Invalid int `json:"invalid"`
	}{p.done.Published, p.done.Invalid}
	return p.report(env, output, counts,
		fmt.Sprintf("checked %s: %d valid, %d invalid", p.source, counts.Valid, counts.Invalid),
		"some lines are not valid", err)
}
