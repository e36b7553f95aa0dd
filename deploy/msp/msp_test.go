// Package msp_test holds the specifications against MSP's rules and against the
// worker's configuration.
package msp_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/cronexpr"
	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/config"
)

// spec is what this project uses of MSP's service.yaml.
type spec struct {
	Service struct {
		ID, Name, Description, Kind string
		Owners                      []string
		IAM                         struct{ Services, Roles []string }
	}
	Build struct {
		Image  string
		Source struct{ Repo, Dir string }
	}
	Environments []environment
}

type environment struct {
	ID        string
	ProjectID string `yaml:"projectID"`
	Category  string
	Deploy    struct {
		Type                 string
		Manual, Subscription *struct{ Tag string }
	}
	Authentication *struct{}
	HealthProbes   *struct {
		HealthzProbes    bool `yaml:"healthzProbes"`
		Timeout          int
		LivenessInterval int `yaml:"livenessInterval"`
	} `yaml:"healthProbes"`
	Schedule        *struct{ Cron string }
	DeadlineSeconds *int `yaml:"deadlineSeconds"`
	Instances       struct {
		Resources struct {
			CPU    int
			Memory string
		}
		Scaling *struct {
			MinCount int `yaml:"minCount"`
			MaxCount int `yaml:"maxCount"`
		}
	}
	Env       map[string]string
	SecretEnv map[string]string `yaml:"secretEnv"`
}

func parse(t *testing.T, content []byte) spec {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(content))
	d.KnownFields(true)
	var s spec
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	identifier = regexp.MustCompile(`^[a-z0-9-]+$`)
	role       = regexp.MustCompile(`^(roles/[\w.]+|projects/[^/]+/roles/[\w.]+|organizations/\d+/roles/[\w.]+)$`)
	memory     = regexp.MustCompile(`^(\d+)(Mi|Gi)$`)
)

// faults lists what MSP would refuse, and what would not work for the worker.
func (s *spec) faults(now time.Time) (faults []string) {
	add := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	add(identifier.MatchString(s.Service.ID) && len(s.Service.ID) <= 20, "service.id: at most 20 of a-z, 0-9 and -")
	add(len(s.Service.Owners) > 0 && !slices.Contains(s.Service.Owners, ""), "service.owners: at least one")
	add(s.Service.Description != "", "service.description: required")
	add(s.Service.Kind == "job" || s.Service.Kind == "service", "service.kind: job or service")
	for _, r := range s.Service.IAM.Roles {
		add(role.MatchString(r), "service.iam.roles: %q is none", r)
	}
	for _, r := range s.Service.IAM.Roles {
		add(!strings.HasPrefix(r, "roles/pubsub."), "service.iam.roles: %q is for the whole project; deploy/terraform grants less", r)
	}
	add(s.Build.Image != "" && !strings.Contains(filepath.Base(s.Build.Image), ":"), "build.image: required, without a tag")
	add(s.Build.Source.Repo != "" && s.Build.Source.Dir != "", "build.source: repo and dir are required")
	add(len(s.Environments) > 0, "environments: at least one")
	for _, e := range s.Environments {
		for _, f := range e.faults(s, now) {
			faults = append(faults, e.ID+": "+f)
		}
	}
	return faults
}

func (e *environment) faults(s *spec, now time.Time) (faults []string) {
	add := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	prefix := s.Service.ID + "-" + e.ID + "-"
	add(identifier.MatchString(e.ID), "id: required")
	add(len(s.Service.Name+" - "+e.ID) <= 30, "service.name: with the environment at most 30 characters")
	add(strings.HasPrefix(e.ProjectID, prefix) && len(e.ProjectID) > len(prefix) && len(e.ProjectID) <= 30, "projectID: %s and a suffix, at most 30 characters", prefix)
	add(slices.Contains([]string{"test", "internal", "external"}, e.Category), "category: test, internal or external")
	switch e.Deploy.Type {
	case "manual":
		add(e.Deploy.Subscription == nil, "deploy: a subscription, and yet manual")
	case "subscription":
		add(e.Deploy.Subscription != nil && e.Deploy.Subscription.Tag != "" && e.Deploy.Manual == nil, "deploy: a subscription needs its tag, and nothing manual")
	case "rollout":
		add(s.Service.Kind == "service", "deploy: jobs have no rollout")
	default:
		add(false, "deploy.type: manual, subscription or rollout")
	}
	cpu, mib := e.Instances.Resources.CPU, mebibytes(e.Instances.Resources.Memory)
	add(cpu >= 1 && cpu <= 8, "instances.resources.cpu: 1 to 8")
	add(mib >= 512 && mib <= 32<<10, "instances.resources.memory: 512Mi to 32Gi")
	add(mib <= 4<<10 || cpu >= 2, "instances.resources: more than 4Gi needs 2 CPUs")
	if s.Service.Kind == "job" {
		return append(faults, e.jobFaults(now)...)
	}
	add(e.Schedule == nil && e.DeadlineSeconds == nil, "schedule: only for jobs")
	add(e.Instances.Scaling != nil && e.Instances.Scaling.MinCount >= 1, "instances.scaling.minCount: at least 1, or nobody consumes")
	add(e.Instances.Scaling == nil || e.Instances.Scaling.MaxCount >= e.Instances.Scaling.MinCount, "instances.scaling.maxCount: not less than minCount")
	add(e.HealthProbes != nil && e.HealthProbes.HealthzProbes, "healthProbes: without them a stuck worker is not restarted")
	return faults
}

