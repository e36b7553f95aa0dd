package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net"
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

// world is where a page's commands run: a Pub/Sub with letters, and whatever the
// page is about.
type world struct {
	t       *testing.T
	pubsub  *pubsubserver.Server
	sams    *samsserver.Server
	gateway *gatewayserver.Server
	dir     string   // where the commands run
	environ []string // what they see
	// names are what addresses of the test are called in the pages.
	names *strings.Replacer
	// worker is what the page's worker logs, if it has one.
	worker *output
}

func newWorld(t *testing.T, letters []*pubsubpb.PubsubMessage) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	var err error
	w.pubsub, err = pubsubserver.Start(t.Context(), pubsubserver.Options{PullWait: 40 * time.Millisecond})
	w.must(err)
	t.Cleanup(func() { w.pubsub.Close() })
	w.sams, err = samsserver.Start(t.Context(), samsserver.Options{})
	w.must(err)
	t.Cleanup(func() { w.sams.Close() })
	w.gateway, err = gatewayserver.Start(t.Context(), gatewayserver.Options{Introspector: w.sams, Discard: true})
	w.must(err)
	t.Cleanup(func() { w.gateway.Close() })
	for _, err := range []error{
		w.pubsub.CreateTopic(runbookMain), w.pubsub.CreateTopic(runbookDLQ),
		w.pubsub.CreateSubscription(runbookSub, runbookMain), w.pubsub.CreateSubscription(runbookDLQSub, runbookDLQ),
		w.pubsub.CreateSubscription(runbookView, runbookDLQ),
	} {
		w.must(err)
	}
	for _, m := range letters {
		_, err := w.pubsub.Publish(runbookDLQ, m)
		w.must(err)
	}
	self, err := os.Executable()
	w.must(err)
	bin := t.TempDir()
	w.must(os.Symlink(self, filepath.Join(bin, "worker")))
	w.environ = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + w.dir, "USER=kim", "LC_ALL=C.UTF-8", actAsWorker + "=1",
		"GOOGLE_CLOUD_PROJECT=" + runbookProject, "PUBSUB_EMULATOR_HOST=" + w.pubsub.Addr(),
		"ENVIRONMENT_ID=prod", "WORKER_SERVICES=" + runbookServices, "DLQ_VIEW_SUBSCRIPTION=telemetry-events-dlq-view",
	}
	host := func(url string) string { return strings.TrimPrefix(url, "http://") }
	w.names = strings.NewReplacer(
		w.gateway.URL(), "https://telemetry-gateway.sourcegraph.com", host(w.gateway.URL()), "telemetry-gateway.sourcegraph.com:443",
		w.sams.URL(), "https://accounts.sourcegraph.com", host(w.sams.URL()), "accounts.sourcegraph.com:443",
		w.dir+"/", "")
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// output is what a process writes, readable meanwhile.
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
func (w *world) run(vars ...string) (wait func()) {
	w.t.Helper()
	// Pages that have a worker may use what it has.
	w.environ = append(w.environ,
		"TELEMETRY_GATEWAY_URL="+w.gateway.URL(), "SAMS_URL="+w.sams.URL(), "WORKER_INSECURE_DEV=true",
		"SAMS_CLIENT_ID="+w.sams.ClientID(), "SAMS_CLIENT_SECRET="+w.sams.ClientSecret())
	w.shell("worker setup --yes") // with the settings that it should have
	w.worker = &output{}
	cmd := exec.Command(w.path("worker"), "run")
	cmd.Env = append(slices.Clone(w.environ), append([]string{
		"WORKER_MODE=drain", "WORKER_DRAIN_IDLE=2s", "WORKER_BATCH_MAX_DELAY=50ms", "WORKER_SHUTDOWN_TIMEOUT=2s",
	}, vars...)...)
	cmd.Stdout, cmd.Stderr = w.worker, w.worker
	w.must(cmd.Start())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it may be killed
	}()
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-done
		if w.t.Failed() {
			w.t.Logf("the worker says:\n%s", w.worker)
		}
	})
	return func() {
		select {
		case <-done:
		case <-time.After(4 * time.Minute): // an event is left out for a minute at least before it is rejected
			w.t.Fatal("the worker does not end")
		}
	}
}

// path finds a program where the page's commands find it.
func (w *world) path(program string) string {
	for _, v := range w.environ {
		if list, ok := strings.CutPrefix(v, "PATH="); ok {
			return filepath.Join(filepath.SplitList(list)[0], program)
		}
	}
	return program
}

