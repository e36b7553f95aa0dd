package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheck checks lines with nothing configured, nor a Pub/Sub anywhere.
func TestCheck(t *testing.T) {
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
	const onlyProd = `WORKER_SERVICES={services: [{id: sams, environments: [prod]}]}`
	for _, c := range []struct {
		name, args, stdin string
		vars              []string
		status            int
		stdout            string
		stderr            []string
	}{
		{"all valid", "--check", good, nil, exitOK, "checked stdin: 1 valid, 0 invalid\n", nil},
		{"nothing at all", "--check -", "", nil, exitOK, "checked stdin: 0 valid, 0 invalid\n", nil},
		{"JSON", "--check --output json -", good + good, nil, exitOK, "{\"valid\":2,\"invalid\":0}\n", nil},
		{"faults", "--check " + file, "", nil, exitFailed, "checked " + file + ": 1 valid, 6 invalid\n", []string{
			file + `:2: invalid_event: metadata.tier: expected a number, got a string`,
			file + `:4: unknown_service: attribute service_id: "nobody" is not listed in services.yaml`,
			file + `:5: the JSON object does not end`,
			file + `:6: attribute "k": Pub/Sub takes values of at most 1024 bytes, got 1025`,
			file + `:7: invalid_event: privateMetadata: duplicate key at byte offset`,
			file + `:8: invalid_event: metadata[a key that begins with recordsPrivateMetadata`,
		}},
		{"other settings do not matter", "--check", good, []string{"WORKER_DRAIN_IDLE=soon", "PUBSUB_TOPIC=//", "LOG_LEVEL=loud", "LOG_FORMAT=x"}, exitOK, "checked stdin: 1 valid, 0 invalid\n", nil},
		{"the environment counts", "--check", good, []string{onlyProd}, exitFailed, "checked stdin: 0 valid, 1 invalid\n", []string{`stdin:1: policy_violation: service "sams" may not publish for environment "unknown"`}},
		{"the right environment", "--check", good, []string{onlyProd, "ENVIRONMENT_ID=prod"}, exitOK, "checked stdin: 1 valid, 0 invalid\n", nil},
		{"bad services.yaml", "--check", good, []string{"WORKER_SERVICES={services: 7}"}, exitUsage, "", []string{"WORKER_SERVICES"}},
		{"no such file", "--check /no/such/file", "", nil, exitUsage, "", []string{"/no/such/file"}},
		{"contradiction", "--check --as-is", good, nil, exitUsage, "", []string{"exclude each other"}},
		{"without --check, a project is needed", "", good, nil, exitUsage, "", []string{"GOOGLE_CLOUD_PROJECT"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), environment{
				args: strings.Fields("worker publish " + c.args), vars: c.vars,
				stdin: strings.NewReader(c.stdin), stdout: &stdout, stderr: &stderr,
			})
			if status != c.status || stdout.String() != c.stdout {
				t.Errorf("exit %d, want %d; stdout %q\n%s", status, c.status, stdout.String(), stderr.String())
			}
			for _, want := range c.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("want %q in:\n%s", want, stderr.String())
				}
			}
			if c.status == exitFailed && strings.Count(stderr.String(), "\n") != len(c.stderr) {
				t.Errorf("want %d lines:\n%s", len(c.stderr), stderr.String())
			}
			if strings.Contains(stderr.String(), "secret") {
				t.Errorf("shows what is private:\n%s", stderr.String())
			}
		})
	}
}
