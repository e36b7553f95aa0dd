package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

const (
	topicID  = "telemetry-events"
	subID    = "telemetry-events-relay"
	dlqID    = "telemetry-events-dlq"
	dlqSubID = "telemetry-events-dlq-oncall"
	// The ledger's subscription gets all published messages, whatever the worker does.
	ledgerID = "ledger"
	// copyUnacked sets this one to the messages that the worker has not acknowledged.
	unackedID = "unacked"

	clientID     = "relay-client"
	clientSecret = "s3cr3t-0f-the-relay"

	patience = testenv.Patience
	// busy is how much a slow machine may add to a time that the worker keeps.
	busy = 45 * time.Second

	// services extends the services of the sample events by one of each policy.
	services = `{unknownServices: reject, services: [
		{id: cody-analytics}, {id: cody-gateway}, {id: enterprise-portal}, {id: pings}, {id: sams},
		{id: strict, environments: [dev, prod], features: ["strict.*"], privateMetadata: reject},
		{id: dropper, privateMetadata: drop}]}`
)

// connections has one connection per emulator.
var connections clientConns

type clientConns struct {
	mu  sync.Mutex
	all map[string]*grpc.ClientConn
}

func (c *clientConns) get(t *testing.T, host string) *grpc.ClientConn {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all[host] == nil {
		conn, err := grpc.NewClient(host, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
		if err != nil {
			t.Fatal(err)
		}
		if c.all == nil {
			c.all = map[string]*grpc.ClientConn{}
		}
		c.all[host] = conn
	}
	return c.all[host]
}

func (c *clientConns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for host, conn := range c.all {
		conn.Close()
		delete(c.all, host)
	}
}

var projects atomic.Int64

// env is the worker's environment, in a Pub/Sub project of its own.
type env struct {
	t       *testing.T
	host    string // of Pub/Sub
	project string
	topics  pubsubpb.PublisherClient
	subs    pubsubpb.SubscriberClient
	sams    *samsserver.Server
	gateway *gatewayserver.Server
}

// newEnv makes a test parallel and starts the worker's environment, with the emulator as
// its Pub/Sub.
func newEnv(t *testing.T) *env {
	t.Helper()
	t.Parallel()
	h := newEnvOn(t, emulator.Shared(t).Host)
	h.createTopic(topicID)
	h.createTopic(dlqID)
	h.subscribe(subID, topicID)
	h.subscribe(ledgerID, topicID)
	h.subscribe(unackedID, topicID)
	h.subscribe(dlqSubID, dlqID)
	return h
}

// newEnvOn starts the worker's environment without topics and subscriptions, on a Pub/Sub
// that listens on host.
func newEnvOn(t *testing.T, host string) *env {
	t.Helper()
	conn := connections.get(t, host)
	h := &env{
		t:       t,
		host:    host,
		project: fmt.Sprintf("e2e-%d", projects.Add(1)),
		topics:  pubsubpb.NewPublisherClient(conn),
		subs:    pubsubpb.NewSubscriberClient(conn),
	}
	var err error
	if h.sams, err = samsserver.Start(t.Context(), samsserver.Options{ClientID: clientID, ClientSecret: clientSecret}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.check(h.sams.Close()) })
	if h.gateway, err = gatewayserver.Start(t.Context(), gatewayserver.Options{Introspector: h.sams}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.check(h.gateway.Close())
		if lost := h.gateway.SilentlyLost(); lost != 0 {
			t.Errorf("%d events were silently lost", lost)
		}
		if invalid := h.gateway.Stats().Invalid; invalid != 0 {
			t.Errorf("%d events were sent that the gateway can never record", invalid)
		}
	})
	return h
}

func (h *env) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Error(err)
	}
}

func (h *env) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// context bounds one call of Pub/Sub's.
func (h *env) context() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *env) topic(id string) string { return "projects/" + h.project + "/topics/" + id }
func (h *env) subscription(id string) string {
	return "projects/" + h.project + "/subscriptions/" + id
}

