package live_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/ackresult"
)

// receipt is the lease that a client sets, in seconds: the shortest that there is.
const receipt = 10

const keepsKilled = "the emulator keeps some messages of a killed consumer, for minutes"

// leaseRows are about the leases of messages.
var leaseRows = []row{
	{
		id: "unreceipted", situation: "killed before the first ModifyAckDeadline", expected: "back after about {lease}", timed: true, ask: askKilledAtOnce,
		unasked: either(unlessEmulated("the emulator gives the lease that the stream asks for, not ten minutes"), func(tg target) string {
			if tg.kind == service && !tg.long {
				return "ten minutes: only with -live.long"
			}
			return ""
		}),
		section: "Receipts", server: "internal/devstack/pubsubserver/lease.go", test: "internal/devstack/pubsubserver TestDeliveryLease",
	},
	{
		id: "receipt", situation: "killed after ModifyAckDeadline to 10 s", expected: "back after about 10 s", timed: true, ask: askKilledAfterReceipt,
		unasked: unlessEmulated(keepsKilled),
		section: "Receipts", server: "internal/devstack/pubsubserver/lease.go", test: "internal/devstack/pubsubserver TestDeliveryLease",
	},
	{
		id: "release", situation: "ModifyAckDeadline to 0", expected: "there for others at once", ask: askRelease,
		section: "Settlements", server: "internal/devstack/pubsubserver/lease.go", test: "internal/consume TestReceiveFromServer",
	},
	{
		id: "exactly", situation: "exactly-once: stream", expected: "says so in its responses", ask: askExactlyOnceStream,
		section: "Receipts", server: "internal/devstack/pubsubserver/deliver.go", test: "internal/devstack/pubsubserver TestExactlyOncePings",
	},
	{
		id: "results", situation: "exactly-once: one of three ack ids has expired", expected: "a result for that id alone; the others are taken", ask: askResults,
		section: "Settlements", server: "internal/devstack/pubsubserver/exactlyonce.go", test: "internal/devstack/pubsubserver TestExactlyOnce",
	},
}

// askKilled has a consumer receive a message and lose its connection, and says how long
// after the delivery, or the receipt, it is back.
func askKilled(ctx context.Context, p *place, lease time.Duration, receive func(ctx context.Context, subscription string, got []*pubsubpb.ReceivedMessage) error) (answer, error) {
	subscription, err := p.filled(ctx, 1, nil)
	if err != nil {
		return answer{}, err
	}
	doomed, err := connect(ctx, p.options()...)
	if err != nil {
		return answer{}, err
	}
	closed := false
	kill := func() error {
		if closed {
			return nil
		}
		closed = true
		return doomed.close()
	}
	defer func() { _ = kill() }()
	s, err := doomed.stream(ctx, subscription, nil)
	if err != nil {
		return answer{}, err
	}
	defer s.close()
	got, err := s.atLeastOne(ctx)
	if err != nil {
		return answer{}, err
	}
	began := time.Now()
	if err := receive(ctx, subscription, got); err != nil {
		return answer{}, err
	}
	// The connection goes first, as that of a process that is killed.
	if err := kill(); err != nil {
		return answer{}, err
	}
	back, err := p.pull(ctx, subscription, 1, 2*lease+arriveTime)
	if err != nil {
		return answer{}, err
	}
	after := time.Since(began)
	if len(back) == 0 {
		return differs("not back in %s", took(after))
	}
	if err := p.acknowledge(ctx, subscription, back...); err != nil {
		return answer{}, err
	}
	return judged(after > lease*8/10 && after < lease*13/10+p.within(5*time.Second), "back after %s", took(after))
}

func askKilledAtOnce(ctx context.Context, p *place) (answer, error) {
	return askKilled(ctx, p, p.firstLease, func(context.Context, string, []*pubsubpb.ReceivedMessage) error { return nil })
}

func askKilledAfterReceipt(ctx context.Context, p *place) (answer, error) {
	return askKilled(ctx, p, receipt*time.Second, func(ctx context.Context, subscription string, got []*pubsubpb.ReceivedMessage) error {
		return p.setLease(ctx, subscription, receipt, got...)
	})
}

