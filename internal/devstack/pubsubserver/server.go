// Package pubsubserver is an embedded Pub/Sub over real gRPC. Topics, subscriptions,
// leases, server-side flow control, exactly-once delivery per ack id and the native
// dead-letter policy behave like the service's, and fail on demand. No message has a
// goroutine or a timer of its own, because tests and benchmarks use millions of them.
//
// The server is as strict as the service is known or reported to be. Where the service's
// behaviour is unknown, the server behaves in the stricter way:
//
//   - It takes the content type application/grpc only (package googlefront).
//   - It ends a StreamingPull whose client has sent nothing for a minute
//     (Options.StreamIdle), and answers the pings of clients with protocol_version 1 only.
//   - A message that a StreamingPull delivers has a lease of ten minutes until its first
//     ModifyAckDeadline (Options.DeliveryLease).
//   - One message over the limits makes it refuse a whole publish request, with all other
//     messages in it.
//   - A subscription with exactly-once delivery answers for each ack id that has expired
//     (google-cloud-ruby#18236).
//   - It makes no snapshot that would expire within an hour, and brings back by a seek only
//     what was published after the subscription was created.
//
// The server has no retention, retry policies, filters, ordering (it delivers keys, in any
// order), push, schemas, or seek to a time. It refuses a subscription with one of these, if
// that would change which messages are delivered.
package pubsubserver

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/googlefront"
)

// Server is a running Pub/Sub. Its methods may be called from any goroutine.
type Server struct {
	opts  Options
	addr  string
	front *googlefront.Front

	fault  atomic.Pointer[FaultFunc]
	permit atomic.Pointer[PermitFunc]
	number atomic.Uint64 // the last message's
	// sequence is locked while the numbers of messages are given and the messages come into
	// the subscriptions, so that a snapshot sees either all of a request or nothing.
	sequence  sync.RWMutex
	snapshots snapshots

	openings openings

	mu            sync.RWMutex // guards everything below, and the topics' fields
	topics        map[string]*topic
	subscriptions map[string]*subscription
	streams       map[*pullStream]struct{}

	stopLeases context.CancelFunc
	background sync.WaitGroup // the lease loop, the streams' readers
	closing    sync.Once
}

type topic struct {
	proto *pubsubpb.Topic // replaced, never changed
	// subscriptions is replaced, never changed, so that a publisher can use it
	// without the lock.
	subscriptions []*subscription
}

type subscription struct {
	name  string
	queue *queue
	born  uint64                                // the last message's number when it was created
	proto atomic.Pointer[pubsubpb.Subscription] // replaced, never changed
	pings atomic.Int64
}

func (sub *subscription) exactlyOnce() bool { return sub.proto.Load().GetEnableExactlyOnceDelivery() }

// Start listens and serves until Close. ctx bounds the start only.
func Start(ctx context.Context, opts Options) (*Server, error) {
	opts = opts.withDefaults()
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for Pub/Sub: %w", err)
	}
	s := &Server{
		opts:          opts,
		addr:          listener.Addr().String(),
		topics:        map[string]*topic{},
		subscriptions: map[string]*subscription{},
		streams:       map[*pullStream]struct{}{},
		openings:      openings{seen: map[string][]Opening{}},
		snapshots:     snapshots{all: map[string]*snapshot{}},
	}
	// Ids must differ from those of an earlier server, because consumers derive ids of
	// events from them.
	s.number.Store(uint64(time.Now().UnixMicro()))
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(s.interceptUnary),
		grpc.StreamInterceptor(s.interceptStream),
	)
	pubsubpb.RegisterPublisherServer(server, &publisher{server: s})
	pubsubpb.RegisterSubscriberServer(server, &subscriber{server: s})
	iampb.RegisterIAMPolicyServer(server, &policies{server: s})

	leases, stop := context.WithCancel(context.Background())
	s.stopLeases = stop
	s.background.Go(func() { s.expireLeases(leases) })
	s.front = googlefront.Serve(listener, server, nil)
	return s, nil
}

// Addr returns the host:port that the server listens on, to be used as
// PUBSUB_EMULATOR_HOST.
func (s *Server) Addr() string { return s.addr }

// Close cuts all connections and waits for everything that Start began. It may
// be called more than once.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.stopLeases()
		s.front.Close()
	})
	s.background.Wait()
	return nil
}

// expireLeases is the one goroutine that ends the leases of all subscriptions.
func (s *Server) expireLeases(ctx context.Context) {
	ticker := time.NewTicker(leaseTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, sub := range s.allSubscriptions() {
				s.deadLetter(sub, sub.queue.expire(now, false))
			}
		}
	}
}

func (s *Server) allSubscriptions() []*subscription {
	s.mu.RLock()
	defer s.mu.RUnlock()
	subs := make([]*subscription, 0, len(s.subscriptions))
	for _, sub := range s.subscriptions {
		subs = append(subs, sub)
	}
	return subs
}

func (s *Server) subscription(name string) (*subscription, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sub := s.subscriptions[name]; sub != nil {
		return sub, nil
	}
	return nil, status.Errorf(codes.NotFound, "Resource not found (resource=%s).", name)
}

// CreateTopic creates the topic of the full name "projects/p/topics/t".
func (s *Server) CreateTopic(name string) error {
	_, err := s.createTopic(&pubsubpb.Topic{Name: name})
	return err
}

// CreateSubscription creates the subscription of the full name
// "projects/p/subscriptions/s" to topic, also a full name.
func (s *Server) CreateSubscription(name, topic string, opts ...SubscriptionOption) error {
	sub := &pubsubpb.Subscription{Name: name, Topic: topic}
	for _, o := range opts {
		o(sub)
	}
	_, err := s.createSubscription(sub)
	return err
}

// Publish publishes in-process, as many messages as given, and returns their
// ids. Each must be one that the service would take.
func (s *Server) Publish(topic string, msgs ...*pubsubpb.PubsubMessage) ([]string, error) {
	return s.publish(topic, msgs, 0)
}

// Stats returns the state of a subscription; zero if there is none of the name.
func (s *Server) Stats(name string) Stats {
	sub, err := s.subscription(name)
	if err != nil {
		return Stats{}
	}
	return sub.queue.stats()
}

// Messages returns a copy of every message of the subscription that has not been
// acknowledged, leased ones too, in the order of publishing.
func (s *Server) Messages(name string) []*pubsubpb.PubsubMessage {
	sub, err := s.subscription(name)
	if err != nil {
		return nil
	}
	messages := sub.queue.snapshot()
	out := make([]*pubsubpb.PubsubMessage, len(messages))
	for i, m := range messages {
		out[i] = m.decode()
	}
	return out
}

// decode undoes the encoding of Publish, which cannot fail.
func (m message) decode() *pubsubpb.PubsubMessage {
	decoded := &pubsubpb.PubsubMessage{}
	if err := proto.Unmarshal(m.encoded, decoded); err != nil {
		panic(fmt.Sprintf("decode an own message: %v", err))
	}
	return decoded
}