func (e *environment) jobFaults(now time.Time) (faults []string) {
	if e.Instances.Scaling != nil {
		faults = append(faults, "instances.scaling: not for jobs")
	}
	if e.Authentication != nil || e.HealthProbes != nil {
		faults = append(faults, "authentication, healthProbes: not for jobs")
	}
	if e.Schedule == nil {
		return append(faults, "schedule: nothing would start the job")
	}
	cron, err := cronexpr.Parse(e.Schedule.Cron)
	if err != nil {
		return append(faults, "schedule.cron: "+err.Error())
	}
	const week = 4 * 24 * 7 // executions, at most
	times := cron.NextN(now, week)
	shortest, longest := times[1].Sub(times[0]), time.Duration(0)
	for i := range times[1:] {
		gap := times[i+1].Sub(times[i])
		shortest, longest = min(shortest, gap), max(longest, gap)
	}
	if shortest < 15*time.Minute || longest > 8*24*time.Hour {
		faults = append(faults, fmt.Sprintf("schedule.cron: every 15 minutes to every 8 days, not %v to %v", shortest, longest))
	}
	deadline := 300
	if e.DeadlineSeconds != nil {
		deadline = *e.DeadlineSeconds
	}
	if d := time.Duration(deadline) * time.Second; d <= 0 || d >= shortest {
		faults = append(faults, fmt.Sprintf("deadlineSeconds: more than 0 and less than the %v between executions", shortest))
	}
	return faults
}

func mebibytes(s string) int {
	m := memory.FindStringSubmatch(s)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	if m[2] == "Gi" {
		n <<= 10
	}
	return n
}

// provided are MSP's own variables, for an environment of a kind.
func (e *environment) provided(kind string) map[string]string {
	vars := map[string]string{
		"MSP": "true", "ENVIRONMENT_ID": e.ID, "GOOGLE_CLOUD_PROJECT": e.ProjectID, "DIAGNOSTICS_SECRET": "s3cr3t",
		"SENTRY_DSN": "https://key@sentry.example.com/1", "OTEL_SDK_DISABLED": "false", "OTEL_GCP_PROJECT_ID": e.ProjectID,
	}
	if kind == "service" {
		vars["PORT"] = "9992"
		return vars
	}
	for name, value := range map[string]string{"JOB": "telemetry-relay", "EXECUTION": "telemetry-relay-abcde", "TASK_INDEX": "0", "TASK_COUNT": "1", "TASK_ATTEMPT": "0"} {
		vars["CLOUD_RUN_"+name] = value
	}
	vars["JOB_EXECUTION_CRON_SCHEDULE"] = e.Schedule.Cron
	vars["JOB_EXECUTION_DEADLINE"] = (time.Duration(*e.DeadlineSeconds) * time.Second).String()
	return vars
}

var now = time.Date(2026, 11, 23, 0, 1, 0, 0, time.UTC)

