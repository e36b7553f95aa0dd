package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/preflight"
	"github.com/sourcegraph/telemetry-relay/internal/provision"
)

func (env environment) checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "preflight: check that all resources of the worker exist and have the right settings",
		Description: "Checks the configuration, the topics and subscriptions with their settings, the\n" +
			"permissions of the service account, the SAMS token and its scope, and the gateway. It\n" +
			"changes nothing and records nothing. It opens a stream from Pub/Sub as worker run does,\n" +
			"and pings it; a message that comes meanwhile is given back at once, which counts as a\n" +
			"delivery attempt. A line each:\n\n" +
			"   ok        as the worker needs it\n" +
			"   warning   works, with a consequence that you may not want\n" +
			"   failure   does not work, or loses events; the exit status is 1\n" +
			"   skipped   cannot be checked, such as permissions of an emulator\n\n" +
			"Run it with the variables and the service account of the worker; reading the settings\n" +
			"takes roles/pubsub.viewer, too.\n\n" +
			"Examples:\n\n" +
			"   worker check\n" +
			"   worker check --output json | jq '.findings[] | select(.status != \"ok\")'",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "timeout", Value: 15 * time.Second, Usage: "how long to wait for an answer", Validator: positive},
			command.OutputFlag(),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			asJSON := c.String("output") == "json"
			cfg, _, err := env.Load(config.ForRun)
			if faults, is := errors.AsType[config.Faults](err); is && asJSON {
				return errors.Join(err, command.PrintJSON(env.Stdout, newReport(faultFindings(faults))))
			}
			if err != nil {
				return err
			}
			findings, err := app.Check(ctx, cfg, c.Duration("timeout"))
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return env.report(newReport(findings), asJSON)
		},
	}
}

func positive(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("expected a positive duration such as 15s, got %v", d)
	}
	return nil
}

// checkReport is the JSON output of check.
type checkReport struct {
	OK       bool                      `json:"ok"`
	Counts   map[provision.Verdict]int `json:"counts"`
	Findings []preflight.Finding       `json:"findings"`
}

func newReport(findings []preflight.Finding) checkReport {
	r := checkReport{Counts: map[provision.Verdict]int{}, Findings: findings}
	for _, verdict := range []provision.Verdict{provision.OK, provision.Warning, provision.Failure, provision.Skipped} {
		r.Counts[verdict] = 0
	}
	for _, f := range findings {
		r.Counts[f.Status]++
	}
	r.OK = r.Counts[provision.Failure] == 0
	return r
}

// faultFindings returns the configuration's faults as findings.
func faultFindings(faults config.Faults) []preflight.Finding {
	var findings []preflight.Finding
	for _, f := range faults {
		findings = append(findings, preflight.Finding{
			Check: "configuration", Status: provision.Failure, Resource: f.Variable, Detail: f.Problem,
			Consequence: "the worker does not start, so nothing else was checked", Do: "set " + f.Variable,
		})
	}
	return findings
}

func (env environment) report(r checkReport, asJSON bool) error {
	var err error
	if asJSON {
		err = command.PrintJSON(env.Stdout, r)
	} else {
		err = printFindings(env.Stdout, r)
	}
	if err == nil && !r.OK {
		err = command.Reported(fmt.Errorf("%d checks failed", r.Counts[provision.Failure]))
	}
	return err
}

func printFindings(w io.Writer, r checkReport) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	resource := ""
	for _, f := range r.Findings {
		text := f.Detail
		// Each resource is named once.
		if f.Resource != resource && f.Resource != "" && !strings.Contains(f.Detail, f.Resource) {
			text = f.Resource + ": " + text
		}
		resource = f.Resource
		if f.Consequence != "" {
			text += ": " + f.Consequence
		}
		if f.Do != "" {
			text += ". To do: " + f.Do
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Status, f.Check, text)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	n := r.Counts
	_, err := fmt.Fprintf(w, "\n%d ok, %s, %s, %d skipped\n", n[provision.OK], command.Plural(n[provision.Warning], "warning"), command.Plural(n[provision.Failure], "failure"), n[provision.Skipped])
	return err
}