// serve starts a worker that goes on, with endpoints that the page finds at
// $WORKER_URL, and waits until it has logged something and one of its endpoints
// says something, too.
func (w *world) serve(logs, path string, says ...string) {
	w.t.Helper()
	l, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	w.must(err)
	addr := l.Addr().String()
	w.must(l.Close())
	w.run("WORKER_MODE=continuous", "WORKER_DIAGNOSTICS_ADDR="+addr, "DIAGNOSTICS_SECRET=local-diagnostics")
	w.environ = append(w.environ, "WORKER_URL=http://"+addr, "DIAGNOSTICS_SECRET=local-diagnostics")
	w.eventually("the worker logs "+logs, func() bool { return strings.Contains(w.worker.String(), logs) })
	w.eventually(fmt.Sprintf("%s says %q", path, says), func() bool {
		got := w.shell(`curl -s -H "Authorization: Bearer $DIAGNOSTICS_SECRET" $WORKER_URL` + path)
		return !slices.ContainsFunc(says, func(part string) bool { return !strings.Contains(got, part) })
	})
}

// publish publishes events to the topic.
func (w *world) publish(messages ...*pubsubpb.PubsubMessage) {
	w.t.Helper()
	_, err := w.pubsub.Publish(runbookMain, messages...)
	w.must(err)
}

// good are valid events.
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

// situations are what has happened where a page is read.
var situations = map[string]func(*world){
	"plan": func(w *world) {
		w.environ = append(w.environ, "RECEIPTS_TOPIC=telemetry-events-receipts", "RECEIPTS_SUBSCRIPTION=telemetry-events-receipts-oncall")
		w.serve("The gateway accepts", "/-/readyz")
	},
	"TelemetryRelayOldestHeldTooOld": func(w *world) {
		w.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
			return gatewayserver.Fault{Hang: true}
		})
		w.publish(good(12)...)
		w.environ = append(w.environ, "WORKER_SUBMIT_TIMEOUT=90s") // so that it still hangs when the page is read
		w.serve("The gateway accepts", "/metrics", "events_in_flight 12\n")
	},
	"TelemetryRelayGatewaySlow": func(w *world) {
		w.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
			return gatewayserver.Fault{Hang: true}
		})
		w.publish(good(12)...)
		w.environ = append(w.environ, "WORKER_SUBMIT_TIMEOUT=90s") // so that it still waits when the page is read
		w.serve("The gateway accepts", "/metrics", "submissions_in_flight 1\n")
	},
	"TelemetryRelayEventsUndecided": func(w *world) {
		lone := good(1)
		w.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) (f gatewayserver.Fault) {
			f.OmitAll = true
			return f
		})
		w.publish(lone...)
		w.environ = append(w.environ, "WORKER_MODE=continuous")
		w.serve("The gateway accepts", "/metrics", "events_undecided 1\n")
	},
	"TelemetryRelayGatewayAway": func(w *world) {
		w.gateway.SetDown(true)
		w.publish(good(12)...)
		w.serve("Not delivering", "/-/readyz", "gateway is not available")
	},
	"TelemetryRelaySAMSAway": func(w *world) {
		w.publish(good(12)...)
		w.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
			return http.StatusServiceUnavailable, "upstream connect error", 0, true
		})
		w.serve("Not delivering", "/-/readyz", "SAMS")
	},
	"TelemetryRelayDeadLetterWritesFailing": func(w *world) {
		messages := good(12)
		for _, m := range messages[:5] {
			m.Data = []byte(`{"feature":"cody.chat"}`)
		}
		w.publish(messages...)
		w.pubsub.SetFault(deadLetterTopicRefuses)
		w.serve("The dead-letter topic does not take messages", "/-/readyz", "dead-letter")
		w.pubsub.SetPermit(func(resource, permission string) bool {
			return resource != runbookDLQ || permission != "pubsub.topics.publish"
		})
	},
	"TelemetryRelayBooksDoNotBalance": func(w *world) {
		w.publish(good(50)...)
		w.publish(badEvents()[:9]...)
		w.serve("The gateway accepts", "/metrics", `events_rejected_total{reason="invalid_event",service="sams"} 9`,
			`events_submitted_total{service="cody-gateway"} 50`, "events_in_flight 0\n")
	},
	"TelemetryRelayJobEndsAtDeadline": func(w *world) {
		w.publish(good(50)...)
		w.run("WORKER_DRAIN_IDLE=5m", "JOB_EXECUTION_DEADLINE=14s")()
	},
	"TelemetryRelayNoStream": func(w *world) {
		w.pubsub.SetFault(func(method string, _ any) error {
			if method == "StreamingPull" {
				return status.Error(codes.Unavailable, "The service is currently unavailable.")
			}
			return nil
		})
		w.serve("No stream from Pub/Sub is open", "/metrics", "pubsub_streams 0\n")
	},
	"TelemetryRelayStreamsRefused": func(w *world) {
		w.pubsub.RefuseStreams(-1, status.Error(codes.PermissionDenied, "User not authorized to perform this action."))
		w.serve("Pub/Sub refuses a stream", "/metrics", "pubsub_streams 0\n")
		w.pubsub.SetPermit(func(resource, permission string) bool {
			return resource != runbookSub || permission != "pubsub.subscriptions.consume"
		})
	},
	"TelemetryRelayDrainUnproven": func(w *world) {
		w.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
			w.pubsub.SilenceStreams(runbookSub)
			return gatewayserver.Fault{}
		})
		w.publish(good(50)...)
		w.run("JOB_EXECUTION_DEADLINE=12s")()
	},
	"TelemetryRelayJobNotSucceeding": func(w *world) {
		w.gateway.SetDown(true)
		w.run("WORKER_DRAIN_IDLE=5m", "JOB_EXECUTION_DEADLINE=12s")()
	},
}

