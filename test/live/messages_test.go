package live_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// messageRows are about publishing, pulling and looking.
var messageRows = []row{
	{
		id: "limits", situation: "publish: attributes over the limits beside a good message", expected: "refused as a whole: InvalidArgument", ask: askLimits,
		unasked: unlessEmulated("the emulator takes any attributes"),
		section: "Publishing", server: "internal/devstack/pubsubserver/publish.go", test: "internal/devstack/pubsubserver TestPublishRefusesWholeRequests",
	},
	{
		id: "empty", situation: "three waiting pulls of an empty subscription", expected: "nothing, and no error", ask: askEmpty,
		section: "When a drain is over", server: "internal/devstack/pubsubserver/subscriber.go", test: "internal/devstack/pubsubserver TestPullWaits",
	},
	{
		id: "pulls", situation: "three waiting pulls, one message there", expected: "one of them brings it", ask: askPulls,
		section: "When a drain is over", server: "internal/devstack/pubsubserver/subscriber.go", test: "internal/devstack/pubsubserver TestErrEmpty",
	},
	{
		id: "region", situation: "published at the regional endpoint, received at the global one", expected: "delivered", ask: askRegion,
		unasked: func(tg target) string {
			switch {
			case tg.kind != service:
				return "there is one endpoint only"
			case tg.endpoint == "":
				return "no -live.region"
			}
			return ""
		},
		section: "Regional endpoints", server: "none", test: "test/e2e TestEveryCommandUsesTheRegionalEndpoint",
	},
	{
		id: "ordering", situation: "50 messages with an ordering key", expected: "come in order, with the key", ask: askOrdering,
		unasked: unless(embedded, "the embedded server keeps no order"),
		section: "Regional endpoints", server: "internal/devstack/pubsubserver/queue.go", test: "internal/dlq TestReplayOrder",
	},
	{
		id: "view", situation: "subscription that is sought to a snapshot of another", expected: "has what is unacknowledged there, takes no lease", ask: askView,
		unasked: unless(embedded, "the embedded server has no snapshots"),
		section: "Looking", server: "none", test: "test/e2e TestKilledWorkerLosesNothing",
	},
}

// over are attributes over the limits.
var over = map[string]map[string]string{
	"a value of 1,025 bytes": {"k": strings.Repeat("v", 1025)},
	"a key of 257 bytes":     {strings.Repeat("k", 257): "v"},
	"101 attributes": func() map[string]string {
		all := map[string]string{}
		for i := range 101 {
			all[fmt.Sprintf("k%d", i)] = "v"
		}
		return all
	}(),
}

