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

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/googlefront"
)

// Server is a running Pub/Sub. Its methods may be called from any goroutine.
type Server struct {
	addr  string
	front *googlefront.Front

	registry  *registry
	snapshots *snapshots
	faults    *faults
	policies  *policies
	openings  *openings
	streams   *streams

	stopLeases context.CancelFunc
	leaseLoop  sync.WaitGroup
	closing    sync.Once
}

// Start listens and serves until Close. ctx bounds the start only.
func Start(ctx context.Context, opts Options) (*Server, error) {
	opts = opts.withDefaults()
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for Pub/Sub: %w", err)
	}
	faults := &faults{}
	registry := newRegistry(opts.KeepSettings)
	s := &Server{
		addr:      listener.Addr().String(),
		registry:  registry,
		snapshots: newSnapshots(&registry.sequence),
		faults:    faults,
		policies:  &policies{registry: registry},
		openings:  newOpenings(faults),
		streams:   newStreams(),
	}
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(faults.interceptUnary),
		grpc.StreamInterceptor(faults.interceptStream),
	)
	pubsubpb.RegisterPublisherServer(server, &publisher{registry: registry})
	pubsubpb.RegisterSubscriberServer(server, &subscriber{
		opts: opts, registry: registry, snapshots: s.snapshots,
		faults: faults, openings: s.openings, streams: s.streams,
	})
	iampb.RegisterIAMPolicyServer(server, s.policies)

	leases, stop := context.WithCancel(context.Background())
	s.stopLeases = stop
	s.leaseLoop.Go(func() { registry.expireLeases(leases) })
	s.front = googlefront.Serve(listener, server, nil)
	return s, nil
}

// Addr returns the host:port that the server listens on, to be used as
// PUBSUB_EMULATOR_HOST.
func (s *Server) Addr() string { return s.addr }

// Front returns what accepts the server's connections, to refuse requests or to freeze a
// connection. An Opening says which connection a stream uses. Only Close may close the front.
func (s *Server) Front() *googlefront.Front { return s.front }

// Close cuts all connections and waits for everything that Start began. It may
// be called more than once.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.stopLeases()
		s.front.Close()
	})
	s.leaseLoop.Wait()
	s.streams.readers.Wait()
	return nil
}

// CreateTopic creates the topic of the full name "projects/p/topics/t".
func (s *Server) CreateTopic(name string) error {
	_, err := s.registry.createTopic(&pubsubpb.Topic{Name: name})
	return err
}

// CreateSubscription creates the subscription of the full name
// "projects/p/subscriptions/s" to topic, also a full name.
func (s *Server) CreateSubscription(name, topic string, opts ...SubscriptionOption) error {
	sub := &pubsubpb.Subscription{Name: name, Topic: topic}
	for _, o := range opts {
		o(sub)
	}
	_, err := s.registry.createSubscription(sub)
	return err
}

// SetSubscription makes a subscription tell other settings, whatever they are. How it
// delivers does not change, except that exactly-once delivery is switched.
func (s *Server) SetSubscription(p *pubsubpb.Subscription) error {
	sub, err := s.registry.subscription(p.GetName())
	if err != nil {
		return err
	}
	sub.proto.Store(proto.CloneOf(p))
	return nil
}

// Publish publishes in-process, as many messages as given, and returns their
// ids. Each must be one that the service would take.
func (s *Server) Publish(topic string, msgs ...*pubsubpb.PubsubMessage) ([]string, error) {
	return s.registry.publish(topic, msgs, 0)
}

// Stats returns the state of a subscription; zero if there is none of the name.
func (s *Server) Stats(name string) Stats {
	sub, err := s.registry.subscription(name)
	if err != nil {
		return Stats{}
	}
	return sub.queue.stats()
}

// Messages returns a copy of every message of the subscription that has not been
// acknowledged, leased ones too, in the order of publishing.
func (s *Server) Messages(name string) []*pubsubpb.PubsubMessage {
	sub, err := s.registry.subscription(name)
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
