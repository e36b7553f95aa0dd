package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/provision"
)

func (env environment) setupCommand() *cli.Command {
	return &cli.Command{
		Name:  "setup",
		Usage: "create or repair topics and subscriptions, for an emulator or a small environment",
		Description: "Creates PUBSUB_TOPIC, PUBSUB_SUBSCRIPTION, DLQ_TOPIC and DLQ_SUBSCRIPTION if they are\n" +
			"missing, and DLQ_VIEW_SUBSCRIPTION, RECEIPTS_TOPIC and RECEIPTS_SUBSCRIPTION if they are set.\n" +
			"It corrects the settings that worker check reports. It deletes nothing,\n" +
			"and names what cannot be changed. Running it again changes nothing more. Real\n" +
			"environments, which need permissions and alerts as well, have deploy/terraform.\n\n" +
			"Examples:\n\n" +
			"   PUBSUB_EMULATOR_HOST=localhost:8085 GOOGLE_CLOUD_PROJECT=dev worker setup\n" +
			"   worker setup --dry-run      show what would be changed\n" +
			"   worker setup --yes",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only show the difference"},
			command.YesFlag(),
			command.OutputFlag(),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			cfg, _, err := env.Load(config.ForPubSub)
			if err != nil {
				return err
			}
			s := setup{env: env, dryRun: c.Bool("dry-run"), asJSON: c.String("output") == "json", needs: app.Needs(cfg)}
			s.agreed = c.Bool("yes") || s.needs.Emulator
			if !s.agreed && !s.dryRun && !env.StdinIsTerminal() {
				return command.Usagef("setup changes %s: expected --yes or --dry-run, as there is no terminal to ask on", cfg.Project)
			}
			admin, err := provision.Connect(ctx, app.PubSubOptions(cfg)...)
			if err != nil {
				return err
			}
			admin.Waiting = func(about string, err error) {
				fmt.Fprintf(env.Stderr, "worker: Pub/Sub does not answer; asking again about %s (Ctrl-C to stop): %v\n", about, err)
			}
			return errors.Join(s.run(ctx, admin), admin.Close())
		},
	}
}

// setup is one run of the command.
type setup struct {
	env                    environment
	needs                  provision.Needs
	dryRun, agreed, asJSON bool
}

// setupReport is the JSON output of setup.
type setupReport struct {
	DryRun    bool             `json:"dry_run"`
	Changed   int              `json:"changed"` // number of resources created or changed; 0 in a dry run
	Obstacles int              `json:"obstacles"`
	Steps     []provision.Step `json:"steps"`
}

func (s setup) run(ctx context.Context, admin *provision.Admin) error {
	steps, err := provision.Plan(ctx, admin, s.needs)
	if err != nil {
		return err
	}
	changes := provision.Changes(steps)
	if changes > 0 && !s.dryRun {
		if !s.agreed {
			if err := printSteps(s.env.Stderr, steps); err != nil {
				return err
			}
			ok, err := s.env.Ask(ctx, fmt.Sprintf("%d resources will be created or changed. Go on?", changes))
			if !ok {
				return err
			}
		}
		steps, err = provision.Apply(ctx, admin, s.needs, steps)
		changes = provision.Changes(steps)
	}
	return errors.Join(s.print(steps, changes), err, s.stuck(steps))
}

func (s setup) print(steps []provision.Step, changes int) error {
	r := setupReport{DryRun: s.dryRun, Changed: changes, Steps: steps}
	for _, step := range steps {
		r.Obstacles += len(step.Obstacles)
	}
	if s.dryRun {
		r.Changed = 0
	}
	if s.asJSON {
		return command.PrintJSON(s.env.Stdout, r)
	}
	if err := printSteps(s.env.Stdout, steps); err != nil {
		return err
	}
	done := fmt.Sprintf("%d created or changed", changes)
	switch {
	case changes == 0:
		done = "nothing to change"
	case s.dryRun:
		done = fmt.Sprintf("%d would be created or changed (dry run)", changes)
	}
	if r.Obstacles > 0 {
		done += fmt.Sprintf(", %d settings cannot be changed", r.Obstacles)
	}
	_, err := fmt.Fprintf(s.env.Stdout, "\n%s\n", done)
	if err == nil && !s.needs.Emulator && changes > 0 {
		_, err = fmt.Fprintln(s.env.Stdout, "The dead-letter policy works once Pub/Sub's service agent (service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com)\n"+
			"has roles/pubsub.publisher on the dead-letter topic and roles/pubsub.subscriber on the subscription.")
		for _, grant := range s.grants() {
			if err == nil {
				_, err = fmt.Fprintln(s.env.Stdout, grant)
			}
		}
	}
	return err
}

// grants returns a line for each grant that the optional resources need. setup does not
// make grants.
func (s setup) grants() (lines []string) {
	if s.needs.ReceiptsTopic != "" {
		lines = append(lines, "Receipts need roles/pubsub.publisher on RECEIPTS_TOPIC for the worker, and roles/pubsub.subscriber on RECEIPTS_SUBSCRIPTION for on-call.")
	}
	if s.needs.DeadLetterView != "" {
		lines = append(lines, "The view needs roles/pubsub.subscriber on DLQ_VIEW_SUBSCRIPTION for on-call, and in the project of the view a custom role with\n"+
			"pubsub.snapshots.create, pubsub.snapshots.get, pubsub.snapshots.seek and pubsub.snapshots.delete.")
	}
	return lines
}

// stuck returns an error if a setting that loses events cannot be changed.
func (s setup) stuck(steps []provision.Step) error {
	if s.dryRun || !provision.Stuck(steps) {
		return nil
	}
	return errors.New("a setting that loses events cannot be changed; see above what to do")
}

func printSteps(w io.Writer, steps []provision.Step) error {
	var b strings.Builder
	for _, step := range steps {
		fmt.Fprintf(&b, "%-7s %s %s\n", step.Action, step.Kind, step.Name)
		for _, d := range step.Differences {
			if d.From == "" {
				fmt.Fprintf(&b, "          %s: %s\n", d.Setting, d.To)
			} else {
				fmt.Fprintf(&b, "          %s: %s → %s\n", d.Setting, d.From, d.To)
			}
		}
		for _, o := range step.Obstacles {
			fmt.Fprintf(&b, "          %s: %s (%s) cannot be changed: %s. To do: %s\n", o.Setting, o.Is, o.Status, o.Consequence, o.Do)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
