package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

const (
	runbookProject = "telemetry-relay-prod-1a2b"
	runbookMain    = "projects/" + runbookProject + "/topics/telemetry-events"
	runbookSub     = "projects/" + runbookProject + "/subscriptions/telemetry-events-relay"
	runbookDLQ     = "projects/" + runbookProject + "/topics/telemetry-events-dlq"
	runbookDLQSub  = "projects/" + runbookProject + "/subscriptions/telemetry-events-dlq-oncall"
	runbookView    = "projects/" + runbookProject + "/subscriptions/telemetry-events-dlq-view"

	runbookServices = `unknownServices: reject
services:
  - {id: cody-gateway, owner: cody-core, runbook: "https://example.com/cody-gateway"}
  - {id: pings, owner: core-services, features: ["pings.*"], privateMetadata: reject}
  - {id: sams, owner: core-services}
`
)

// docEnv is the environment in which the commands of a document run. That of a page of the
// runbook has a Pub/Sub with dead-lettered messages, a SAMS and a gateway.
type docEnv struct {
	t       *testing.T
	pubsub  *pubsubserver.Server
	sams    *samsserver.Server
	gateway *gatewayserver.Server
	dir     string   // where the commands run
	environ []string // environment variables of the commands
	// names replaces addresses of the test by those in the pages.
	names *strings.Replacer
	// worker is the output of the page's worker; nil if there is none.
	worker *output
}

// newRunbookEnv starts the environment of a page, with dead-lettered messages.
func newRunbookEnv(t *testing.T, messages []*pubsubpb.PubsubMessage) *docEnv {
	t.Helper()
	env := &docEnv{t: t, dir: t.TempDir()}
	var err error
	env.pubsub, err = pubsubserver.Start(t.Context(), pubsubserver.Options{PullWait: 40 * time.Millisecond})
	env.must(err)
	t.Cleanup(func() { env.pubsub.Close() })
	env.sams, err = samsserver.Start(t.Context(), samsserver.Options{})
	env.must(err)
	t.Cleanup(func() { env.sams.Close() })
	env.gateway, err = gatewayserver.Start(t.Context(), gatewayserver.Options{Introspector: env.sams, Discard: true})
	env.must(err)
	t.Cleanup(func() { env.gateway.Close() })
	for _, err := range []error{
		env.pubsub.CreateTopic(runbookMain), env.pubsub.CreateTopic(runbookDLQ),
		env.pubsub.CreateSubscription(runbookSub, runbookMain), env.pubsub.CreateSubscription(runbookDLQSub, runbookDLQ),
		env.pubsub.CreateSubscription(runbookView, runbookDLQ),
	} {
		env.must(err)
	}
	for _, m := range messages {
		_, err := env.pubsub.Publish(runbookDLQ, m)
		env.must(err)
	}
	self, err := os.Executable()
	env.must(err)
	bin := t.TempDir()
	env.must(os.Symlink(self, filepath.Join(bin, "worker")))
	env.environ = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + env.dir, "USER=kim", "LC_ALL=C.UTF-8", actAsWorker + "=1",
		"GOOGLE_CLOUD_PROJECT=" + runbookProject, "PUBSUB_EMULATOR_HOST=" + env.pubsub.Addr(),
		"ENVIRONMENT_ID=prod", "WORKER_SERVICES=" + runbookServices, "DLQ_VIEW_SUBSCRIPTION=telemetry-events-dlq-view",
	}
	host := func(url string) string { return strings.TrimPrefix(url, "http://") }
	env.names = strings.NewReplacer(
		env.gateway.URL(), "https://telemetry-gateway.sourcegraph.com", host(env.gateway.URL()), "telemetry-gateway.sourcegraph.com:443",
		env.sams.URL(), "https://accounts.sourcegraph.com", host(env.sams.URL()), "accounts.sourcegraph.com:443",
		env.dir+"/", "")
	return env
}

func (env *docEnv) must(err error) {
	env.t.Helper()
	if err != nil {
		env.t.Fatal(err)
	}
}

