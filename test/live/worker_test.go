package live_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
)

const (
	// runTime bounds one run of the worker.
	runTime = 2 * time.Minute
	// killedLease bounds the time until the events of a killed worker are redelivered:
	// its leases of 30 s, and time for the service to notice.
	killedLease = time.Minute
)

// workerRows are about the built worker, with a SAMS and a gateway on this machine.
var workerRows = []row{
	{
		id: "check", situation: "worker check", expected: "its stream answers a ping", ask: askCheck,
		section: "Pings", server: "internal/devstack/pubsubserver/deliver.go", test: "test/e2e TestCheckReportsTheStream",
	},
	{
		id: "drain", situation: "worker run: 500 events, 4 bad ones", expected: "recorded once, dead-lettered messages right, exit 0", ask: askDrain(nil),
		section: "When a drain is over", server: "internal/devstack/pubsubserver/server.go", test: "test/e2e TestSetupCreatesWhatCheckReports",
	},
	{
		id: "once", situation: "worker run: the same, exactly-once delivery", expected: "recorded once, dead-lettered messages right, exit 0", ask: askDrain(exactlyOnce),
		section: "Settlements", server: "internal/devstack/pubsubserver/exactlyonce.go", test: "internal/consume TestConformance",
	},
	{
		id: "kill", situation: "kill -9 of a worker with 300 events, a second worker", expected: "none lost, all recorded within a minute", ask: askKill,
		unasked: unlessEmulated(keepsKilled),
		section: "Receipts", server: "internal/devstack/pubsubserver/lease.go", test: "internal/consume TestConformance",
	},
}