func (h *env) createTopic(id string) {
	h.t.Helper()
	_, err := h.topics.CreateTopic(h.context(), &pubsubpb.Topic{Name: h.topic(id)})
	h.must(err)
}

func (h *env) deleteTopic(id string) {
	h.t.Helper()
	_, err := h.topics.DeleteTopic(h.context(), &pubsubpb.DeleteTopicRequest{Topic: h.topic(id)})
	h.must(err)
}

func (h *env) deleteSubscription(id string) {
	h.t.Helper()
	_, err := h.subs.DeleteSubscription(h.context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: h.subscription(id)})
	h.must(err)
}

func (h *env) subscribe(id, topic string) {
	h.t.Helper()
	_, err := h.subs.CreateSubscription(h.context(), &pubsubpb.Subscription{
		Name: h.subscription(id), Topic: h.topic(topic), AckDeadlineSeconds: 60,
		EnableMessageOrdering: id == ledgerID, // to receive ordering keys
	})
	h.must(err)
}

// publish publishes to the topic and returns the message ids.
func (h *env) publish(messages ...*pubsubpb.PubsubMessage) []string {
	h.t.Helper()
	var ids []string
	for chunk := range slices.Chunk(messages, 1000) {
		response, err := h.topics.Publish(h.context(), &pubsubpb.PublishRequest{Topic: h.topic(topicID), Messages: chunk})
		h.must(err)
		ids = append(ids, response.GetMessageIds()...)
	}
	return ids
}

// take takes all available messages of a subscription, and requires this many.
func (h *env) take(subscription string, want int) []*pubsubpb.PubsubMessage {
	h.t.Helper()
	all := h.takeAll(subscription, want)
	if len(all) != want {
		h.t.Errorf("%d messages in %s, want %d", len(all), subscription, want)
	}
	return all
}

// takeAll pulls and acknowledges until there are at least this many messages, and no more
// come.
func (h *env) takeAll(subscription string, want int) []*pubsubpb.PubsubMessage {
	h.t.Helper()
	var (
		all   []*pubsubpb.PubsubMessage
		empty int
		until = time.Now().Add(patience)
	)
	// An empty answer does not mean an empty queue, so several are needed.
	for time.Now().Before(until) && (len(all) < want || empty < 3) {
		response, err := h.subs.Pull(h.context(), &pubsubpb.PullRequest{
			Subscription: h.subscription(subscription), MaxMessages: 1000,
			ReturnImmediately: true, //nolint:staticcheck // Deprecated for consumers that poll; this asks what there is.
		})
		h.must(err)
		received := response.GetReceivedMessages()
		if len(received) == 0 {
			empty++
			pause()
			continue
		}
		empty = 0
		ids := make([]string, len(received))
		for i, r := range received {
			ids[i] = r.GetAckId()
			all = append(all, r.GetMessage())
		}
		_, err = h.subs.Acknowledge(h.context(), &pubsubpb.AcknowledgeRequest{Subscription: h.subscription(subscription), AckIds: ids})
		h.must(err)
	}
	return all
}

// ledger returns all published messages by id.
func (h *env) ledger(want int) map[string]*pubsubpb.PubsubMessage {
	h.t.Helper()
	byID := make(map[string]*pubsubpb.PubsubMessage, want)
	for _, m := range h.take(ledgerID, want) {
		byID[m.GetMessageId()] = m
	}
	return byID
}

// empty requires that all messages in the worker's subscription have been acknowledged:
// none is available, and none is leased.
func (h *env) empty() {
	h.t.Helper()
	h.copyUnacked()
	h.take(unackedID, 0)
}

// copyUnacked makes the subscription unackedID deliver all messages that have not been
// acknowledged in the worker's, leased or not.
func (h *env) copyUnacked() {
	h.t.Helper()
	snapshot := "projects/" + h.project + "/snapshots/unacked"
	_, err := h.subs.CreateSnapshot(h.context(), &pubsubpb.CreateSnapshotRequest{Name: snapshot, Subscription: h.subscription(subID)})
	h.must(err)
	_, err = h.subs.Seek(h.context(), &pubsubpb.SeekRequest{
		Subscription: h.subscription(unackedID), Target: &pubsubpb.SeekRequest_Snapshot{Snapshot: snapshot},
	})
	h.must(err)
}

