package sim_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
)

// ackIDPadding makes ack ids about as long as Pub/Sub's.
var ackIDPadding = strings.Repeat("-", 180)

// subscription is a simulated Pub/Sub subscription: at least once, out of order,
// with leases that end.
type subscription struct {
	w *world

	mu      sync.Mutex
	rng     *rand.Rand
	order   []*message // as published
	byID    map[string]*message
	byAck   map[string]*message // by any ack id that was ever given
	acks    int
	changed chan struct{}
	breaks  chan struct{} // closed when the open streams are to be cut
}

// message is one message of the subscription.
type message struct {
	*pubsubpb.PubsubMessage
	kind       kind
	ackID      string
	until      time.Time // of the lease; zero: available
	holder     *worker
	given      time.Time // when the newest ack id was
	acked      bool
	deliveries int
	released   map[*worker]time.Time // when each worker handed it back last
	panics     int                   // how often its processing will still panic
}

func newSubscription(w *world) *subscription {
	return &subscription{
		w: w, rng: w.child(), byID: map[string]*message{}, byAck: map[string]*message{},
		changed: make(chan struct{}), breaks: make(chan struct{}),
	}
}

func (s *subscription) publish(k kind, m *pubsubpb.PubsubMessage) *message {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.MessageId = strconv.Itoa(100_000 + len(s.order))
	m.PublishTime = timestamppb.Now()
	at := &message{PubsubMessage: m, kind: k, released: map[*worker]time.Time{}}
	if k == panicking {
		at.panics = 1 + s.rng.IntN(2)
	}
	s.order = append(s.order, at)
	s.byID[m.MessageId] = at
	s.notify()
	return at
}

// notify wakes who waits for messages. The caller holds mu.
func (s *subscription) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// unacked are the messages that are still in the subscription.
func (s *subscription) unacked() (all []*message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.order {
		if !m.acked {
			all = append(all, m)
		}
	}
	return all
}

// loseLeases makes some of what is leased available again.
func (s *subscription) loseLeases(share float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.order {
		if !m.acked && !m.until.IsZero() && s.rng.Float64() < share {
			m.until, m.holder = time.Time{}, nil
			s.w.met("lease lost")
		}
	}
	s.notify()
}

// cut ends all open streams.
func (s *subscription) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.breaks)
	s.breaks = make(chan struct{})
}

// take leases up to n available messages to a worker, in any order.
func (s *subscription) take(to *worker, n int, lease time.Duration) (out []*pubsubpb.ReceivedMessage) {
	now := time.Now()
	var available []*message
	for _, m := range s.order {
		if m.acked {
			continue
		}
		if !m.until.IsZero() && !m.until.After(now) {
			s.expired(m, now)
			m.until, m.holder = time.Time{}, nil
		}
		if m.until.IsZero() {
			available = append(available, m)
			if len(available) == 2*n {
				break
			}
		}
	}
	s.rng.Shuffle(len(available), func(i, j int) { available[i], available[j] = available[j], available[i] })
	for _, m := range available[:min(n, len(available))] {
		s.acks++
		m.ackID = "ack-" + strconv.Itoa(s.acks) + ackIDPadding
		s.byAck[m.ackID] = m
		m.until, m.holder, m.given = now.Add(lease), to, now
		if m.deliveries++; m.deliveries > 1 {
			s.w.met("redelivery")
		}
		s.w.pulled(to, now)
		out = append(out, &pubsubpb.ReceivedMessage{AckId: m.ackID, Message: m.PubsubMessage})
	}
	return out
}

// expired checks that no lease of a worker that lives and has a line ends.
func (s *subscription) expired(m *message, now time.Time) {
	at := now.Sub(s.w.began)
	trouble := false
	for _, away := range []window{s.w.drawn.pubsubAway, s.w.drawn.pubsubFrozen, s.w.drawn.flaky} {
		// A minute after it, all is well again.
		trouble = trouble || (away.end > 0 && at >= away.begin && at < away.end+time.Minute)
	}
	if m.kind != panicking && m.holder != nil && !m.holder.stopping.Load() && !trouble {
		s.w.violation("the lease of message %s (%v) ended while its worker lives", m.GetMessageId(), m.kind)
	}
}

// next is when the next lease ends.
func (s *subscription) next() time.Time {
	next := time.Now().Add(time.Hour)
	for _, m := range s.order {
		if !m.acked && !m.until.IsZero() && m.until.Before(next) {
			next = m.until
		}
	}
	return next
}

// port is a worker's connection to the subscription.
type port struct {
	s *subscription
	w *worker
}