func askCheck(ctx context.Context, p *place) (answer, error) {
	r, err := p.surround(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	defer r.close()
	checking, err := r.start(ctx, nil, "check", "--output", "json")
	if err != nil {
		return answer{}, err
	}
	defer checking.kill()
	if _, err := checking.wait(ctx, runTime); err != nil {
		return answer{}, err
	}
	var report struct {
		Findings []struct{ Check, Status, Detail string }
	}
	if err := json.Unmarshal([]byte(checking.stdout.String()), &report); err != nil {
		return answer{}, checking.failure("no report: %v", err)
	}
	for _, f := range report.Findings {
		if f.Check != "stream" {
			continue
		}
		// Of the emulator, check knows that it answers no pings.
		return judged(f.Status == "ok" && (strings.HasPrefix(f.Detail, "answered a ping") || p.kind == emulated), "%s: %s", f.Status, f.Detail)
	}
	return differs("nothing about a stream")
}

// bad are events that the worker rejects, by reason.
var bad = map[string]*pubsubpb.PubsubMessage{
	"unknown_service":    {Data: []byte(`{"feature":"live.test","action":"sent"}`), Attributes: map[string]string{"service_id": "nobody"}},
	"malformed_payload":  {Data: []byte(`{"feature":`), Attributes: map[string]string{"service_id": "live-test"}},
	"invalid_event":      {Data: []byte(`{"feature":"Live","action":"sent"}`), Attributes: map[string]string{"service_id": "live-test"}},
	"unsupported_schema": {Data: []byte(`{"feature":"live.test","action":"sent"}`), Attributes: map[string]string{"service_id": "live-test", "schema_version": "9"}},
}

func eventID(i int) string { return fmt.Sprintf("019a0000-0000-7000-8000-%012d", i) }

// events makes n good events.
func events(n int) []*pubsubpb.PubsubMessage {
	all := make([]*pubsubpb.PubsubMessage, n)
	for i := range all {
		all[i] = &pubsubpb.PubsubMessage{
			Data:       fmt.Appendf(nil, `{"feature":"live.test","action":"sent","id":%q,"metadata":{"n":%d}}`, eventID(i), i),
			Attributes: map[string]string{"service_id": "live-test"},
		}
	}
	return all
}

func askDrain(change func(*pubsubpb.Subscription)) func(context.Context, *place) (answer, error) {
	return func(ctx context.Context, p *place) (answer, error) {
		const n = 500
		r, err := p.surround(ctx, change)
		if err != nil {
			return answer{}, err
		}
		defer r.close()
		all := events(n)
		for _, m := range bad {
			all = append(all, m)
		}
		if err := r.publish(ctx, r.topic, all...); err != nil {
			return answer{}, err
		}
		run, err := r.start(ctx, nil, "run")
		if err != nil {
			return answer{}, err
		}
		defer run.kill()
		status, err := run.wait(ctx, runTime)
		if err != nil {
			return answer{}, err
		}
		sum, err := run.summary()
		if err != nil {
			return answer{}, err
		}
		var faults []string
		fault := func(is bool, format string, args ...any) {
			if is {
				faults = append(faults, fmt.Sprintf(format, args...))
			}
		}
		fault(status != 0 || sum.Ended != "drained", "exit %d, %s", status, sum.Ended)
		fault(!sum.balanced(), "the accounting does not balance: %+v", sum)
		none, again := r.count(n)
		fault(none > 0, "%d events are not recorded", none)
		fault(again > 0, "%d events are recorded more than once", again)
		wrong, err := r.deadLetters(ctx)
		if err != nil {
			return answer{}, err
		}
		faults = append(faults, wrong...)
		if len(faults) > 0 {
			return differs("%s", strings.Join(faults, "; "))
		}
		return same("%d recorded once, %d dead-lettered messages right, exit 0", n, len(bad))
	}
}

// count counts the first n events that were never recorded, and that were recorded
// more than once.
func (r *relayed) count(n int) (none, again int) {
	ids := r.recorded()
	for i := range n {
		switch ids[eventID(i)] {
		case 0:
			none++
		case 1:
		default:
			again++
		}
	}
	return none, again
}

// deadLetters compares the dead-lettered messages with the bad events.
func (r *relayed) deadLetters(ctx context.Context) (wrong []string, err error) {
	messages, err := r.pull(ctx, r.deadSubscription, len(bad), arriveTime)
	if err != nil {
		return nil, err
	}
	left := map[string]bool{}
	for reason := range bad {
		left[reason] = true
	}
	for _, received := range messages {
		m := received.GetMessage()
		reason := m.GetAttributes()["dlq_reason"]
		if !left[reason] || string(m.GetData()) != string(bad[reason].GetData()) {
			wrong = append(wrong, fmt.Sprintf("a dead-lettered message too many, or with other data: %q", reason))
		}
		delete(left, reason)
	}
	for reason := range left {
		wrong = append(wrong, "no dead-lettered message "+reason)
	}
	slices.Sort(wrong)
	return wrong, r.acknowledge(ctx, r.deadSubscription, messages...)
}

// askKill kills a worker that has received everything and recorded a part of it.
func askKill(ctx context.Context, p *place) (answer, error) {
	const n = 300
	r, err := p.surround(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	defer r.close()
	var (
		streams atomic.Int64
		killed  atomic.Bool
	)
	r.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault {
		return gatewayserver.Fault{Hang: streams.Add(1) > 1 && !killed.Load()} // one batch gets through before
	})
	first, err := r.start(ctx, []string{"WORKER_MODE=continuous", "WORKER_BATCH_MAX_EVENTS=50"}, "run")
	if err != nil {
		return answer{}, err
	}
	defer first.kill()
	if err := r.publish(ctx, r.topic, events(n)...); err != nil {
		return answer{}, err
	}
	if err := first.until(ctx, "it has received everything", runTime, func() bool {
		return first.metric(ctx, "telemetry_relay_events_received_total") >= n && len(r.gateway.Recorded()) > 0
	}); err != nil {
		return answer{}, err
	}
	// The situation is a worker that has leased its events for a while.
	if err := sleep(ctx, time.Second); err != nil {
		return answer{}, err
	}
	first.kill()
	killed.Store(true)
	began := time.Now()

	second, err := r.start(ctx, []string{"WORKER_MODE=continuous"}, "run")
	if err != nil {
		return answer{}, err
	}
	defer second.kill()
	err = second.until(ctx, "everything is recorded", 2*killedLease, func() bool { none, _ := r.count(n); return none == 0 })
	after := time.Since(began)
	none, again := r.count(n)
	if err != nil {
		if ctx.Err() != nil || none == 0 {
			return answer{}, err
		}
		return differs("%d of %d events are not recorded after %s", none, n, took(after))
	}
	status, err := second.stop(ctx, syscall.SIGTERM)
	if err != nil {
		return answer{}, err
	}
	sum, err := second.summary()
	if err != nil {
		return answer{}, err
	}
	if status != 0 || !sum.balanced() {
		return answer{}, second.failure("the second worker: exit %d, %+v", status, sum)
	}
	messages, err := p.pullOnce(ctx, r.deadSubscription, quietTime)
	if err != nil {
		return answer{}, err
	}
	if len(messages) > 0 {
		return answer{}, errors.New("good events are dead-lettered")
	}
	return judged(after < killedLease, "none lost, all recorded %s after the kill, %d of them again", took(after), again)
}
