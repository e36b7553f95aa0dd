package chaos_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
	"github.com/sourcegraph/telemetry-relay/internal/emulator"
)

const (
	topicID  = "telemetry-events"
	subID    = "telemetry-events-relay"
	dlqID    = "telemetry-events-dlq"
	dlqSubID = "telemetry-events-dlq-oncall"
	// This subscription has all messages, too. A snapshot sets it to the messages that are
	// not acknowledged in the workers' subscription. The last workers use it, because the
	// emulator redelivers some messages of a killed consumer only after minutes, or never
	// while another consumer streams.
	unackedID = "unacked"
	// The last drain uses the messages that are not acknowledged in that subscription. Its
	// own had no consumer before, so all of them are available.
	lastID = "last"
	// The messages that the last drain has not acknowledged.
	restID = "rest"

	clientID      = "relay-client"
	clientSecret  = "s3cr3t-0f-the-relay"
	environmentID = "dev"
	// marker is in private metadata. No other output may have it.
	marker          = "pr1vate-mark"
	feature, action = "chaos.event", "happened"

	// patience bounds the wait for the end once all faults have ended. The verdict on an
	// event that the gateway leaves out takes at least a minute.
	patience = 4 * time.Minute

	services = `{unknownServices: reject, services: [{id: cody-analytics}, {id: cody-gateway}, {id: pings}, {id: sams},
		{id: strict, privateMetadata: reject}]}`
)

// env is everything around the workers.
type env struct {
	t       *testing.T
	seed    uint64
	began   time.Time
	project string
	topics  pubsubpb.PublisherClient
	subs    pubsubpb.SubscriberClient
	link    *proxy // between the workers and Pub/Sub
	sams    *samsserver.Server
	gateway *gatewayserver.Server
	ledger  *ledger
	faults  faults

	mu     sync.Mutex
	story  []string // the faults and their times
	old    []*process
	rng    *rand.Rand // of the publisher
	recent []*entry
	last   *entry // the last healthy one with an id
}

var projects atomic.Int64

func newEnv(t *testing.T, e *emulator.Emulator, seed uint64) *env {
	t.Helper()
	conn, err := grpc.NewClient(e.Host, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := &env{
		t: t, seed: seed, began: time.Now(),
		project: fmt.Sprintf("chaos-%d", projects.Add(1)),
		topics:  pubsubpb.NewPublisherClient(conn), subs: pubsubpb.NewSubscriberClient(conn),
		ledger: newLedger(), rng: rand.New(rand.NewPCG(seed, 1)),
	}
	w.faults.rng = rand.New(rand.NewPCG(seed, 2))
	w.link = newProxy(t, e.Host)
	w.sams, err = samsserver.Start(t.Context(), samsserver.Options{ClientID: clientID, ClientSecret: clientSecret})
	w.must(err)
	t.Cleanup(func() { w.sams.Close() })
	w.gateway, err = gatewayserver.Start(t.Context(), gatewayserver.Options{
		Introspector: w.sams, Discard: true, OnRecord: w.ledger.recorded,
	})
	w.must(err)
	t.Cleanup(func() { w.gateway.Close() })
	w.gateway.SetOnStream(w.onStream)
	w.gateway.SetOnPayload(w.onPayload)
	w.sams.SetFault(w.onToken)
	for _, id := range []string{topicID, dlqID} {
		_, err := w.topics.CreateTopic(w.context(), &pubsubpb.Topic{Name: w.topic(id)})
		w.must(err)
	}
	for sub, topic := range map[string]string{subID: topicID, unackedID: topicID, lastID: topicID, restID: topicID, dlqSubID: dlqID} {
		_, err = w.subs.CreateSubscription(w.context(), &pubsubpb.Subscription{
			Name: w.subscription(sub), Topic: w.topic(topic), AckDeadlineSeconds: 30,
		})
		w.must(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.report()
		}
	})
	return w
}

func (w *env) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *env) context() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *env) topic(id string) string { return "projects/" + w.project + "/topics/" + id }
func (w *env) subscription(id string) string {
	return "projects/" + w.project + "/subscriptions/" + id
}