func askRelease(ctx context.Context, p *place) (answer, error) {
	const n = 20
	subscription, err := p.filled(ctx, n, nil)
	if err != nil {
		return answer{}, err
	}
	s, err := p.stream(ctx, subscription, nil)
	if err != nil {
		return answer{}, err
	}
	defer s.close()
	got, _, err := s.messages(ctx, n, arriveTime)
	if err != nil {
		return answer{}, err
	}
	// The stream is closed, or the messages would come back to it.
	if err := s.client.CloseSend(); err != nil {
		return answer{}, err
	}
	for ended := false; !ended; {
		a, err := s.next(ctx, quietTime)
		if err != nil {
			return answer{}, fmt.Errorf("the stream does not end: %w", err)
		}
		got = append(got, a.response.GetReceivedMessages()...)
		ended = a.err != nil
	}
	if err := p.setLease(ctx, subscription, 0, got...); err != nil {
		return answer{}, err
	}
	released := time.Now()
	back, err := p.pull(ctx, subscription, n, arriveTime)
	if err != nil {
		return answer{}, err
	}
	after := time.Since(released)
	return judged(len(back) >= n && after < p.within(2*time.Second), "%d of %d there within %s", min(len(back), n), n, took(after))
}

func exactlyOnce(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true }

func askExactlyOnceStream(ctx context.Context, p *place) (answer, error) {
	subscription, err := p.filled(ctx, 1, exactlyOnce)
	if err != nil {
		return answer{}, err
	}
	s, err := p.stream(ctx, subscription, nil)
	if err != nil {
		return answer{}, err
	}
	defer s.close()
	a, err := s.next(ctx, arriveTime)
	if err = errors.Join(err, a.err); err != nil {
		return answer{}, err
	}
	if a.response.GetSubscriptionProperties().GetExactlyOnceDeliveryEnabled() {
		return same("says so in its first response")
	}
	return differs("says nothing of it in its first response")
}

func askResults(ctx context.Context, p *place) (answer, error) {
	subscription, err := p.filled(ctx, 3, exactlyOnce)
	if err != nil {
		return answer{}, err
	}
	got, err := p.pull(ctx, subscription, 3, arriveTime)
	if err != nil {
		return answer{}, err
	}
	if len(got) != 3 {
		return answer{}, fmt.Errorf("%d of 3 messages are delivered", len(got))
	}
	if err := p.setLease(ctx, subscription, 0, got[0]); err != nil {
		return answer{}, fmt.Errorf("release: %w", err)
	}
	refused := p.acknowledge(ctx, subscription, got...)
	if refused == nil {
		return differs("the request succeeds")
	}
	results, ok := ackresult.Of(refused)
	if !ok {
		return differs("no results: %v", refused)
	}
	named := slices.Collect(maps.Keys(results))
	if len(named) != 1 || named[0] != got[0].GetAckId() || results[named[0]] != ackresult.Permanent {
		return differs("%d results, %d of them permanent failures", len(named), permanent(results))
	}
	// Only that one is left.
	back, err := p.pull(ctx, subscription, 1, arriveTime)
	if err != nil {
		return answer{}, err
	}
	if len(back) != 1 || back[0].GetMessage().GetMessageId() != got[0].GetMessage().GetMessageId() {
		return differs("a result for that id alone; then %d other messages come again", len(back))
	}
	if err := p.acknowledge(ctx, subscription, back...); err != nil {
		return answer{}, err
	}
	// The leases of the others would end in this time.
	more, err := p.pull(ctx, subscription, 1, receipt*time.Second+quietTime)
	if err != nil {
		return answer{}, err
	}
	return judged(len(more) == 0, "a result for that id alone; %d of the others come again", len(more))
}

func permanent(results map[string]ackresult.Result) (n int) {
	for _, r := range results {
		if r == ackresult.Permanent {
			n++
		}
	}
	return n
}
