package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/emulator"
)

// TestLocalEmulator: a Python developer, whose language speaks REST, starts Google's
// emulator and `worker local`, and sees what becomes of each event.
func TestLocalEmulator(t *testing.T) {
	t.Parallel()
	w := newDesk(t, `WORKER_SERVICES={services: [{id: cody-analytics, features: ["cody.*"]}]}`)
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skipf("NOT TESTED: %v", err)
	}
	e := emulator.New(t)
	w.environ = append(w.environ, "PUBSUB_EMULATOR_HOST="+e.Host, "GOOGLE_CLOUD_PROJECT=my-project")
	first := w.background("worker local --keep-running")
	w.eventually("the first terminal is ready", func() bool { return strings.Contains(first.String(), "Stop with Ctrl-C.\n") })
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
	cmd.Dir, cmd.Env = "../../examples/python", w.environ
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, want := range []string{
		`recorded  cody-analytics/dev  cody\.hover/shown  [0-9a-f-]{36}`,
		`rejected  cody-analytics/dev  cody\.hover/shown  invalid_event: metdata: unknown field; did you mean metadata\?`,
		`rejected  cody-analytics/dev  sams\.user/created  policy_violation: feature: service "cody-analytics" may not publish`,
	} {
		w.eventually(fmt.Sprintf("the first terminal prints %s", want), func() bool { return regexp.MustCompile(want).MatchString(first.String()) })
	}
	// The queue's own subscription still has what was rejected.
	if got := w.shell("worker dlq stats --output json"); !strings.Contains(got, "invalid_event") {
		t.Errorf("the queue: %s", got)
	}
}