// recorded counts how often the gateway has recorded each id.
func (h *env) recorded() map[string]int {
	ids := map[string]int{}
	for _, r := range h.gateway.Recorded() {
		ids[r.Event.GetId()]++
	}
	return ids
}

// once requires that the events from first to last, without last, were recorded exactly
// once.
func (h *env) once(first, last int) {
	h.t.Helper()
	ids := h.recorded()
	for i := first; i < last; i++ {
		if got := ids[eventID(i)]; got != 1 {
			h.t.Errorf("event %d was recorded %d times, want once", i, got)
		}
	}
}

// environ returns a drain's environment with the changes of vars. Nothing of the test's own
// environment is in it.
func (h *env) environ(vars ...string) []string {
	return append([]string{
		"GOOGLE_CLOUD_PROJECT=" + h.project,
		"PUBSUB_EMULATOR_HOST=" + h.host,
		"TELEMETRY_GATEWAY_URL=" + h.gateway.URL(),
		"SAMS_URL=" + h.sams.URL(),
		"SAMS_CLIENT_ID=" + clientID,
		"SAMS_CLIENT_SECRET=" + clientSecret,
		"ENVIRONMENT_ID=dev",
		"WORKER_INSECURE_DEV=true",
		"WORKER_MODE=drain",
		"WORKER_DRAIN_IDLE=700ms",
		"WORKER_BATCH_MAX_DELAY=50ms",
		"WORKER_SHUTDOWN_TIMEOUT=4s",
		"WORKER_SERVICES=" + services,
		"LOG_LEVEL=debug",
		"LOG_FORMAT=json",
	}, vars...)
}

// continuous is the mode in which the test ends the run.
const continuous = "WORKER_MODE=continuous"

// within makes a drain end at a deadline after this time.
func within(window time.Duration) []string {
	return []string{
		"WORKER_SHUTDOWN_TIMEOUT=2s", "WORKER_DRAIN_IDLE=5m",
		fmt.Sprintf("JOB_EXECUTION_DEADLINE=%v", window+7*time.Second),
	}
}

// message returns a message of cody-gateway.
func message(data string, attributes ...string) *pubsubpb.PubsubMessage {
	m := &pubsubpb.PubsubMessage{Data: []byte(data), Attributes: map[string]string{"service_id": "cody-gateway"}}
	for i := 0; i < len(attributes); i += 2 {
		m.Attributes[attributes[i]] = attributes[i+1]
	}
	return m
}

// event returns a valid event with an id of its own.
func event(i int, attributes ...string) *pubsubpb.PubsubMessage {
	return message(fmt.Sprintf(`{"feature":"cody.chat","action":"sent","id":%q,"metadata":{"n":%d}}`, eventID(i), i), attributes...)
}

// events returns the events from first to last, without last.
func events(first, last int) []*pubsubpb.PubsubMessage {
	var all []*pubsubpb.PubsubMessage
	for i := first; i < last; i++ {
		all = append(all, event(i))
	}
	return all
}

// invalid returns an event that the worker rejects.
func invalid(i int) *pubsubpb.PubsubMessage {
	return message(fmt.Sprintf(`{"feature":"Bad","action":"sent","id":%q}`, eventID(i)))
}

func eventID(i int) string { return fmt.Sprintf("019a0000-0000-7000-8000-%012d", i) }

// pause is the interval of polling.
func pause() { time.Sleep(20 * time.Millisecond) }

// contains requires that a text has a part.
func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("want %q in:\n%s", part, text)
		}
	}
}

// omits requires that a text does not have a part.
func omits(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			t.Errorf("want no %q in:\n%s", part, text)
		}
	}
}
