package live_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/api/option"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
)

// kind is what kind of Pub/Sub answers.
type kind int

const (
	service  kind = iota // Google's own
	emulated             // Google's emulator
	embedded             // internal/devstack/pubsubserver
)

// target is the Pub/Sub that is asked.
type target struct {
	kind    kind
	project string
	region  string // empty: the global endpoint
	// endpoint is host:port; empty means the global one. That of an emulator or of the embedded
	// server takes plain text without credentials.
	endpoint string
	long     bool // what takes ten minutes is asked, too
	// hurried is an embedded server with short intervals, of which only situations
	// are asked that need them.
	hurried bool
	// streamIdle and firstLease are how long a stream lives whose client is silent, and a
	// lease before its first ModifyAckDeadline, as docs/pubsub.md says.
	streamIdle, firstLease time.Duration
	// drainIdle is the worker's WORKER_DRAIN_IDLE.
	drainIdle time.Duration
}

const (
	serviceIdle  = time.Minute
	serviceLease = 10 * time.Minute
)

func serviceTarget(project, region, endpoint string, long bool) target {
	if endpoint == "" && region != "" {
		endpoint = region + "-pubsub.googleapis.com:443"
	}
	return target{
		kind: service, project: project, region: region, endpoint: endpoint, long: long,
		streamIdle: serviceIdle, firstLease: serviceLease, drainIdle: 15 * time.Second,
	}
}

// localTarget is an emulator or an embedded server.
func localTarget(kind kind, host string) target {
	return target{
		// Tests of an emulator that they share keep apart by projects of their own.
		kind: kind, project: "live-" + uuid.NewString()[:8], endpoint: host,
		streamIdle: serviceIdle, firstLease: serviceLease, drainIdle: time.Second,
	}
}

// flagTarget returns what the flags ask for. It skips the test if they ask for nothing.
func flagTarget(t *testing.T) target {
	t.Helper()
	switch {
	case *flagProject == "" && *flagEmulator == "":
		t.Skip("no real Pub/Sub is asked without -live.project; docs/live.md says what that needs")
	case *flagEmulator != "" && (*flagEndpoint != "" || *flagRegion != ""):
		t.Fatal("-live.emulator goes with neither -live.endpoint nor -live.region")
	case *flagEmulator != "":
		tg := localTarget(emulated, *flagEmulator)
		if *flagProject != "" {
			tg.project = *flagProject
		}
		return tg
	case *flagRegion != "" && !regexp.MustCompile(`^[a-z]+-[a-z]+[0-9]+$`).MatchString(*flagRegion):
		t.Fatalf("-live.region: expected a region such as us-east1, got %q", *flagRegion)
	}
	// The generated clients would speak plain text for it.
	t.Setenv("PUBSUB_EMULATOR_HOST", "")
	return serviceTarget(*flagProject, *flagRegion, *flagEndpoint, *flagLong)
}

func (tg target) String() string {
	switch tg.kind {
	case emulated:
		return "the emulator at " + tg.endpoint
	case embedded:
		return "the embedded server"
	case service:
	}
	if tg.endpoint == "" {
		return "Pub/Sub, project " + tg.project
	}
	return fmt.Sprintf("Pub/Sub at %s, project %s", tg.endpoint, tg.project)
}

// options are those with which the worker connects.
func (tg target) options() []option.ClientOption {
	cfg := &config.Config{PubSubEndpoint: tg.endpoint}
	if tg.kind != service {
		cfg = &config.Config{EmulatorHost: tg.endpoint}
	}
	return app.PubSubOptions(cfg)
}

// globalOptions connect to the global endpoint.
func (tg target) globalOptions() []option.ClientOption { return app.PubSubOptions(&config.Config{}) }

// environ is how a worker finds Pub/Sub: with the caller's own environment, which has
// the credentials, but nothing of the worker's own settings.
func (tg target) environ() []string {
	own := slices.DeleteFunc(os.Environ(), func(v string) bool {
		for _, prefix := range []string{"PUBSUB_", "DLQ_", "WORKER_", "SAMS_", "OTEL_", "SENTRY_", "CLOUD_RUN_", "RECEIPTS_", "PORT=", "JOB_EXECUTION_DEADLINE="} {
			if strings.HasPrefix(v, prefix) {
				return true
			}
		}
		return false
	})
	where := "PUBSUB_ENDPOINT="
	if tg.kind != service {
		where = "PUBSUB_EMULATOR_HOST="
	}
	return append(own, "GOOGLE_CLOUD_PROJECT="+tg.project, where+tg.endpoint)
}

// needs is how much time the situations take at most.
func (tg target) needs() time.Duration {
	if tg.long {
		return tg.firstLease + 10*time.Minute
	}
	return 6 * time.Minute
}

// within is how long something may take. Emulators and embedded servers share the machine
// with other tests.
func (tg target) within(d time.Duration) time.Duration {
	if tg.kind == service {
		return d
	}
	return 5 * d
}