// deadLetterTopicRefuses is a dead-letter topic on which the worker may not publish.
func deadLetterTopicRefuses(method string, req any) error {
	if p, ok := req.(*pubsubpb.PublishRequest); ok && method == "Publish" && p.GetTopic() == runbookDLQ {
		return status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
	}
	return nil
}

var submissions = regexp.MustCompile(`\d+ answers in \d+ submissions`)

// night makes the dead letters of one night: what the worker itself makes of bad
// events and of a gateway that does not take some, with the times of another
// day, what Pub/Sub has dead-lettered, and something of somebody else.
func night(t *testing.T) []*pubsubpb.PubsubMessage {
	t.Helper()
	w := newWorld(t, nil)
	bad := badEvents()
	for _, m := range bad {
		w.publish(m)
	}
	w.publish(good(50)...)
	for _, m := range good(20) {
		m.Attributes["service_id"] = "sams"
		w.publish(m)
	}
	w.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) (f gatewayserver.Fault) {
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
	wait := w.run("WORKER_REJECT_AFTER=5")
	// A verdict on an event that is left out needs others that are recorded, so there is
	// some traffic until all are judged.
	more := good(3000)[50:]
	for deadline := time.Now().Add(2 * time.Minute); len(w.pubsub.Messages(runbookDLQSub)) < len(bad) && time.Now().Before(deadline); {
		w.publish(more[:3]...)
		more = more[3:]
		time.Sleep(200 * time.Millisecond) // the rate of the traffic
	}
	wait()
	letters := w.pubsub.Messages(runbookDLQSub)
	if len(letters) != len(bad) {
		t.Fatalf("%d dead letters, want %d; the worker says:\n%s", len(letters), len(bad), w.worker)
	}
	number := func(m *pubsubpb.PubsubMessage) int {
		n, err := strconv.Atoi(m.GetAttributes()["dlq_message_id"])
		w.must(err)
		return n
	}
	slices.SortFunc(letters, func(a, b *pubsubpb.PubsubMessage) int { return cmp.Compare(number(a), number(b)) })
	at := time.Date(2026, time.November, 20, 1, 47, 9, 0, time.UTC)
	var all []*pubsubpb.PubsubMessage
	for i, m := range letters {
		at = at.Add(time.Duration(7+i%13) * time.Second)
		a := maps.Clone(m.GetAttributes())
		a["dlq_message_id"] = strconv.Itoa(13_411_870_000_000_000 + 977*i)
		a["dlq_publish_time"] = at.Add(-340 * time.Millisecond).Format(time.RFC3339Nano)
		a["dlq_rejected_at"] = at.Format(time.RFC3339Nano)
		a["dlq_worker_version"] = "2026.46.2"
		if strings.HasPrefix(a["dlq_reason"], "gateway") { // how often it was tried depends on what else was on its way
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

// badEvents are what the services get wrong in that night.
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
