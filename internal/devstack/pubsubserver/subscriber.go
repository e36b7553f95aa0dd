package pubsubserver

import (
	"context"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// subscriber is the Subscriber service of a Server.
type subscriber struct {
	pubsubpb.UnimplementedSubscriberServer
	server *Server
}

func (s *subscriber) CreateSubscription(_ context.Context, req *pubsubpb.Subscription) (*pubsubpb.Subscription, error) {
	return s.server.createSubscription(req)
}

func (s *subscriber) GetSubscription(_ context.Context, req *pubsubpb.GetSubscriptionRequest) (*pubsubpb.Subscription, error) {
	sub, err := s.server.subscription(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	return sub.proto.Load(), nil
}

func (s *subscriber) UpdateSubscription(_ context.Context, req *pubsubpb.UpdateSubscriptionRequest) (*pubsubpb.Subscription, error) {
	return s.server.updateSubscription(req.GetSubscription(), req.GetUpdateMask().GetPaths())
}

func (s *subscriber) ListSubscriptions(_ context.Context, req *pubsubpb.ListSubscriptionsRequest) (*pubsubpb.ListSubscriptionsResponse, error) {
	s.server.mu.RLock()
	defer s.server.mu.RUnlock()
	var names []string
	for name := range s.server.subscriptions {
		if strings.HasPrefix(name, req.GetProject()+"/") {
			names = append(names, name)
		}
	}
	names, next := page(names, req.GetPageSize(), req.GetPageToken())
	resp := &pubsubpb.ListSubscriptionsResponse{NextPageToken: next}
	for _, name := range names {
		resp.Subscriptions = append(resp.Subscriptions, s.server.subscriptions[name].proto.Load())
	}
	return resp, nil
}

func (s *subscriber) DeleteSubscription(_ context.Context, req *pubsubpb.DeleteSubscriptionRequest) (*emptypb.Empty, error) {
	if err := s.server.deleteSubscription(req.GetSubscription()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *subscriber) Pull(ctx context.Context, req *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	sub, err := s.server.subscription(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	if req.GetMaxMessages() <= 0 {
		return nil, status.Error(codes.InvalidArgument, "max_messages must be at least 1")
	}
	limit := min(int(req.GetMaxMessages()), maxResponseMessages)
	immediately := req.GetReturnImmediately() //nolint:staticcheck // deprecated, and yet served
	timer := time.NewTimer(s.server.opts.PullWait)
	defer timer.Stop()
	if servedAs(ctx).empty {
		limit = 0
	}
	c := newConsumer()
	defer sub.queue.leave(c)
	for {
		p := sub.proto.Load()
		out, err := sub.queue.take(c, limit, int(p.GetAckDeadlineSeconds()), nil)
		if err != nil {
			return nil, err
		}
		resp := &pubsubpb.PullResponse{}
		if len(out) > 0 || immediately {
			resp.ProtoReflect().SetUnknown(sub.appendReceived(nil, out))
			return resp, nil
		}
		select {
		case <-c.wake:
		case <-timer.C:
			return resp, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// appendReceived encodes the field received_messages, which has the same number
// in the responses to a Pull and to a StreamingPull. Messages are encoded once,
// when they are published, so what takes most of the time of a delivery is a
// copy; responses carry it as if it were a field that they do not know.
func (sub *subscription) appendReceived(b []byte, out []delivered) []byte {
	countAttempts := sub.proto.Load().GetDeadLetterPolicy() != nil
	const ackIDField = 1 + 2 + ackIDLength // the length takes two bytes
	for _, d := range out {
		size := ackIDField + 1 + protowire.SizeBytes(len(d.encoded))
		if countAttempts {
			size += 1 + protowire.SizeVarint(uint64(d.attempt))
		}
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(size))
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendVarint(b, ackIDLength)
		b = appendAckID(b, sub.queue.tag, d.slot, d.delivery)
		b = protowire.AppendTag(b, 2, protowire.BytesType)
		b = protowire.AppendBytes(b, d.encoded)
		if countAttempts {
			b = protowire.AppendTag(b, 3, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(d.attempt))
		}
	}
	return b
}

func (s *subscriber) Acknowledge(ctx context.Context, req *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	sub, err := s.server.subscription(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	if err := checkAckRequest(req, len(req.GetAckIds())); err != nil {
		return nil, err
	}
	if err := s.server.acknowledge(sub, req.GetAckIds(), servedAs(ctx).failures); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *subscriber) ModifyAckDeadline(ctx context.Context, req *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	sub, err := s.server.subscription(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	if err := checkAckRequest(req, len(req.GetAckIds())); err != nil {
		return nil, err
	}
	seconds := req.GetAckDeadlineSeconds()
	if err := checkLease(seconds); err != nil {
		return nil, err
	}
	if err := s.server.modifyDeadline(sub, req.GetAckIds(), int(seconds), servedAs(ctx).failures); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

var errAckID = status.Error(codes.InvalidArgument, "You have passed an invalid ack ID to the service (not one of this subscription's).")

func checkAckRequest(req proto.Message, ids int) error {
	if ids == 0 {
		return status.Error(codes.InvalidArgument, "No ack ids specified.")
	}
	return checkAckBytes(req)
}

func checkAckBytes(req proto.Message) error {
	if n := proto.Size(req); n > MaxAckRequestBytes {
		return status.Errorf(codes.InvalidArgument, "Request payload size exceeds the limit: %d bytes, not %d.", MaxAckRequestBytes, n)
	}
	return nil
}

func checkLease(seconds int32) error {
	if seconds < 0 || seconds > int32(maxLeaseSeconds) {
		return status.Errorf(codes.InvalidArgument, "Invalid ack deadline given: it must be between 0 and %d seconds, not %d.", maxLeaseSeconds, seconds)
	}
	return nil
}

// modify gives leases a new length and returns the ids of those that an exactly-once
// subscription does not have.
func (s *Server) modify(sub *subscription, ids []string, seconds func(i int) int) (invalid []string, err error) {
	var deads []dead
	if sub.exactlyOnce() {
		deads, invalid = sub.queue.modifyExactly(ids, seconds)
	} else {
		var ok bool
		if deads, ok = sub.queue.modify(ids, seconds); !ok {
			return nil, errAckID
		}
	}
	s.deadLetter(sub, deads)
	return invalid, nil
}

func (s *Server) expireAll(sub *subscription) {
	s.deadLetter(sub, sub.queue.expire(time.Time{}, true))
}
