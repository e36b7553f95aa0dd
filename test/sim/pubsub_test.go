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
	"google.golang.org/genproto/googleapis/rpc/errdetails"
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
	w *env

	mu      sync.Mutex
	rng     *rand.Rand
	order   []*message // as published
	byID    map[string]*message
	byAck   map[string]*message // by any ack id that was ever given
	acks    int
	changed chan struct{}
	breaks  chan struct{} // closed to cut the open streams
	silence chan struct{} // closed to silence the open streams
}

// message is one message of the subscription.
type message struct {
	*pubsubpb.PubsubMessage
	kind       kind
	ackID      string
	until      time.Time // end of the lease; zero if the message is available
	receipted  bool      // the lease was set by a ModifyAckDeadline since the delivery
	holder     *worker
	given      time.Time // when the newest ack id was given out
	acked      bool
	deliveries int
	released   map[*worker]time.Time // when each worker last nacked it
	panics     int                   // how often its processing is still to panic
}

func newSubscription(w *env) *subscription {
	return &subscription{
		w: w, rng: w.child(), byID: map[string]*message{}, byAck: map[string]*message{},
		changed: make(chan struct{}), breaks: make(chan struct{}), silence: make(chan struct{}),
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

// notify wakes the streams that wait for messages. The caller has locked mu.
func (s *subscription) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// unacked returns the messages that are still in the subscription.
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

// loseLeases ends some leases early.
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

// goSilent makes all open streams deliver nothing further, on healthy connections.
func (s *subscription) goSilent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.silence)
	s.silence = make(chan struct{})
	s.w.met("streams go silent")
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
		m.until, m.holder, m.given, m.receipted = now.Add(lease), to, now, false
		if m.deliveries++; m.deliveries > 1 {
			s.w.met("redelivery")
		}
		s.w.pulled(to, now)
		out = append(out, &pubsubpb.ReceivedMessage{AckId: m.ackID, Message: m.PubsubMessage})
	}
	return out
}

// streamLease is the lease of a streamed message, whatever the client requests, until the
// first ModifyAckDeadline (google-cloud-rust#4519).
const streamLease = 10 * time.Minute

// expired checks that no lease of a live worker with a connection ends.
func (s *subscription) expired(m *message, now time.Time) {
	at := now.Sub(s.w.began)
	trouble := false
	for _, outage := range []window{s.w.drawn.pubsubDown, s.w.drawn.pubsubFrozen, s.w.drawn.flaky, s.w.drawn.keyDisabled} {
		// One minute after a fault its effects are over.
		trouble = trouble || (outage.end > 0 && at >= outage.begin && at < outage.end+time.Minute)
	}
	if m.kind != panicking && m.holder != nil && !m.holder.stopping.Load() && !trouble {
		s.w.violation("the lease of message %s (%v) ended while its worker lives", m.GetMessageId(), m.kind)
	}
}

// next returns when the next lease ends.
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
	if err := p.w.net(ctx, p.s.w.plan().pubsubDown); err != nil {
		return nil, err
	}
	if p.s.w.plan().refusals.at(p.s.w.now()) && p.s.w.draw(3) > 0 {
		p.s.w.met("stream refused")
		return nil, status.Error(p.s.w.plan().refusalCode, "refused for a while")
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return &pullStream{port: p, ctx: ctx, flow: flow, breaks: p.s.breaks, silence: p.s.silence, pings: make(chan struct{}, 1)}, nil
}

type pullStream struct {
	port
	ctx     context.Context
	flow    consume.Flow
	breaks  chan struct{}
	silence chan struct{}
	pings   chan struct{} // capacity 1
}

func (st *pullStream) Ping() error {
	select {
	case st.pings <- struct{}{}:
	default: // one answer suffices for both
	}
	return nil
}