// note notes an event of the run for the report.
func (w *env) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf("%8.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

// report prints the notes that led to a failure.
func (w *env) report() {
	w.mu.Lock()
	defer w.mu.Unlock()
	const shown = 200
	w.t.Logf("seed %d; what happened:", w.seed)
	for _, s := range w.story[max(0, len(w.story)-shown):] {
		w.t.Log(s)
	}
	for _, p := range w.old[max(0, len(w.old)-12):] {
		w.t.Logf("%s:\nstdout: %sstderr:\n%s", p.name, p.stdout.tail(600), p.stderr.tail(5000))
	}
}

// onStream returns the gateway's fault at the start of a stream.
func (w *env) onStream(gatewayserver.StreamInfo) gatewayserver.Fault {
	switch w.faults.gatewayNow() {
	case down:
		return gatewayserver.Fault{Err: status.Error(codes.Unavailable, "down")}
	case failing:
		return gatewayserver.Fault{Err: status.Error(codes.Internal, "failing")}
	case busy:
		return gatewayserver.Fault{Err: gatewayserver.RetryAfter(codes.ResourceExhausted, "busy", time.Second)}
	case denied:
		return gatewayserver.Fault{Err: status.Error(codes.PermissionDenied, "permission denied")}
	case hanging:
		return gatewayserver.Fault{Hang: true}
	}
	return gatewayserver.Fault{}
}

// onPayload returns the gateway's fault, and its reaction to bad events.
func (w *env) onPayload(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
	var f gatewayserver.Fault
	cut := w.faults.oneIn(5)
	switch w.faults.gatewayNow() {
	case silent:
		f.OmitAll = true
	case slow:
		f.Delay = time.Duration(w.faults.draw(2000)) * time.Millisecond
	case hangingAtTimes:
		f.Hang = cut
	case cuttingBefore, cuttingMidway, cuttingAfter:
		if cut {
			f.Err = status.Error(codes.Unavailable, "cut")
			f.Phase = map[string]gatewayserver.Phase{
				cuttingBefore: gatewayserver.BeforeRecording, cuttingMidway: gatewayserver.BeforeResponding, cuttingAfter: gatewayserver.AfterResponding,
			}[w.faults.gatewayNow()]
		}
	case failing:
		f.Err = status.Error(codes.Internal, "failing")
	}
	for i, k := range w.ledger.kinds(events) {
		switch k {
		case refused: // and the gateway quotes it
			return gatewayserver.Fault{Err: status.Errorf(codes.InvalidArgument, "bad: %s", marker), Delay: f.Delay}
		case undecodable:
			return gatewayserver.Fault{Err: status.Errorf(codes.Internal, "cannot decode %s", marker), Delay: f.Delay}
		case leftOut:
			f.Omit = append(f.Omit, events[i].GetId())
		default:
		}
	}
	return f
}

// mix has how many of a thousand events are of a kind.
type mix map[kind]int

var (
	wild = mix{unsupported: 5, unknownService: 5, malformed: 10, invalid: 10, forbidden: 5, leftOut: 2, refused: 2, undecodable: 1}
	calm = mix{malformed: 3, invalid: 3}
)

// publish publishes n messages, and returns their events.
func (w *env) publish(n int, m mix, quiet bool) (entries []*entry) {
	for range n {
		if !quiet && len(w.recent) > 0 && w.rng.IntN(25) == 0 {
			entries = append(entries, w.recent[w.rng.IntN(len(w.recent))])
			continue
		}
		e := w.ledger.enter(func(n int) *entry { return w.newEntry(n, m, quiet) })
		entries = append(entries, e)
		w.recent = append(w.recent, e)
		w.recent = w.recent[max(0, len(w.recent)-300):]
	}
	messages := make([]*pubsubpb.PubsubMessage, len(entries))
	for i, e := range entries {
		messages[i] = e.message
	}
	response, err := w.topics.Publish(w.context(), &pubsubpb.PublishRequest{Topic: w.topic(topicID), Messages: messages})
	if err != nil {
		w.ledger.violation("the test cannot publish: %v", err)
		return entries
	}
	w.ledger.published(entries, response.GetMessageIds())
	return entries
}

// newEntry draws an event.
func (w *env) newEntry(n int, m mix, quiet bool) *entry {
	e := &entry{kind: w.drawKind(m), quiet: quiet}
	attributes := map[string]string{"service_id": []string{"cody-analytics", "cody-gateway", "pings", "sams"}[w.rng.IntN(4)]}
	if environment := []string{"", "dev", "prod"}[w.rng.IntN(3)]; environment != "" {
		attributes["service_environment"] = environment
	}
	e.private = w.rng.IntN(4) == 0 || e.kind == forbidden
	data := fmt.Sprintf(`{"feature":%q,"action":%q,"metadata":{"n":%d}`, feature, action, n)
	if e.private {
		data += fmt.Sprintf(`,"privateMetadata":{"note":%q}`, marker)
	}
	switch {
	case !quiet && e.kind != forbidden && e.kind != unknownService && w.rng.IntN(30) == 0: // another event with an id that was there before
		if other := w.last; other != nil {
			e.id = other.id
			for _, key := range []string{"service_id", "service_environment"} {
				delete(attributes, key)
				if value, ok := other.message.GetAttributes()[key]; ok {
					attributes[key] = value
				}
			}
			break
		}
		fallthrough
	case w.rng.IntN(4) > 0:
		e.id = fmt.Sprintf("019a0000-0000-7000-8000-%012d", n)
	}
	if e.id != "" {
		data += fmt.Sprintf(`,"id":%q`, e.id)
	}
	switch e.kind {
	case unsupported:
		attributes["schema_version"] = "2"
	case unknownService:
		attributes["service_id"] = "nobody"
	case malformed:
		data = []string{data, "[" + data + "}]", data + "}}", "\xff", `"` + marker + `"`}[w.rng.IntN(5)]
		if w.rng.IntN(3) == 0 { // names of the worker's own
			attributes["dlq_reason"], attributes["replay_count"] = "mine", "many"
		}
	case invalid:
		data += []string{`,"unknown":1`, `,"user":"` + marker + `"`, `,"metadataVersion":-1`, `,"action":"twice"`}[w.rng.IntN(4)]
	case forbidden:
		attributes["service_id"] = "strict"
	default:
	}
	if e.kind != malformed {
		data += "}"
	}
	e.message = &pubsubpb.PubsubMessage{Data: []byte(data), Attributes: attributes}
	if e.id != "" && e.kind == healthy {
		w.last = e
	}
	return e
}

func (w *env) drawKind(m mix) kind {
	at := w.rng.IntN(1000)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if at -= m[k]; at < 0 {
			return k
		}
	}
	return healthy
}

