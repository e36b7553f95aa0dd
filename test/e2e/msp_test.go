package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// specification is the part of an MSP service.yaml that these tests use.
type specification struct {
	Environments []struct {
		ID       string
		Schedule struct{ Cron string }
		Deadline int `yaml:"deadlineSeconds"`
		Env      map[string]string
	}
}

// deployed returns the variables that a container has at MSP, by the specification of the
// kind for its last environment. Dependencies are those of the test.
func (h *env) deployed(kind string) []string {
	h.t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "deploy", "msp", kind+".service.yaml"))
	h.must(err)
	var s specification
	h.must(yaml.Unmarshal(content, &s))
	e := s.Environments[len(s.Environments)-1]
	vars := []string{"MSP=true", "ENVIRONMENT_ID=" + e.ID, "GOOGLE_CLOUD_PROJECT=" + h.project, "DIAGNOSTICS_SECRET=probe-secret", "OTEL_SDK_DISABLED=true"}
	for name, value := range e.Env {
		vars = append(vars, name+"="+value)
	}
	if kind == "job" {
		vars = append(vars, "CLOUD_RUN_JOB=telemetry-relay", "CLOUD_RUN_EXECUTION=telemetry-relay-x1", "CLOUD_RUN_TASK_INDEX=0", "CLOUD_RUN_TASK_COUNT=1",
			"CLOUD_RUN_TASK_ATTEMPT=0", "JOB_EXECUTION_CRON_SCHEDULE="+e.Schedule.Cron, fmt.Sprintf("JOB_EXECUTION_DEADLINE=%ds", e.Deadline))
	}
	return append(vars,
		"SAMS_CLIENT_ID="+clientID, "SAMS_CLIENT_SECRET="+clientSecret, "SAMS_URL="+h.sams.URL(), "TELEMETRY_GATEWAY_URL="+h.gateway.URL(),
		"PUBSUB_EMULATOR_HOST="+h.host, "WORKER_INSECURE_DEV=true", // the env has no TLS
	)
}

// command returns the arguments that the image runs by default.
func command(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	cmd := regexp.MustCompile(`(?m)^CMD (\[.*\])$`).FindSubmatch(content)
	if cmd == nil {
		t.Fatal("the Dockerfile has no CMD")
	}
	var args []string
	if err := json.Unmarshal(cmd[1], &args); err != nil {
		t.Fatal(err)
	}
	return args
}

// TestJobRunsByItsSpecification starts the job as Cloud Run does by its specification: with
// the image's default command and variables, and nothing else.
func TestJobRunsByItsSpecification(t *testing.T) {
	h := newEnv(t)
	h.publish(named(string(event(0).GetData()), "service_id", "cody-gateway"), named(string(event(1).GetData()), "service_id", "stranger"))
	// Only the drain's idle time is shortened.
	execute(t, append(h.deployed("job"), "WORKER_DRAIN_IDLE=1s"), nil, command(t)...).exits(0).
		sums(summary{Received: 2, Submitted: 1, Rejected: map[string]int{"unknown_service": 1}, Ended: "drained"})
	h.deadLetters(1)
}

// TestServiceRunsByItsSpecification starts the service by its specification. It must listen
// at the port, answer the probes, and end well after a signal.
func TestServiceRunsByItsSpecification(t *testing.T) {
	h := newEnv(t)
	addr := freeAddr(t)
	p := start(t, append(h.deployed("service"), "WORKER_DIAGNOSTICS_ADDR="+addr), nil, command(t)...)
	p.eventuallyAnswers("/-/readyz", "Bearer probe-secret", http.StatusOK)
	p.eventuallyAnswers("/-/healthz", "Bearer wrong", http.StatusUnauthorized)
	h.publish(named(string(event(0).GetData()), "service_id", "sams"))
	testenv.Eventually(t, "the event is recorded", func() bool { return len(h.gateway.Recorded()) == 1 })
	p.stop(syscall.SIGTERM).exits(0).sums(summary{Received: 1, Submitted: 1, Ended: "signal"})
}
