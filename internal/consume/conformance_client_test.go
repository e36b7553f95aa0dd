package consume

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// subject is a client of Pub/Sub in a situation: the official one or ours. It acks the
// messages that it receives, or keeps them unsettled.
type subject struct {
	t     *testing.T
	dials dialer
	// cancel ends receiving in good order, close ends the client.
	cancel context.CancelFunc
	close  func()
	// ackKept and nackKept settle the kept messages, and return when the requests have been
	// sent.
	ackKept, nackKept func()
	// done is closed when receiving has ended.
	done chan struct{}
	// official is set for the official client. Its intervals cannot be changed, and no time
	// is required of it.
	official bool

	mu   sync.Mutex
	hold bool
	got  map[string]int // deliveries by message id
}

// start starts a client. Both have what the worker has: four streams and
// 20,000 outstanding messages.
type start func(t *testing.T, s *pubsubserver.Server, hold bool) *subject

const outstanding = 20_000

func newSubject(t *testing.T, hold bool) *subject {
	return &subject{t: t, hold: hold, got: map[string]int{}, done: make(chan struct{})}
}

func (c *subject) options(s *pubsubserver.Server) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(s.Addr()),
		option.WithoutAuthentication(),
		option.WithTelemetryDisabled(),
		option.WithGRPCConnectionPool(4),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithContextDialer(c.dials.dial)),
		option.WithGRPCDialOption(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5 * time.Minute})),
	}
}

func startOfficial(t *testing.T, s *pubsubserver.Server, hold bool) *subject {
	c := newSubject(t, hold)
	c.official = true
	client, err := pubsub.NewClientWithConfig(t.Context(), "p", nil, c.options(s)...)
	if err != nil {
		t.Fatal(err)
	}
	var kept []*pubsub.Message
	settle := func(how func(*pubsub.Message)) func() {
		return func() {
			c.mu.Lock()
			all := kept
			kept, c.hold = nil, false
			c.mu.Unlock()
			for _, m := range all {
				how(m)
			}
		}
	}
	c.ackKept, c.nackKept = settle((*pubsub.Message).Ack), settle((*pubsub.Message).Nack)
	sub := client.Subscriber(subName)
	sub.ReceiveSettings.NumGoroutines = 4
	sub.ReceiveSettings.MaxOutstandingMessages = outstanding
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go func() {
		defer close(c.done)
		_ = sub.Receive(ctx, func(_ context.Context, m *pubsub.Message) {
			if c.receive(m.ID) {
				c.mu.Lock()
				kept = append(kept, m)
				c.mu.Unlock()
				return
			}
			m.Ack()
		})
	}()
	c.close = func() { _ = client.Close() } // after a kill there is nothing to close
	return c
}

func startOurs(t *testing.T, s *pubsubserver.Server, hold bool) *subject {
	c := newSubject(t, hold)
	client, err := NewClient(t.Context(), subName, c.options(s)...)
	if err != nil {
		t.Fatal(err)
	}
	var (
		r    *Receiver
		kept []*Message
	)
	r = NewReceiver(client, Options{Subscription: subName, MaxEvents: outstanding, MaxBytes: 1 << 30, Logger: discard()},
		func(_ context.Context, fresh, again []*Message) {
			var settle []*Message
			for _, m := range fresh {
				if c.receive(m.ID) {
					c.mu.Lock()
					kept = append(kept, m)
					c.mu.Unlock()
				} else {
					settle = append(settle, m)
				}
			}
			for _, m := range again {
				c.receive(m.ID)
			}
			r.Ack(settle)
		})
	settle := func(how func([]*Message)) func() {
		return func() {
			c.mu.Lock()
			all := kept
			kept, c.hold = nil, false
			c.mu.Unlock()
			how(all)
		}
	}
	c.ackKept, c.nackKept = settle(r.Ack), settle(r.Nack)
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go func() {
		defer close(c.done)
		_ = r.Receive(ctx)
	}()
	c.close = func() {
		flush, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.Flush(flush) // after a kill it fails
		r.Close()
		_ = client.Close()
	}
	return c
}

// receive notes a delivery, and reports whether to keep the message.
func (c *subject) receive(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got[id]++
	return c.hold
}

// distinct returns how many different messages have come.
func (c *subject) distinct() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// over reports whether receiving has ended.
func (c *subject) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// within polls like the function within, for an effect that our client must have after d.
func (c *subject) within(d time.Duration, ok func() bool) bool {
	if c.official {
		d = patience
	}
	return within(d, ok)
}

// stop ends the client in good order.
func (c *subject) stop() {
	c.nackKept()
	c.cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-c.done
		c.close()
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		c.close() // otherwise the official client does not end during an outage of Pub/Sub
		<-done
	}
}

// dialer dials until it is killed.
type dialer struct {
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

func (d *dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	d.conns = append(d.conns, conn)
	return conn, nil
}

// kill ends the connections, and those to come. The client then ends as by SIGKILL: it
// sends nothing further.
func (d *dialer) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	for _, conn := range d.conns {
		_ = conn.Close()
	}
}

// cutting is a connection that ends after a number of bytes have been read.
type cutting struct {
	net.Conn
	left int // bytes; one goroutine reads
}

func (c *cutting) Read(b []byte) (int, error) {
	if c.left <= 0 {
		_ = c.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}