// answer returns the response to a ping.
func (st *pullStream) answer() (consume.Response, error) {
	b, err := proto.Marshal(&pubsubpb.StreamingPullResponse{
		SubscriptionProperties: &pubsubpb.StreamingPullResponse_SubscriptionProperties{
			ExactlyOnceDeliveryEnabled: st.s.w.drawn.exactlyOnce,
		},
	})
	return consume.NewResponse(b), err
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
		select {
		case <-st.silence:
			<-st.ctx.Done()
			return nil, status.FromContextError(st.ctx.Err()).Err()
		default:
		}
		s.mu.Lock()
		leased := 0
		for _, m := range s.order {
			if m.holder == st.w && !m.acked {
				leased++
			}
		}
		var got []*pubsubpb.ReceivedMessage
		if room := st.flow.MaxEvents - leased; room > 0 || s.w.plan().noFlow {
			if s.w.plan().noFlow {
				room = 40
			}
			limit := 1 + s.rng.IntN(40)
			if s.w.plan().latency > 0 {
				limit = 1000
			}
			got = s.take(st.w, min(room, limit), streamLease)
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
		case <-st.silence:
		case <-st.pings:
			timer.Stop()
			return st.answer()
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

func (p port) Pull(ctx context.Context, limit int, immediately bool) (consume.Response, error) {
	p.w.pulls.Add(1)
	if err := p.w.net(ctx, p.s.w.plan().pubsubDown); err != nil {
		return nil, err
	}
	if err := p.w.frozen(ctx, p.s.w.plan().pubsubFrozen); err != nil {
		return nil, err
	}
	for {
		p.s.mu.Lock()
		got, changed := p.s.take(p.w, limit, 10*time.Second), p.s.changed
		p.s.mu.Unlock()
		if len(got) > 0 {
			if p.s.w.draw(4) > 0 {
				return encode(got)
			}
			// A pull may return nothing although there are messages, even if it waits
			// (google-cloud-go#8235).
			p.s.putBack(got)
			p.s.w.met("empty answer to a pull")
		}
		if immediately {
			return consume.NewResponse(nil), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return consume.NewResponse(nil), nil
		}
	}
}

// putBack makes messages available that could not be delivered.
func (s *subscription) putBack(received []*pubsubpb.ReceivedMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range received {
		m := s.byAck[r.GetAckId()]
		m.until, m.holder = time.Time{}, nil
	}
}

func encode(received []*pubsubpb.ReceivedMessage) (consume.Response, error) {
	b, err := proto.Marshal(&pubsubpb.StreamingPullResponse{ReceivedMessages: received})
	return consume.NewResponse(b), err
}

func (p port) Acknowledge(ctx context.Context, ids []string) error {
	if len(ids) > 2500 {
		p.s.w.violation("an acknowledgement of %d ids", len(ids))
	}
	return p.settle(ctx, func() (bad map[string]string) {
		bad = map[string]string{}
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
				p.s.w.met("stale ack id") // ignored, unless delivery is exactly once
				bad[id] = "PERMANENT_FAILURE_INVALID_ACK_ID"
			case p.s.w.drawn.exactlyOnce && m.acked:
				bad[id] = "PERMANENT_FAILURE_INVALID_ACK_ID"
			case p.s.w.drawn.exactlyOnce && p.s.w.plan().flaky.at(p.s.w.now()) && p.s.rng.IntN(4) == 0:
				p.s.w.met("transient result of an ack id")
				bad[id] = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"
			default:
				m.acked, m.holder = true, nil
				p.s.w.ledger.acked(m)
			}
		}
		p.s.notify()
		return bad
	})
}

func (p port) ModifyAckDeadline(ctx context.Context, ids []string, lease time.Duration) error {
	return p.settle(ctx, func() (bad map[string]string) {
		bad = map[string]string{}
		for _, id := range ids {
			m := p.s.byAck[id]
			if m == nil || m.ackID != id || m.acked || m.until.IsZero() {
				bad[id] = "PERMANENT_FAILURE_INVALID_ACK_ID"
				continue
			}
			if lease > 0 {
				if late := time.Since(m.given); !m.receipted && late > receiptLimit && !p.s.w.trouble(m.given) {
					p.s.w.violation("the lease of message %s was set %v after its delivery", m.GetMessageId(), late)
				}
				m.until, m.receipted = time.Now().Add(lease), true
				continue
			}
			m.until, m.holder = time.Time{}, nil
			p.s.w.nacked(p.w, m)
		}
		if lease == 0 {
			p.s.notify()
		}
		return bad
	})
}

// receiptLimit bounds the time until the first ModifyAckDeadline of a message, with a slow
// answer to a pull and a slow request.
const receiptLimit = 500 * time.Millisecond

// settle executes a request, unless the request gets lost; its answer may get lost, too.
func (p port) settle(ctx context.Context, do func() (bad map[string]string)) error {
	if err := p.w.net(ctx, p.s.w.plan().pubsubDown); err != nil {
		return err
	}
	if err := p.w.frozen(ctx, p.s.w.plan().pubsubFrozen); err != nil {
		return err
	}
	if p.s.w.plan().keyDisabled.at(p.s.w.now()) {
		p.s.w.met("request refused as a whole")
		return status.Error(codes.FailedPrecondition, "the key is disabled")
	}
	if p.s.w.plan().pubsubSlow.at(p.s.w.now()) && p.s.w.draw(4) == 0 {
		p.s.w.met("slow answer to a settlement")
		if err := p.w.pause(ctx, time.Duration(p.s.w.draw(9_000))*time.Millisecond); err != nil {
			return err
		}
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	bad := do()
	if p.s.w.plan().flaky.at(p.s.w.now()) && p.s.rng.IntN(3) == 0 {
		p.s.w.met("settlement's answer lost")
		return status.Error(codes.Unavailable, "the answer was lost")
	}
	if !p.s.w.drawn.exactlyOnce || len(bad) == 0 {
		return nil
	}
	p.s.w.met("results per ack id")
	failed, err := status.New(codes.FailedPrecondition, "some ack ids are not valid").WithDetails(&errdetails.ErrorInfo{
		Reason: "EXACTLY_ONCE_ACKID_FAILURE", Domain: "pubsub.googleapis.com", Metadata: bad,
	})
	if err != nil {
		panic(err)
	}
	return failed.Err()
}

// dlqTopic is the simulated dead-letter topic.
type dlqTopic struct {
	w *worker
}

func (t dlqTopic) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	if err := t.w.net(ctx, t.w.env.plan().dlqDown); err != nil {
		if t.w.env.plan().dlqDown.at(t.w.env.now()) {
			t.w.env.met("dead-letter topic down")
		}
		return err
	}
	t.w.env.ledger.deadLettered(slices.Clone(messages))
	if t.w.env.plan().flaky.at(t.w.env.now()) && t.w.env.draw(4) == 0 {
		return status.Error(codes.DeadlineExceeded, "the answer was lost")
	}
	return nil
}
