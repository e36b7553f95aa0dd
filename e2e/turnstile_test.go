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

// turnstile stands between a command of the dead-letter queue and the emulator,
// and counts what passes: only from there can it be seen that Pub/Sub delivered
// a letter again because its lease had ended.
type turnstile struct {
	pubsubpb.UnimplementedSubscriberServer
	pubsubpb.UnimplementedPublisherServer
	subs   pubsubpb.SubscriberClient
	topics pubsubpb.PublisherClient
	addr   string

	mu         sync.Mutex
	deliveries map[string]int // by message id, in the command that is running
	renewed    int            // leases that were extended
	released   int
}

func newTurnstile(t *testing.T, h *house) *turnstile {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	h.must(err)
	s := &turnstile{subs: h.subs, topics: h.topics, addr: l.Addr().String()}
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
func (s *turnstile) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliveries, s.renewed, s.released = map[string]int{}, 0, 0
}

// counted returns how many messages were delivered, how many of them more than
// once, and how many leases were renewed and released.
func (s *turnstile) counted() (delivered, again, renewed, released int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.deliveries {
		if n > 1 {
			again++
		}
	}
	return len(s.deliveries), again, s.renewed, s.released
}

// Pull passes on, and counts each message.
func (s *turnstile) Pull(ctx context.Context, r *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	response, err := s.subs.Pull(ctx, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range response.GetReceivedMessages() {
		s.deliveries[m.GetMessage().GetMessageId()]++
	}
	return response, err
}

// ModifyAckDeadline passes on, and counts each lease.
func (s *turnstile) ModifyAckDeadline(ctx context.Context, r *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	if r.GetAckDeadlineSeconds() == 0 {
		s.released += len(r.GetAckIds())
	} else {
		s.renewed += len(r.GetAckIds())
	}
	s.mu.Unlock()
	return s.subs.ModifyAckDeadline(ctx, r)
}

// Acknowledge passes on.
func (s *turnstile) Acknowledge(ctx context.Context, r *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	return s.subs.Acknowledge(ctx, r)
}

// Publish passes on.
func (s *turnstile) Publish(ctx context.Context, r *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	return s.topics.Publish(ctx, r)
}