// output collects the output of a process, and can be read while the process runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// run starts `worker run`; wait waits for its end.
func (env *docEnv) run(vars ...string) (wait func()) {
	env.t.Helper()
	// The commands of a page with a worker have the worker's variables.
	env.environ = append(env.environ,
		"TELEMETRY_GATEWAY_URL="+env.gateway.URL(), "SAMS_URL="+env.sams.URL(), "WORKER_INSECURE_DEV=true",
		"SAMS_CLIENT_ID="+env.sams.ClientID(), "SAMS_CLIENT_SECRET="+env.sams.ClientSecret())
	env.shell("worker setup --yes") // gives the resources their recommended settings
	env.worker = &output{}
	cmd := exec.Command(env.path("worker"), "run")
	cmd.Env = append(slices.Clone(env.environ), append([]string{
		"WORKER_MODE=drain", "WORKER_DRAIN_IDLE=2s", "WORKER_BATCH_MAX_DELAY=50ms", "WORKER_SHUTDOWN_TIMEOUT=2s",
	}, vars...)...)
	cmd.Stdout, cmd.Stderr = env.worker, env.worker
	env.must(cmd.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it may be killed
	}()
	env.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-done
		if env.t.Failed() {
			env.t.Logf("the worker says:\n%s", env.worker)
		}
	})
	return func() {
		select {
		case <-done:
		case <-time.After(4 * time.Minute): // an event is left out for a minute at least before it is rejected
			env.t.Fatal("the worker does not end")
		}
	}
}

// path finds a program where the page's commands find it.
func (env *docEnv) path(program string) string {
	for _, v := range env.environ {
		if list, ok := strings.CutPrefix(v, "PATH="); ok {
			return filepath.Join(filepath.SplitList(list)[0], program)
		}
	}
	return program
}

// serve starts a worker in continuous mode, with its endpoints at $WORKER_URL. It waits
// until the worker has logged a text, and an endpoint has all of the texts in says.
func (env *docEnv) serve(logs, path string, says ...string) {
	env.t.Helper()
	addr, err := testenv.FreeAddr()
	env.must(err)
	env.run("WORKER_MODE=continuous", "WORKER_DIAGNOSTICS_ADDR="+addr, "DIAGNOSTICS_SECRET=local-diagnostics")
	env.environ = append(env.environ, "WORKER_URL=http://"+addr, "DIAGNOSTICS_SECRET=local-diagnostics")
	env.eventually("the worker logs "+logs, func() bool { return strings.Contains(env.worker.String(), logs) })
	env.eventually(fmt.Sprintf("%s says %q", path, says), func() bool {
		got := env.shell(`curl -s -H "Authorization: Bearer $DIAGNOSTICS_SECRET" $WORKER_URL` + path)
		return !slices.ContainsFunc(says, func(part string) bool { return !strings.Contains(got, part) })
	})
}

// publish publishes events to the topic.
func (env *docEnv) publish(messages ...*pubsubpb.PubsubMessage) {
	env.t.Helper()
	_, err := env.pubsub.Publish(runbookMain, messages...)
	env.must(err)
}

// good makes n valid events.
func good(n int) []*pubsubpb.PubsubMessage {
	all := make([]*pubsubpb.PubsubMessage, n)
	for i := range all {
		all[i] = &pubsubpb.PubsubMessage{
			Data:       fmt.Appendf(nil, `{"feature":"cody.chat","action":"sent","id":"019aa000-0000-7000-8000-9%011d"}`, i),
			Attributes: map[string]string{"service_id": "cody-gateway"},
		}
	}
	return all
}

