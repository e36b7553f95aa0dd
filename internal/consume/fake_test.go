package consume

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// A dependency of the client starts it when the program does.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
		// The official client, which the conformance test starts, looks only every 10 s
		// whether it has ended.
		goleak.IgnoreTopFunction("cloud.google.com/go/pubsub/v2.(*messageIterator).streamKeepAliveHandler"),
	)
}

// fake is a subscription in memory whose leases run in the bubble's time.
type fake struct {
	t *testing.T

	mu         sync.Mutex
	queue      []*fakeMessage
	byAckID    map[string]*fakeMessage
	lastID     int
	perAnswer  int           // messages in one response
	buffered   int           // responses that a stream has ready before anybody asks
	pullLease  time.Duration // of messages from Pull
	firstLease time.Duration // of messages from a stream, as in the service; 0 means what the stream requests
	changed    chan struct{}
	broken     chan struct{} // closed: open streams end
	streams    int           // opened
	flow       Flow          // of the last stream
	deaf       bool          // pings are not answered, as by the emulator
	mute       bool          // streams go silent: no messages, no answers
	pings      int           // pings received
	exactly    bool          // streams say that the subscription delivers exactly once
	ackCalls   int
	modifies   []modification
	onStream   func() error
	onRecv     func() error // asked when a stream would have to wait
	onAck      func(ctx context.Context, ids []string) error
	onModify   func(ids []string, lease time.Duration) error
	redelivery int // deliveries beyond the first of each
	unknown    int // ack ids that were never given out
}

type modification struct {
	at    time.Time
	ids   int
	lease time.Duration
}

type fakeMessage struct {
	id        string
	size      int
	ackID     string // of the last delivery
	until     time.Time
	delivered int
	acked     bool
}

func newFake(t *testing.T, messages int) *fake {
	f := &fake{
		t: t, byAckID: map[string]*fakeMessage{}, perAnswer: 100, pullLease: 10 * time.Second,
		changed: make(chan struct{}), broken: make(chan struct{}),
	}
	f.publish(messages, 10)
	return f
}

func (f *fake) publish(n, size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		f.queue = append(f.queue, &fakeMessage{id: fmt.Sprintf("m%d", len(f.queue)), size: size})
	}
	f.notify()
}

func (f *fake) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// expire ends all leases at once.
func (f *fake) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.queue {
		m.until = time.Time{}
	}
	f.notify()
}

// breakStreams ends all open streams.
func (f *fake) breakStreams() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.broken)
	f.broken = make(chan struct{})
}

// take leases messages that are ready. It returns when others may become ready.
func (f *fake) take(limit int, lease time.Duration) (out []*pubsubpb.ReceivedMessage, next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, m := range f.queue {
		if m.acked {
			continue
		}
		if now.Before(m.until) {
			if next.IsZero() || m.until.Before(next) {
				next = m.until
			}
			continue
		}
		if len(out) == limit {
			return out, now
		}
		f.lastID++
		m.ackID = fmt.Sprintf("%s/%d/%s", m.id, f.lastID, strings.Repeat("x", 200))
		m.until = now.Add(lease)
		if m.delivered++; m.delivered > 1 {
			f.redelivery++
		}
		f.byAckID[m.ackID] = m
		out = append(out, &pubsubpb.ReceivedMessage{
			AckId:   m.ackID,
			Message: &pubsubpb.PubsubMessage{MessageId: m.id, Data: content(m.id, m.size)},
		})
	}
	return out, next
}

// content is the data of a message.
func content(id string, size int) []byte {
	return bytes.Repeat([]byte(id+"."), size/(len(id)+1)+1)[:size]
}

func (f *fake) Stream(ctx context.Context, flow Flow) (Stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams++
	f.flow = flow
	if f.onStream != nil {
		if err := f.onStream(); err != nil {
			return nil, err
		}
	}
	lease := flow.Lease
	if f.firstLease > 0 {
		lease = f.firstLease
	}
	return &fakeStream{f: f, ctx: ctx, lease: lease, broken: f.broken, pinged: make(chan struct{}, 1)}, nil
}

type fakeStream struct {
	f      *fake
	ctx    context.Context
	lease  time.Duration
	broken chan struct{}
	pinged chan struct{}
	buffer [][]*pubsubpb.ReceivedMessage
}

func (s *fakeStream) Ping() error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.pings++
	if !s.f.deaf {
		select {
		case s.pinged <- struct{}{}:
		default:
		}
	}
	return nil
}

func (s *fakeStream) Recv() (Response, error) {
	for {
		if s.ctx.Err() != nil {
			return nil, status.FromContextError(s.ctx.Err()).Err()
		}
		s.f.mu.Lock()
		changed, onRecv, buffered, limit, mute, exactly := s.f.changed, s.f.onRecv, s.f.buffered, s.f.perAnswer, s.f.mute, s.f.exactly
		s.f.mu.Unlock()
		if mute { // for ever
			<-s.ctx.Done()
			continue
		}
		var next time.Time
		for len(s.buffer) <= buffered {
			var out []*pubsubpb.ReceivedMessage
			if out, next = s.f.take(limit, s.lease); len(out) == 0 {
				break
			}
			s.buffer = append(s.buffer, out)
		}
		if len(s.buffer) > 0 {
			out := s.buffer[0]
			s.buffer = s.buffer[1:]
			return encode(out...), nil
		}
		if onRecv != nil {
			if err := onRecv(); err != nil {
				return nil, err
			}
		}
		var expiry <-chan time.Time
		if !next.IsZero() {
			expiry = time.After(time.Until(next))
		}
		select {
		case <-changed:
		case <-s.pinged:
			return answer(exactly), nil
		case <-expiry:
		case <-s.broken:
			return nil, status.Error(codes.Unavailable, "broken")
		case <-s.ctx.Done():
		}
	}
}

