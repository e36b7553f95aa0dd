package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/emulator"
)

// TestLocalRelaysFromGooglesEmulator has a Python program publish over REST to Google's
// emulator. `worker local` must relay from there, and print the outcome of each event.
func TestLocalRelaysFromGooglesEmulator(t *testing.T) {
	t.Parallel()
	env := newDeveloperEnv(t, `WORKER_SERVICES={services: [{id: cody-analytics, features: ["cody.*"]}]}`)
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skipf("NOT TESTED: %v", err)
	}
	e := emulator.New(t)
	env.environ = append(env.environ, "PUBSUB_EMULATOR_HOST="+e.Host, "GOOGLE_CLOUD_PROJECT=my-project")
	first := env.background("worker local --keep-running")
	env.eventually("the first terminal is ready", func() bool { return strings.Contains(first.String(), "Stop with Ctrl-C.\n") })
	for _, want := range []string{"Relaying 0 sample events", "export PUBSUB_EMULATOR_HOST=" + e.Host, "export GOOGLE_CLOUD_PROJECT=my-project"} {
		if !strings.Contains(first.String(), want) {
			t.Errorf("want %q in\n%s", want, first)
		}
	}
	record := `import telemetry, sys
r = telemetry.Recorder(topic="projects/my-project/topics/telemetry-events", service_id="cody-analytics", service_environment="dev")
r.record("cody.hover", "shown", metadata={"tier": 1})
r.record("cody.hover", "shown", metdata={"tier": 1})
r.record("sams.user", "created")
sys.exit(r.close()["published"] != 3)
`
	cmd := exec.CommandContext(t.Context(), "python3", "-B", "-c", record)
	cmd.Dir, cmd.Env = "../../examples/python", env.environ
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, want := range []string{
		`recorded  cody-analytics/dev  cody\.hover/shown  [0-9a-f-]{36}`,
		`rejected  cody-analytics/dev  cody\.hover/shown  invalid_event: metdata: unknown field; did you mean metadata\?`,
		`rejected  cody-analytics/dev  sams\.user/created  policy_violation: feature: service "cody-analytics" may not publish`,
	} {
		env.eventually(fmt.Sprintf("the first terminal prints %s", want), func() bool { return regexp.MustCompile(want).MatchString(first.String()) })
	}
	// Commands find the rejected events in the dead-letter queue on the emulator.
	if got := env.shell("worker dlq stats --output json"); !strings.Contains(got, "invalid_event") {
		t.Errorf("the queue: %s", got)
	}
}