// situations bring about the situation that a page describes, by the name of the page.
var situations = map[string]func(*docEnv){
	"plan": func(env *docEnv) {
		env.environ = append(env.environ, "RECEIPTS_TOPIC=telemetry-events-receipts", "RECEIPTS_SUBSCRIPTION=telemetry-events-receipts-oncall")
		env.serve("The gateway accepts", "/-/readyz")
	},
	"TelemetryRelayOldestHeldTooOld": func(env *docEnv) {
		env.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
			return gatewayserver.Fault{Hang: true}
		})
		env.publish(good(12)...)
		env.environ = append(env.environ, "WORKER_SUBMIT_TIMEOUT=90s") // so that it still hangs while the page's commands run
		env.serve("The gateway accepts", "/metrics", "events_in_flight 12\n")
	},
	"TelemetryRelayGatewaySlow": func(env *docEnv) {
		env.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
			return gatewayserver.Fault{Hang: true}
		})
		env.publish(good(12)...)
		env.environ = append(env.environ, "WORKER_SUBMIT_TIMEOUT=90s") // so that it still waits while the page's commands run
		env.serve("The gateway accepts", "/metrics", "submissions_in_flight 1\n")
	},
	"TelemetryRelayEventsUndecided": func(env *docEnv) {
		lone := good(1)
		env.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) (f gatewayserver.Fault) {
			f.OmitAll = true
			return f
		})
		env.publish(lone...)
		env.environ = append(env.environ, "WORKER_MODE=continuous")
		env.serve("The gateway accepts", "/metrics", "events_undecided 1\n")
	},
	"TelemetryRelayGatewayAway": func(env *docEnv) {
		env.gateway.SetDown(true)
		env.publish(good(12)...)
		env.serve("Not delivering", "/-/readyz", "gateway is not available")
	},
	"TelemetryRelaySAMSAway": func(env *docEnv) {
		env.publish(good(12)...)
		env.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
			return http.StatusServiceUnavailable, "upstream connect error", 0, true
		})
		env.serve("Not delivering", "/-/readyz", "SAMS")
	},
	"TelemetryRelayDeadLetterWritesFailing": func(env *docEnv) {
		messages := good(12)
		for _, m := range messages[:5] {
			m.Data = []byte(`{"feature":"cody.chat"}`)
		}
		env.publish(messages...)
		env.pubsub.SetFault(deadLetterTopicRefuses)
		env.serve("The dead-letter topic does not take messages", "/-/readyz", "dead-letter")
		env.pubsub.SetPermit(func(resource, permission string) bool {
			return resource != runbookDLQ || permission != "pubsub.topics.publish"
		})
	},
	"TelemetryRelayBooksDoNotBalance": func(env *docEnv) {
		env.publish(good(50)...)
		env.publish(badEvents()[:9]...)
		env.serve("The gateway accepts", "/metrics", `events_rejected_total{reason="invalid_event",service="sams"} 9`,
			`events_submitted_total{service="cody-gateway"} 50`, "events_in_flight 0\n")
	},
	"TelemetryRelayJobEndsAtDeadline": func(env *docEnv) {
		env.publish(good(50)...)
		env.run("WORKER_DRAIN_IDLE=5m", "JOB_EXECUTION_DEADLINE=14s")()
	},
	"TelemetryRelayNoStream": func(env *docEnv) {
		env.pubsub.SetFault(func(method string, _ any) error {
			if method == "StreamingPull" {
				return status.Error(codes.Unavailable, "The service is currently unavailable.")
			}
			return nil
		})
		env.serve("No stream from Pub/Sub is open", "/metrics", "pubsub_streams 0\n")
	},
	"TelemetryRelayStreamsRefused": func(env *docEnv) {
		env.pubsub.RefuseStreams(-1, status.Error(codes.PermissionDenied, "User not authorized to perform this action."))
		env.serve("Pub/Sub refuses a stream", "/metrics", "pubsub_streams 0\n")
		env.pubsub.SetPermit(func(resource, permission string) bool {
			return resource != runbookSub || permission != "pubsub.subscriptions.consume"
		})
	},
	"TelemetryRelayDrainUnproven": func(env *docEnv) {
		env.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
			env.pubsub.SilenceStreams(runbookSub)
			return gatewayserver.Fault{}
		})
		env.publish(good(50)...)
		env.run("JOB_EXECUTION_DEADLINE=12s")()
	},
	"TelemetryRelayJobNotSucceeding": func(env *docEnv) {
		env.gateway.SetDown(true)
		env.run("WORKER_DRAIN_IDLE=5m", "JOB_EXECUTION_DEADLINE=12s")()
	},
}

// deadLetterTopicRefuses is the fault of a dead-letter topic to which the worker may not
// publish.
func deadLetterTopicRefuses(method string, req any) error {
	if p, ok := req.(*pubsubpb.PublishRequest); ok && method == "Publish" && p.GetTopic() == runbookDLQ {
		return status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
	}
	return nil
}

var submissions = regexp.MustCompile(`\d+ answers in \d+ submissions`)