// TestSpecificationsAreValid checks each specification, and what the worker makes of its
// variables.
func TestSpecificationsAreValid(t *testing.T) {
	known := map[string]bool{}
	for field := range reflect.TypeFor[config.Config]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("env"), ",")
		known[name] = true
	}
	for _, kind := range []string{"job", "service"} {
		content, err := os.ReadFile(kind + ".service.yaml")
		if err != nil {
			t.Fatal(err)
		}
		s := parse(t, content)
		if s.Service.Kind != kind {
			t.Errorf("%s.service.yaml is of the kind %s", kind, s.Service.Kind)
		}
		for _, fault := range s.faults(now) {
			t.Errorf("%s: %s", kind, fault)
		}
		for _, e := range s.Environments {
			vars := e.provided(kind)
			for name, value := range e.Env {
				if !known[name] {
					t.Errorf("%s sets %s, which the worker does not read", e.ID, name)
				}
				if _, own := vars[name]; own {
					t.Errorf("%s sets %s, which MSP sets", e.ID, name)
				}
				vars[name] = value
			}
			for name := range e.SecretEnv {
				if !known[name] {
					t.Errorf("%s sets %s, which the worker does not read", e.ID, name)
				}
				vars[name] = "secret"
			}
			var environ []string
			for name, value := range vars {
				environ = append(environ, name+"="+value)
			}
			cfg, err := config.Load(environ, config.ForRun)
			if err != nil {
				t.Errorf("%s: %v", e.ID, err)
				continue
			}
			if kind == "job" && (cfg.Mode != config.Drain || cfg.ReceiveWindow() != 827*time.Second || cfg.ListenAddr() != "") {
				t.Errorf("%s: as a job it runs in mode %s for %v, and listens at %q", e.ID, cfg.Mode, cfg.ReceiveWindow(), cfg.ListenAddr())
			}
			// A drain proves that the subscription is empty at most 15 s after its idle time.
			if proof := cfg.DrainIdle + 15*time.Second; kind == "job" && cfg.ReceiveWindow() < 2*proof {
				t.Errorf("%s: it receives for %v, and may need %v to prove that the subscription is empty", e.ID, cfg.ReceiveWindow(), proof)
			}
			if kind == "service" && (cfg.Mode != config.Continuous || cfg.ListenAddr() != ":9992") {
				t.Errorf("%s: as a service it runs in mode %s, and listens at %q", e.ID, cfg.Mode, cfg.ListenAddr())
			}
			// The bound on events in flight must fit into the memory, a few times over.
			if held := int(cfg.MaxOutstandingBytes >> 20); mebibytes(e.Instances.Resources.Memory) < 3*held {
				t.Errorf("%s: %s of memory for %d MiB of events", e.ID, e.Instances.Resources.Memory, held)
			}
		}
	}
}

// TestBrokenSpecificationsAreRefused breaks each rule.
func TestBrokenSpecificationsAreRefused(t *testing.T) {
	for _, c := range []struct{ kind, from, to, want string }{
		{"job", "id: telemetry-relay\n", "id: Telemetry_Relay\n", "service.id"},
		{"job", "id: telemetry-relay\n", "id: telemetry-relay-worker\n", "service.id"},
		{"job", "owners: [core-services]", "owners: []", "service.owners"},
		{"job", "description: Relays telemetry events from Pub/Sub to Telemetry Gateway.", "description: ''", "service.description"},
		{"job", "kind: job", "kind: cron", "service.kind"},
		{"job", "roles/telemetry.tracesWriter", "editor", "service.iam.roles"},
		{"job", "roles/telemetry.tracesWriter", "roles/pubsub.editor", "deploy/terraform grants less"},
		{"job", "images/telemetry-relay", "images/telemetry-relay:1", "build.image"},
		{"job", "dir: .", "dir: ''", "build.source"},
		{"job", "name: Telemetry Relay", "name: Telemetry Relay of the Company", "service.name"},
		{"job", "telemetry-relay-dev-5f2a", "telemetry-relay-prod-5f2a", "projectID"},
		{"job", "telemetry-relay-dev-5f2a", "telemetry-relay-dev-5f2a5f2a5f2a", "projectID"},
		{"job", "category: test", "category: public", "category"},
		{"job", "type: manual", "type: rollout", "jobs have no rollout"},
		{"job", "type: manual", "type: magic", "deploy.type"},
		{"job", "tag: main", "tag: ''", "a subscription needs its tag"},
		{"job", "cpu: 1\n        memory: 1Gi", "cpu: 0\n        memory: 1Gi", "resources.cpu"},
		{"job", "memory: 512Mi", "memory: 256Mi", "resources.memory"},
		{"job", "memory: 1Gi", "memory: 1GB", "resources.memory"},
		{"job", "memory: 1Gi", "memory: 8Gi", "needs 2 CPUs"},
		{"job", "instances:\n", "instances:\n      scaling: {minCount: 1}\n", "instances.scaling: not for jobs"},
		{"job", "*/15 * * * *", "*/10 * * * *", "schedule.cron: every 15 minutes"},
		{"job", "*/15 * * * *", "0 0 1 * *", "schedule.cron: every 15 minutes"},
		{"job", "*/15 * * * *", "sometimes", "schedule.cron"},
		{"job", "deadlineSeconds: 840", "deadlineSeconds: 900", "deadlineSeconds"},
		{"job", "deadlineSeconds: 840", "deadlineSeconds: 0", "deadlineSeconds"},
		{"service", "minCount: 2", "minCount: 0", "nobody consumes"},
		{"service", "maxCount: 2", "maxCount: 1", "scaling.maxCount"},
		{"service", "healthzProbes: true", "healthzProbes: false", "healthProbes"},
		{"service", "category: internal", "category: internal\n    deadlineSeconds: 3", "only for jobs"},
	} {
		content, err := os.ReadFile(c.kind + ".service.yaml")
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(content), c.from, c.to, 1)
		if changed == string(content) {
			t.Errorf("nothing to replace: %q", c.from)
			continue
		}
		s := parse(t, []byte(changed))
		if got := strings.Join(s.faults(now), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%q for %q: got %q, want %q", c.to, c.from, got, c.want)
		}
	}
}