func (f *fake) Pull(ctx context.Context, limit int, immediately bool) (Response, error) {
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		if out, _ := f.take(limit, f.pullLease); len(out) > 0 {
			return encode(out...), nil
		}
		if immediately {
			return NewResponse(nil), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return NewResponse(nil), nil
		}
	}
}

// answer is a response to a ping.
func answer(exactlyOnce bool) Response {
	b, err := proto.Marshal(&pubsubpb.StreamingPullResponse{
		SubscriptionProperties: &pubsubpb.StreamingPullResponse_SubscriptionProperties{ExactlyOnceDeliveryEnabled: exactlyOnce},
	})
	if err != nil {
		panic(err)
	}
	return NewResponse(b)
}

// encode encodes a response.
func encode(received ...*pubsubpb.ReceivedMessage) Response {
	b, err := proto.Marshal(&pubsubpb.StreamingPullResponse{ReceivedMessages: received})
	if err != nil {
		panic(err)
	}
	return NewResponse(b)
}

func (f *fake) checkRequest(ids []string, request proto.Message) {
	if len(ids) == 0 || len(ids) > 2500 {
		f.t.Errorf("a request with %d ids", len(ids))
	}
	if n := proto.Size(request); n > 512<<10 {
		f.t.Errorf("a request of %d bytes", n)
	}
}

const longName = "projects/a-project-with-a-long-name/subscriptions/telemetry-events-relay"

func (f *fake) Acknowledge(ctx context.Context, ids []string) error {
	f.mu.Lock()
	f.ackCalls++
	f.checkRequest(ids, &pubsubpb.AcknowledgeRequest{Subscription: longName, AckIds: ids})
	onAck := f.onAck
	f.mu.Unlock()
	if onAck != nil {
		if err := onAck(ctx, ids); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		// As in the service, an id that is out of date has no effect.
		if m := f.known(id); m != nil && m.ackID == id && time.Now().Before(m.until) {
			m.acked = true
		}
	}
	return nil
}

// known returns the message that was delivered with this ack id. The caller has locked mu.
func (f *fake) known(ackID string) *fakeMessage {
	m := f.byAckID[ackID]
	if m == nil {
		f.unknown++
	}
	return m
}

func (f *fake) ModifyAckDeadline(_ context.Context, ids []string, lease time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checkRequest(ids, &pubsubpb.ModifyAckDeadlineRequest{Subscription: longName, AckIds: ids, AckDeadlineSeconds: 30})
	f.modifies = append(f.modifies, modification{time.Now(), len(ids), lease})
	if f.onModify != nil {
		if err := f.onModify(ids, lease); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if m := f.known(id); m != nil && m.ackID == id && time.Now().Before(m.until) {
			m.until = time.Now().Add(lease)
		}
	}
	f.notify()
	return nil
}

func (f *fake) unacked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, m := range f.queue {
		if !m.acked {
			n++
		}
	}
	return n
}

func (f *fake) redelivered() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.redelivery
}

func (f *fake) opened() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams
}

func (f *fake) pinged() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pings
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// inbox is a handler that keeps its messages.
type inbox struct {
	mu           sync.Mutex
	fresh, again []*Message
}

func (b *inbox) handle(_ context.Context, fresh, again []*Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fresh, b.again = append(b.fresh, fresh...), append(b.again, again...)
}

func (b *inbox) all() []*Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.fresh)
}

func (b *inbox) counts() (fresh, again int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.fresh), len(b.again)
}

// rig is a receiver that receives from sub.
type rig struct {
	*Receiver
	box    inbox
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newRig(t *testing.T, sub Subscriber, opts Options) *rig {
	t.Helper()
	r := &rig{t: t}
	r.Receiver = NewReceiver(sub, defaults(opts), r.box.handle)
	r.start()
	return r
}

func defaults(opts Options) Options {
	if opts.MaxEvents == 0 {
		opts.MaxEvents = 100_000
	}
	if opts.MaxBytes == 0 {
		opts.MaxBytes = 1 << 30
	}
	opts.Logger = discard()
	return opts
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- r.Receive(ctx) }()
}

// receiving reports whether a stream is open.
func (r *rig) receiving() bool { return r.Health().Open > 0 }

// stop ends receiving.
func (r *rig) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		r.t.Errorf("Receive: %v", err)
	}
}

// end ends everything.
func (r *rig) end() {
	r.t.Helper()
	r.stop()
	r.Close()
}

func (r *rig) flush(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return r.Flush(ctx)
}

func (f *fake) modified() []modification {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.modifies)
}

func (f *fake) acknowledges() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ackCalls
}

func (f *fake) lastFlow() Flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flow
}

// misbehave has a share of all requests and streams fail. The function that it
// returns sets that share, which is 0 at first.
func (f *fake) misbehave(seed uint64) (set func(share float64)) {
	var mu sync.Mutex // guards the following
	rng, share := rand.New(rand.NewPCG(seed, 8)), 0.0
	fault := func() error {
		mu.Lock()
		defer mu.Unlock()
		if rng.Float64() >= share {
			return nil
		}
		return status.Error([]codes.Code{codes.Unavailable, codes.Internal, codes.InvalidArgument}[rng.IntN(3)], "a fault")
	}
	f.onAck = func(context.Context, []string) error { return fault() }
	f.onModify = func([]string, time.Duration) error { return fault() }
	f.onStream = func() error {
		if fault() != nil {
			return errUnavailable
		}
		return nil
	}
	return func(to float64) {
		mu.Lock()
		defer mu.Unlock()
		share = to
	}
}