// takeAll pulls and acknowledges all messages of a subscription.
func (w *env) takeAll(subscription string) []*pubsubpb.PubsubMessage {
	var all []*pubsubpb.PubsubMessage
	// An empty answer does not mean an empty queue.
	for empty := 0; empty < 3; {
		response, err := w.subs.Pull(w.context(), &pubsubpb.PullRequest{
			Subscription: w.subscription(subscription), MaxMessages: 1000,
			ReturnImmediately: true, //nolint:staticcheck // Deprecated for consumers that poll; this asks what there is.
		})
		if err != nil {
			w.ledger.violation("the test cannot pull: %v", err)
			return all
		}
		received := response.GetReceivedMessages()
		if len(received) == 0 {
			empty++
			time.Sleep(20 * time.Millisecond)
			continue
		}
		empty = 0
		ids := make([]string, len(received))
		for i, r := range received {
			ids[i] = r.GetAckId()
			all = append(all, r.GetMessage())
		}
		if _, err := w.subs.Acknowledge(w.context(), &pubsubpb.AcknowledgeRequest{Subscription: w.subscription(subscription), AckIds: ids}); err != nil {
			w.ledger.violation("the test cannot acknowledge: %v", err)
		}
	}
	return all
}

// recover waits until the running workers record events again, without help.
func (w *env) recover() {
	began := time.Now()
	before := w.ledger.counted("quiet events recorded")
	for time.Since(began) < patience {
		w.publish(3, nil, true)
		time.Sleep(100 * time.Millisecond)
		if w.ledger.counted("quiet events recorded") > before {
			w.note("recovered after %v", time.Since(began).Round(time.Millisecond))
			w.t.Logf("recovered after %v", time.Since(began).Round(time.Millisecond))
			return
		}
	}
	w.ledger.violation("nothing fresh is recorded %v after the last fault", time.Since(began))
}

