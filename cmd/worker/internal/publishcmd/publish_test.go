package publishcmd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
)

// run runs a command line and returns the exit status.
func run(ctx context.Context, env command.Env) int {
	return command.Main(ctx, env, func(env command.Env) *cli.Command {
		return &cli.Command{Name: "worker", Commands: []*cli.Command{New(env)}, Writer: env.Stdout, ErrWriter: env.Stderr}
	})
}

// TestCheckNeedsNoPubSub checks lines with nothing configured, nor a Pub/Sub anywhere.
func TestCheckNeedsNoPubSub(t *testing.T) {
	lines := strings.Join([]string{
		`{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created"}}`,
		`{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created","metadata":{"tier":"1"}}}`, // 2
		``,
		`{"attributes":{"service_id":"nobody"},"data":{"feature":"sams.user","action":"created"}}`, // 4
		`{`, // 5
		`{"attributes":{"service_id":"sams","k":"` + strings.Repeat("v", 1025) + `"},"data":{"feature":"sams.user","action":"created"}}`,                                 // 6
		`{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created","privateMetadata":{"k":"the secret","k":"secret"}}}`,                       // 7
		`{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created","metadata":{"recordsPrivateMetadata` + strings.Repeat("k", 229) + `":1}}}`, // 8
	}, "\r\n") + "\n"
	good := strings.SplitAfter(lines, "\n")[0]
	file := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	const list = "../../../../examples/telemetry.yaml"
	const onlyProd = `WORKER_SERVICES={services: [{id: sams, environments: [prod]}]}`
	for _, c := range []struct {
		name, args, stdin string
		vars              []string
		status            int
		stdout            string
		stderr            []string
	}{
		{"all valid", "--check", good, nil, command.ExitOK, "checked stdin: 1 valid, 0 invalid\n", nil},
		{"nothing at all", "--check -", "", nil, command.ExitOK, "checked stdin: 0 valid, 0 invalid\n", nil},
		{"JSON", "--check --output json -", good + good, nil, command.ExitOK, "{\"valid\":2,\"invalid\":0}\n", nil},
		{"faults", "--check " + file, "", nil, command.ExitFailed, "checked " + file + ": 1 valid, 6 invalid\n", []string{
			file + `:2: invalid_event: metadata.tier: expected a number, got a string`,
			file + `:4: unknown_service: attribute service_id: "nobody" is not listed in services.yaml`,
			file + `:5: the JSON object does not end`,
			file + `:6: attribute "k": Pub/Sub takes values of at most 1024 bytes, got 1025`,
			file + `:7: invalid_event: privateMetadata: duplicate key at byte offset`,
			file + `:8: invalid_event: metadata[a key that begins with recordsPrivateMetadata`,
		}},
		{"other settings do not matter", "--check", good, []string{"WORKER_DRAIN_IDLE=soon", "PUBSUB_TOPIC=//", "LOG_LEVEL=loud", "LOG_FORMAT=x"}, command.ExitOK, "checked stdin: 1 valid, 0 invalid\n", nil},
		{"the environment counts", "--check", good, []string{onlyProd}, command.ExitFailed, "checked stdin: 0 valid, 1 invalid\n", []string{`stdin:1: policy_violation: service "sams" may not publish for environment "unknown"`}},
		{"the right environment", "--check", good, []string{onlyProd, "ENVIRONMENT_ID=prod"}, command.ExitOK, "checked stdin: 1 valid, 0 invalid\n", nil},
		{"bad services.yaml", "--check", good, []string{"WORKER_SERVICES={services: 7}"}, command.ExitUsage, "", []string{"WORKER_SERVICES"}},
		{"no such file", "--check /no/such/file", "", nil, command.ExitUsage, "", []string{"/no/such/file"}},
		{"not as in the catalogue", "--check --catalogue " + list, strings.ReplaceAll(good, "sams", "cody-analytics"), []string{`WORKER_SERVICES={unknownServices: allow}`}, command.ExitFailed, "checked stdin: 0 valid, 1 invalid\n", []string{`stdin:1: policy_violation: action: the catalogue does not list "created" of "cody-analytics.user"`}},
		{"another service's catalogue", "--check --catalogue " + list, good, nil, command.ExitFailed, "checked stdin: 0 valid, 1 invalid\n", []string{`stdin:1: the catalogue is that of service cody-analytics, the event that of "sams"`}},
		{"no such catalogue", "--check --catalogue /no/such/file", good, nil, command.ExitUsage, "", []string{"/no/such/file"}},
		{"a catalogue without --check", "--catalogue " + list, good, nil, command.ExitUsage, "", []string{"--catalogue needs --check"}},
		{"contradiction", "--check --as-is", good, nil, command.ExitUsage, "", []string{"exclude each other"}},
		{"without --check, a project is needed", "", good, nil, command.ExitUsage, "", []string{"GOOGLE_CLOUD_PROJECT"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), command.Env{
				Args: strings.Fields("worker publish " + c.args), Vars: c.vars,
				Stdin: strings.NewReader(c.stdin), Stdout: &stdout, Stderr: &stderr,
			})
			if status != c.status || stdout.String() != c.stdout {
				t.Errorf("exit %d, want %d; stdout %q\n%s", status, c.status, stdout.String(), stderr.String())
			}
			for _, want := range c.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("want %q in:\n%s", want, stderr.String())
				}
			}
			if c.status == command.ExitFailed && strings.Count(stderr.String(), "\n") != len(c.stderr) {
				t.Errorf("want %d lines:\n%s", len(c.stderr), stderr.String())
			}
			if strings.Contains(stderr.String(), "secret") {
				t.Errorf("shows what is private:\n%s", stderr.String())
			}
		})
	}
}
