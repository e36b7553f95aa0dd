package e2e_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// countingProxy is a proxy between a command of the dead-letter queue and the emulator that
// counts messages. Only a proxy can see that Pub/Sub redelivered a message because its
// lease had ended.
type countingProxy struct {
	pubsubpb.UnimplementedSubscriberServer
	pubsubpb.UnimplementedPublisherServer
	subs   pubsubpb.SubscriberClient
	topics pubsubpb.PublisherClient
	addr   string

	mu       sync.Mutex
	messages map[string]string   // ack id → message id
	seen     map[string]struct{} // ids of messages that were delivered
	leased   map[string]struct{} // of those, the ones neither nacked nor acked
	twice    int                 // deliveries of messages that were still leased
	renewed  int                 // leases that were extended
}

func newCountingProxy(t *testing.T, h *env) *countingProxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	h.must(err)
	s := &countingProxy{subs: h.subs, topics: h.topics, addr: l.Addr().String()}
	s.reset()
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(64<<20))
	pubsubpb.RegisterSubscriberServer(server, s)
	pubsubpb.RegisterPublisherServer(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // Stop ends it
	}()
	t.Cleanup(func() { server.Stop(); <-done })
	return s
}

// reset begins to count anew.
func (s *countingProxy) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages, s.seen, s.leased = map[string]string{}, map[string]struct{}{}, map[string]struct{}{}
	s.twice, s.renewed = 0, 0
}

// counted returns how many messages were delivered, how often a leased one was redelivered,
// and how many leases were extended.
func (s *countingProxy) counted() (delivered, twice, renewed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen), s.twice, s.renewed
}

// Pull passes on, and counts each message.
func (s *countingProxy) Pull(ctx context.Context, r *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	response, err := s.subs.Pull(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range response.GetReceivedMessages() {
		id := m.GetMessage().GetMessageId()
		if _, ok := s.leased[id]; ok {
			s.twice++
		}
		s.messages[m.GetAckId()] = id
		s.seen[id], s.leased[id] = struct{}{}, struct{}{}
	}
	return response, err
}

// ModifyAckDeadline passes on, and counts each lease.
func (s *countingProxy) ModifyAckDeadline(ctx context.Context, r *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	if r.GetAckDeadlineSeconds() == 0 {
		s.settle(r.GetAckIds())
	} else {
		s.mu.Lock()
		s.renewed += len(r.GetAckIds())
		s.mu.Unlock()
	}
	return s.subs.ModifyAckDeadline(ctx, r)
}

// Acknowledge passes on.
func (s *countingProxy) Acknowledge(ctx context.Context, r *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	s.settle(r.GetAckIds())
	return s.subs.Acknowledge(ctx, r)
}

// settle notes that the command has settled messages.
func (s *countingProxy) settle(ackIDs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ackIDs {
		delete(s.leased, s.messages[id])
	}
}

// Publish passes on.
func (s *countingProxy) Publish(ctx context.Context, r *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	return s.topics.Publish(ctx, r)
}