// copyUnacked sets a subscription to the messages that are not acknowledged in another.
func (w *env) copyUnacked(from, to string) {
	snapshot := "projects/" + w.project + "/snapshots/for-" + to
	_, err := w.subs.CreateSnapshot(w.context(), &pubsubpb.CreateSnapshotRequest{Name: snapshot, Subscription: w.subscription(from)})
	w.must(err)
	_, err = w.subs.Seek(w.context(), &pubsubpb.SeekRequest{
		Subscription: w.subscription(to), Target: &pubsubpb.SeekRequest_Snapshot{Snapshot: snapshot},
	})
	w.must(err)
}

// finish waits, with quiet traffic, until the last workers have recorded or dead-lettered
// all events. They must settle the messages that they have. Messages that the emulator does
// not stream to them are left to the last drain.
func (w *env) finish(ports []string) {
	const stalled = 20 * time.Second
	began := time.Now()
	fewest, progress := math.MaxInt, began
	for {
		w.publishOthers()
		w.ledger.deadLetter(w.takeAll(dlqSubID))
		open := w.ledger.open(2 * time.Second)
		switch {
		case len(open) == 0:
			w.note("settled after %v", time.Since(began).Round(time.Millisecond))
			return
		case len(open) < fewest:
			fewest, progress = len(open), time.Now()
		case time.Since(progress) < stalled:
		case !slices.ContainsFunc(ports, hasOldEvent):
			w.note("the emulator does not stream what %d events are in, such as %v", len(open), open[:min(5, len(open))])
			w.ledger.met("times that the emulator kept messages from all streams")
			return
		case time.Since(began) > patience:
			w.ledger.violation("not settled %v after the last fault: a worker holds what %d events are in, such as %v", time.Since(began), len(open), open[:min(5, len(open))])
			return
		}
	}
}

// hasOldEvent reports whether a worker has had an event in flight for long, or cannot be
// asked.
func hasOldEvent(port string) bool {
	x, err := scrape(port)
	return err != nil || x.values[oldest] > 10
}

// publishOthers publishes a few events, because only other recorded events distinguish bad
// events from a gateway that records nothing.
func (w *env) publishOthers() {
	w.publish(3, nil, true)
	time.Sleep(200 * time.Millisecond)
}

// settle lets last workers take the remaining messages, and then a last drain the rest of
// those. Then it closes the ledger. Each of them has a subscription without a consumer
// before. All unacknowledged messages are available there, even if other workers had leased
// them elsewhere.
func (w *env) settle(workers int) totals {
	w.copyUnacked(subID, unackedID)
	var (
		slots []*slot
		ports []string
	)
	for i := range workers {
		ports = append(ports, freePort(w.t))
		slots = append(slots, w.newSlot(fmt.Sprintf("last worker %d", i), time.Second, "WORKER_MODE=continuous", "PUBSUB_SUBSCRIPTION="+unackedID, "PORT="+ports[i]))
	}
	w.finish(ports)
	for _, s := range slots {
		s.end()
	}
	w.copyUnacked(unackedID, lastID)
	p := w.start("drain at the end", "WORKER_MODE=drain", "WORKER_DRAIN_IDLE=1s", "PUBSUB_SUBSCRIPTION="+lastID)
	for range 10 {
		w.publishOthers()
	}
	p.wait(patience)
	if s, ok := p.summary(); p.status() != 0 || !ok || s.Ended != "drained" {
		w.ledger.violation("%s ended with status %d: %s", p.name, p.status(), p.stdout.tail(600))
	}
	w.ledger.deadLetter(w.takeAll(dlqSubID))
	w.copyUnacked(lastID, restID)
	for _, m := range w.takeAll(restID) {
		w.ledger.violation("left in the subscription: %q %v", m.GetData(), m.GetAttributes())
	}
	totals := w.ledger.close()
	if s := w.gateway.Stats(); s.Invalid > 0 || s.SilentlyLost > 0 {
		w.ledger.violation("the gateway was sent what it can never record: %+v", s)
	}
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for _, v := range w.ledger.violations {
		w.t.Error(v)
	}
	return totals
}