// exampleQueue makes the dead-lettered messages that the pages show. A worker dead-letters
// bad events, and events that the gateway refuses or leaves out; their times are moved to
// exampleDay. Others are as Pub/Sub's own dead-letter policy would write them, and one has
// no reason.
func exampleQueue(t *testing.T) []*pubsubpb.PubsubMessage {
	t.Helper()
	env := newRunbookEnv(t, nil)
	bad := badEvents()
	for _, m := range bad {
		env.publish(m)
	}
	env.publish(good(50)...)
	for _, m := range good(20) {
		m.Attributes["service_id"] = "sams"
		env.publish(m)
	}
	env.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) (f gatewayserver.Fault) {
		for _, e := range events {
			switch e.GetAction() {
			case "leftOut":
				f.Omit = append(f.Omit, e.GetId())
			case "refused":
				f.Err = status.Error(codes.InvalidArgument, "invalid event")
			}
		}
		return f
	})
	wait := env.run("WORKER_REJECT_AFTER=5")
	// A verdict on an event that is left out needs other events that are recorded, so that
	// there is some traffic until all events have a verdict.
	more := good(3000)[50:]
	for deadline := time.Now().Add(2 * time.Minute); len(env.pubsub.Messages(runbookDLQSub)) < len(bad) && time.Now().Before(deadline); {
		env.publish(more[:3]...)
		more = more[3:]
		time.Sleep(200 * time.Millisecond) // the rate of the traffic
	}
	wait()
	messages := env.pubsub.Messages(runbookDLQSub)
	if len(messages) != len(bad) {
		t.Fatalf("%d dead-lettered messages, want %d; the worker says:\n%s", len(messages), len(bad), env.worker)
	}
	number := func(m *pubsubpb.PubsubMessage) int {
		n, err := strconv.Atoi(m.GetAttributes()["dlq_message_id"])
		env.must(err)
		return n
	}
	slices.SortFunc(messages, func(a, b *pubsubpb.PubsubMessage) int { return cmp.Compare(number(a), number(b)) })
	at := time.Date(2026, time.November, 20, 1, 47, 9, 0, time.UTC)
	var all []*pubsubpb.PubsubMessage
	for i, m := range messages {
		at = at.Add(time.Duration(7+i%13) * time.Second)
		a := maps.Clone(m.GetAttributes())
		a["dlq_message_id"] = strconv.Itoa(13_411_870_000_000_000 + 977*i)
		a["dlq_publish_time"] = at.Add(-340 * time.Millisecond).Format(time.RFC3339Nano)
		a["dlq_rejected_at"] = at.Format(time.RFC3339Nano)
		a["dlq_worker_version"] = "2026.46.2"
		if strings.HasPrefix(a["dlq_reason"], "gateway") { // the number of tries depends on timing
			a["dlq_attempts"] = "6"
			a["dlq_detail"] = submissions.ReplaceAllString(a["dlq_detail"], "5 answers in 6 submissions")
		}
		all = append(all, &pubsubpb.PubsubMessage{Data: m.GetData(), Attributes: a})
	}
	for i, m := range good(7) {
		m.Attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = "100"
		m.Attributes["CloudPubSubDeadLetterSourceSubscription"] = "telemetry-events-relay"
		m.Attributes["CloudPubSubDeadLetterSourceSubscriptionProject"] = runbookProject
		m.Attributes["CloudPubSubDeadLetterSourceTopicPublishTime"] = at.Add(time.Duration(i) * time.Second).Format(time.RFC3339Nano)
		all = append(all, m)
	}
	return append(all, &pubsubpb.PubsubMessage{Data: []byte("test, please ignore"), Attributes: map[string]string{"from": "somebody"}})
}

// badEvents makes the bad events of the example queue.
func badEvents() []*pubsubpb.PubsubMessage {
	var all []*pubsubpb.PubsubMessage
	add := func(times int, service, data string, attributes ...string) {
		for range times {
			m := &pubsubpb.PubsubMessage{Attributes: map[string]string{"service_id": service, "service_version": "1.84.0"}}
			for i := 0; i < len(attributes); i += 2 {
				m.Attributes[attributes[i]] = attributes[i+1]
			}
			id := fmt.Sprintf("019aa000-0000-7000-8000-%012d", len(all)+1)
			m.Data = fmt.Appendf(nil, data, id)
			all = append(all, m)
		}
	}
	add(40, "sams", `{"feature":"sams.user","action":"signedIn","id":"%s","user":{"userId":"4711"},"privateMetadata":{"email":"someone@example.com"}}`)
	add(9, "cody-gateway", `{"feature":"cody.chat","action":"sent","id":"%s","metadata":{"tier":1},"privatMetadata":{"model":"large"}}`)
	add(3, "cody-gateway", `{"feature":"cody_chat","action":"sent","id":"%s"}`)
	add(12, "cody-web", `{"feature":"cody.chat","action":"sent","id":"%s","client":{"name":"web"}}`)
	add(2, "smas", `{"feature":"sams.user","action":"signedIn","id":"%s"}`)
	add(3, "cody-gateway", `{"feature":"cody.chat","action":"sent","id":"%s","interaction":{"traceId":"23961c`)
	add(6, "pings", `{"feature":"pings.instance","action":"seen","id":"%s","privateMetadata":{"host":"sourcegraph.example.com"}}`)
	add(1, "cody-gateway", `{"feature":"cody.context","action":"sent","id":"%s","privateMetadata":{"file":"`+strings.Repeat("<", 1_700_000)+`"}}`)
	add(4, "cody-gateway", `{"feature":"cody.chat","action":"sent","id":"%s","mood":"good"}`, "schema_version", "2")
	add(5, "sams", `{"feature":"sams.session","action":"leftOut","id":"%s"}`)
	add(2, "cody-gateway", `{"feature":"cody.chat","action":"refused","id":"%s"}`)
	return all
}
