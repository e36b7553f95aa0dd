package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

const (
	project     = "test-project"
	topicName   = "projects/" + project + "/topics/telemetry-events"
	subName     = "projects/" + project + "/subscriptions/telemetry-events-relay"
	dlqName     = "projects/" + project + "/topics/telemetry-events-dlq"
	dlqSubName  = "projects/" + project + "/subscriptions/telemetry-events-dlq-oncall"
	testService = `{unknownServices: reject, services: [{id: cody-gateway}, {id: sams, environments: [dev, test]}, {id: pings, privateMetadata: reject}]}`
)

// env is everything around the worker.
type env struct {
	t       *testing.T
	pubsub  *pubsubserver.Server
	sams    *samsserver.Server
	gateway *gatewayserver.Server
	log     testenv.Buffer
}

// startPubSub starts an embedded Pub/Sub, which ends with the test.
func startPubSub(t *testing.T) *pubsubserver.Server {
	t.Helper()
	server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func newEnv(t *testing.T) *env {
	t.Helper()
	h := &env{t: t}
	h.pubsub = startPubSub(t)
	var err error
	if h.sams, err = samsserver.Start(t.Context(), samsserver.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.check(h.sams.Close()) })
	if h.gateway, err = gatewayserver.Start(t.Context(), gatewayserver.Options{Introspector: h.sams}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.check(h.gateway.Close()) })
	h.check(h.pubsub.CreateTopic(topicName))
	h.check(h.pubsub.CreateTopic(dlqName))
	h.check(h.pubsub.CreateSubscription(subName, topicName))
	h.check(h.pubsub.CreateSubscription(dlqSubName, dlqName))
	return h
}

func (h *env) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Error(err)
	}
}

// config returns a drain's settings with the changes of vars.
func (h *env) config(vars ...string) *config.Config {
	h.t.Helper()
	environ := append([]string{
		"GOOGLE_CLOUD_PROJECT=" + project,
		"PUBSUB_EMULATOR_HOST=" + h.pubsub.Addr(),
		"TELEMETRY_GATEWAY_URL=" + h.gateway.URL(),
		"SAMS_URL=" + h.sams.URL(),
		"SAMS_CLIENT_ID=" + h.sams.ClientID(),
		"SAMS_CLIENT_SECRET=" + h.sams.ClientSecret(),
		"ENVIRONMENT_ID=test",
		"WORKER_INSECURE_DEV=true",
		"WORKER_MODE=drain",
		"WORKER_DRAIN_IDLE=1s",
		"WORKER_BATCH_MAX_DELAY=50ms",
		"WORKER_SERVICES=" + testService,
	}, vars...)
	cfg, err := config.Load(environ, config.ForRun)
	if err != nil {
		h.t.Fatal(err)
	}
	return cfg
}

// run runs the worker to its end.
func (h *env) run(ctx context.Context, vars ...string) (relay.Summary, error) {
	h.t.Helper()
	// The embedded Pub/Sub does not need the intervals of minutes of the real one. But a
	// busy machine needs some time to answer a pull.
	return h.runWith(ctx, consume.Intervals{Pull: 300 * time.Millisecond, Refused: 5 * time.Second}, vars...)
}

// runWith is run with other intervals of the Pub/Sub client.
func (h *env) runWith(ctx context.Context, intervals consume.Intervals, vars ...string) (relay.Summary, error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	summary, err := app.Run(ctx, h.config(vars...), app.Options{
		Version:    "test",
		Logger:     slog.New(slog.NewJSONHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Intervals:  intervals,
		RejectSpan: time.Second,
	})
	if !summary.Balanced(0) {
		h.t.Errorf("the books do not balance: %+v", summary)
	}
	h.t.Cleanup(func() {
		if h.t.Failed() {
			h.t.Logf("summary: %+v\nerror: %v\nlog:\n%s", summary, err, h.log.String())
		}
	})
	return summary, err
}

func (h *env) publish(messages ...*pubsubpb.PubsubMessage) []string {
	h.t.Helper()
	var all []string
	for len(messages) > 0 {
		n := min(len(messages), 1000)
		ids, err := h.pubsub.Publish(topicName, messages[:n]...)
		if err != nil {
			h.t.Fatal(err)
		}
		all, messages = append(all, ids...), messages[n:]
	}
	return all
}

// message makes an event of cody-gateway.
func message(data string, attributes ...string) *pubsubpb.PubsubMessage {
	m := &pubsubpb.PubsubMessage{Data: []byte(data), Attributes: map[string]string{"service_id": "cody-gateway"}}
	for i := 0; i < len(attributes); i += 2 {
		m.Attributes[attributes[i]] = attributes[i+1]
	}
	return m
}

// numbered makes n valid events with ids of their own.
func numbered(n int, attributes ...string) []*pubsubpb.PubsubMessage {
	all := make([]*pubsubpb.PubsubMessage, n)
	for i := range all {
		all[i] = message(fmt.Sprintf(`{"feature":"cody.chat","action":"sent","id":%q,"metadata":{"n":%d}}`, eventID(i), i), attributes...)
	}
	return all
}

func eventID(i int) string { return fmt.Sprintf("019a0000-0000-7000-8000-%012d", i) }

// deadLetters are the messages in the dead-letter queue.
func (h *env) deadLetters() []*pubsubpb.PubsubMessage { return h.pubsub.Messages(dlqSubName) }

// recordedIDs counts how often each event was recorded.
func (h *env) recordedIDs() map[string]int {
	ids := map[string]int{}
	for _, r := range h.gateway.Recorded() {
		ids[r.Event.GetId()]++
	}
	return ids
}

// once checks that the events 0 to n-1 were recorded exactly once, apart from
// some.
func (h *env) once(n int, apart ...int) {
	h.t.Helper()
	ids := h.recordedIDs()
	missing := map[int]bool{}
	for _, i := range apart {
		missing[i] = true
	}
	for i := range n {
		want := 1
		if missing[i] {
			want = 0
		}
		if got := ids[eventID(i)]; got != want {
			h.t.Errorf("event %d was recorded %d times, want %d", i, got, want)
		}
	}
}

func (h *env) empty() {
	h.t.Helper()
	if left := h.pubsub.Messages(subName); len(left) != 0 {
		h.t.Errorf("%d messages are left in the subscription", len(left))
	}
}

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