func (p port) Stream(ctx context.Context, flow consume.Flow) (consume.Stream, error) {
	if err := p.w.net(ctx, p.s.w.plan().pubsubAway); err != nil {
		return nil, err
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return &pullStream{port: p, ctx: ctx, flow: flow, breaks: p.s.breaks}, nil
}

type pullStream struct {
	port
	ctx    context.Context
	flow   consume.Flow
	breaks chan struct{}
}

func (st *pullStream) Recv() (consume.Response, error) {
	s := st.s
	for {
		if err := st.w.pause(st.ctx, time.Duration(1+s.w.draw(15))*time.Millisecond); err != nil {
			return nil, err
		}
		if err := st.w.frozen(st.ctx, s.w.plan().pubsubFrozen); err != nil {
			return nil, err
		}
		s.mu.Lock()
		held := 0
		for _, m := range s.order {
			if m.holder == st.w && !m.acked {
				held++
			}
		}
		var got []*pubsubpb.ReceivedMessage
		if room := st.flow.MaxEvents - held; room > 0 || s.w.plan().noFlow {
			if s.w.plan().noFlow {
				room = 40
			}
			got = s.take(st.w, min(room, 1+s.rng.IntN(40)), st.flow.Lease)
		}
		changed, next := s.changed, s.next()
		s.mu.Unlock()
		if len(got) > 0 {
			return encode(got)
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-changed:
		case <-timer.C:
		case <-st.breaks:
			timer.Stop()
			s.w.met("pull stream cut")
			return nil, status.Error(codes.Unavailable, "the stream was cut")
		case <-st.ctx.Done():
			timer.Stop()
			return nil, status.FromContextError(st.ctx.Err()).Err()
		}
		timer.Stop()
	}
}

func (p port) Pull(ctx context.Context, most int) (consume.Response, error) {
	p.w.pulls.Add(1)
	if err := p.w.net(ctx, p.s.w.plan().pubsubAway); err != nil {
		return nil, err
	}
	if err := p.w.frozen(ctx, p.s.w.plan().pubsubFrozen); err != nil {
		return nil, err
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return encode(p.s.take(p.w, most, 10*time.Second))
}

func encode(received []*pubsubpb.ReceivedMessage) (consume.Response, error) {
	b, err := proto.Marshal(&pubsubpb.StreamingPullResponse{ReceivedMessages: received})
	return consume.NewResponse(b), err
}

func (p port) Acknowledge(ctx context.Context, ids []string) error {
	if len(ids) > 2500 {
		p.s.w.violation("an acknowledgement of %d ids", len(ids))
	}
	return p.settle(ctx, func() {
		for _, id := range ids {
			m := p.s.byAck[id]
			switch {
			case m == nil:
				p.s.w.violation("an ack id that was never given: %s", id)
			case m.ackID != id:
				// A request takes 10 s at most.
				if m.holder == p.w && time.Since(m.given) > 12*time.Second {
					p.s.w.violation("message %s was acknowledged with an ack id that was replaced %v ago", m.GetMessageId(), time.Since(m.given))
				}
				p.s.w.met("stale ack id") // ignored, as by the real service
			default:
				m.acked, m.holder = true, nil
				p.s.w.ledger.acked(m)
			}
		}
		p.s.notify()
	})
}

func (p port) ModifyAckDeadline(ctx context.Context, ids []string, lease time.Duration) error {
	return p.settle(ctx, func() {
		for _, id := range ids {
			m := p.s.byAck[id]
			if m == nil || m.ackID != id || m.acked || m.until.IsZero() {
				continue
			}
			if lease > 0 {
				m.until = time.Now().Add(lease)
				continue
			}
			m.until, m.holder = time.Time{}, nil
			p.s.w.handedBack(p.w, m)
		}
		if lease == 0 {
			p.s.notify()
		}
	})
}

// settle does what a request asks, unless the request, or its answer, is lost.
func (p port) settle(ctx context.Context, do func()) error {
	if err := p.w.net(ctx, p.s.w.plan().pubsubAway); err != nil {
		return err
	}
	if err := p.w.frozen(ctx, p.s.w.plan().pubsubFrozen); err != nil {
		return err
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	do()
	if p.s.w.plan().flaky.at(p.s.w.now()) && p.s.rng.IntN(3) == 0 {
		p.s.w.met("settlement's answer lost")
		return status.Error(codes.Unavailable, "the answer was lost")
	}
	return nil
}

// dlqTopic is the simulated dead-letter topic.
type dlqTopic struct {
	w *worker
}

func (t dlqTopic) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	if err := t.w.net(ctx, t.w.world.plan().dlqAway); err != nil {
		if t.w.world.plan().dlqAway.at(t.w.world.now()) {
			t.w.world.met("dead-letter topic away")
		}
		return err
	}
	t.w.world.ledger.buried(slices.Clone(messages))
	if t.w.world.plan().flaky.at(t.w.world.now()) && t.w.world.draw(4) == 0 {
		return status.Error(codes.DeadlineExceeded, "the answer was lost")
	}
	return nil
}