func askLimits(ctx context.Context, p *place) (answer, error) {
	topic, subscription, err := p.queue(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	// A message that is taken shows that the topic works.
	if err := p.publish(ctx, topic, numbered(1)...); err != nil {
		return answer{}, err
	}
	var taken, others []string
	for name, attributes := range over {
		_, err := p.topics.Publish(ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{
			{Data: []byte("good")}, {Data: []byte("bad"), Attributes: attributes},
		}})
		switch status.Code(err) {
		case codes.InvalidArgument:
		case codes.OK:
			taken = append(taken, name)
		default:
			others = append(others, fmt.Sprintf("%s: %v", name, status.Code(err)))
		}
	}
	if len(taken)+len(others) > 0 {
		slices.Sort(taken)
		slices.Sort(others)
		return differs("taken: %s; refused otherwise: %s", orNone(taken), orNone(others))
	}
	got, err := p.pull(ctx, subscription, 2, 2*quietTime)
	if err != nil {
		return answer{}, err
	}
	return judged(len(got) == 1, "3 requests refused: InvalidArgument; %d messages of theirs are delivered", len(got)-1)
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// drainPull is how long a drain lets one pull wait.
const drainPull = 3 * time.Second

// drainPulls pulls three times, as a drain does at its end, until something comes.
func drainPulls(ctx context.Context, p *place, subscription string) (pulls, messages int, err error) {
	for pulls = 1; pulls <= 3; pulls++ {
		got, err := p.pullOnce(ctx, subscription, drainPull)
		if err != nil || len(got) > 0 {
			return pulls, len(got), err
		}
	}
	return 3, 0, nil
}

func askEmpty(ctx context.Context, p *place) (answer, error) {
	_, subscription, err := p.queue(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	began := time.Now()
	pulls, messages, err := drainPulls(ctx, p, subscription)
	if err != nil {
		if ctx.Err() != nil {
			return answer{}, err
		}
		return differs("pull %d fails: %v", pulls, status.Code(err))
	}
	return judged(messages == 0, "%d pulls of %s bring %d messages", pulls, took(time.Since(began)/time.Duration(pulls)), messages)
}

func askPulls(ctx context.Context, p *place) (answer, error) {
	subscription, err := p.filled(ctx, 1, nil)
	if err != nil {
		return answer{}, err
	}
	pulls, messages, err := drainPulls(ctx, p, subscription)
	if err != nil {
		return answer{}, err
	}
	if messages == 0 {
		return differs("none of them brings it")
	}
	return same("pull %d brings it", pulls)
}

func askRegion(ctx context.Context, p *place) (answer, error) {
	topic, subscription, err := p.queue(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	global, err := connect(ctx, p.globalOptions()...)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = global.close() }()
	s, err := global.stream(ctx, subscription, nil)
	if err != nil {
		return answer{}, err
	}
	defer s.close()
	if err := p.publish(ctx, topic, numbered(1)...); err != nil {
		return answer{}, err
	}
	began := time.Now()
	if _, err := s.atLeastOne(ctx); errors.Is(err, errQuiet) {
		return differs("not delivered in %s", spoken(arriveTime))
	} else if err != nil {
		return answer{}, err
	}
	return same("delivered after %s", took(time.Since(began)))
}

func askOrdering(ctx context.Context, p *place) (answer, error) {
	const n, key = 50, "one key"
	topic, subscription, err := p.queue(ctx, func(s *pubsubpb.Subscription) { s.EnableMessageOrdering = true })
	if err != nil {
		return answer{}, err
	}
	all := numbered(n)
	for _, m := range all {
		m.OrderingKey = key
	}
	for part := range slices.Chunk(all, 10) {
		if err := p.publish(ctx, topic, part...); err != nil {
			return answer{}, err
		}
	}
	s, err := p.stream(ctx, subscription, nil)
	if err != nil {
		return answer{}, err
	}
	defer s.close()
	for next := 0; next < n; {
		got, _, err := s.messages(ctx, 1, arriveTime)
		if err != nil {
			return answer{}, err
		}
		if len(got) == 0 {
			return differs("only the first %d come", next)
		}
		for _, r := range got {
			m := r.GetMessage()
			if string(m.GetData()) != fmt.Sprint(next) || m.GetOrderingKey() != key {
				return differs("after the first %d comes %q, with the key %q", next, m.GetData(), m.GetOrderingKey())
			}
			next++
		}
		if err := p.acknowledge(ctx, subscription, got...); err != nil {
			return answer{}, err
		}
	}
	return same("%d come in order, with the key", n)
}

// seekTime is how long a seek may take to have an effect everywhere.
const seekTime = 15 * time.Second

func askView(ctx context.Context, p *place) (answer, error) {
	topic, subscription, err := p.queue(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	view, err := p.createSubscription(ctx, p.id(), topic, nil)
	if err != nil {
		return answer{}, err
	}
	if err := p.publish(ctx, topic, numbered(3)...); err != nil {
		return answer{}, err
	}
	got, err := p.pull(ctx, subscription, 3, arriveTime)
	if err != nil || len(got) != 3 {
		return answer{}, errors.Join(err, fmt.Errorf("%d of 3 messages are delivered", len(got)))
	}
	// One is acknowledged, and the lease of another must outlast the look.
	if err := errors.Join(p.acknowledge(ctx, subscription, got[0]), p.setLease(ctx, subscription, 120, got[1:]...)); err != nil {
		return answer{}, err
	}
	snapshot, err := p.createSnapshot(ctx, p.id(), subscription)
	if err != nil {
		return answer{}, err
	}
	if _, err := p.subs.Seek(ctx, &pubsubpb.SeekRequest{Subscription: view, Target: &pubsubpb.SeekRequest_Snapshot{Snapshot: snapshot}}); err != nil {
		return answer{}, fmt.Errorf("seek: %w", err)
	}
	if p.kind == service {
		// A seek takes effect everywhere after a while only, says the documentation.
		if err := sleep(ctx, seekTime); err != nil {
			return answer{}, err
		}
	}
	seen, err := p.pull(ctx, view, 2, arriveTime)
	if err != nil {
		return answer{}, err
	}
	more, err := p.pull(ctx, view, 1, quietTime)
	if err != nil {
		return answer{}, err
	}
	if n := len(seen) + len(more); n != 2 || slices.ContainsFunc(seen, func(r *pubsubpb.ReceivedMessage) bool {
		return r.GetMessage().GetMessageId() == got[0].GetMessage().GetMessageId()
	}) {
		return differs("has %d messages, while 2 of 3 are unacknowledged", n)
	}
	// The leases are the holder's still: nobody else gets the messages.
	stolen, err := p.pull(ctx, subscription, 1, quietTime)
	if err != nil {
		return answer{}, err
	}
	if len(stolen) > 0 {
		return differs("has the 2 unacknowledged ones; their leases have ended")
	}
	return same("has the 2 unacknowledged ones, takes no lease")
}
