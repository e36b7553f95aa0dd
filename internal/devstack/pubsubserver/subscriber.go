package pubsubserver

import (
	"context"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// subscriber is the Subscriber service of a Server.
type subscriber struct {
	pubsubpb.UnimplementedSubscriberServer
	opts      Options
	registry  *registry
	snapshots *snapshots
	faults    *faults
	openings  *openings
	streams   *streams
}

func (s *subscriber) CreateSubscription(_ context.Context, req *pubsubpb.Subscription) (*pubsubpb.Subscription, error) {
	return s.registry.createSubscription(req)
}

func (s *subscriber) GetSubscription(_ context.Context, req *pubsubpb.GetSubscriptionRequest) (*pubsubpb.Subscription, error) {
	sub, err := s.registry.subscription(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	return sub.proto.Load(), nil
}

func (s *subscriber) UpdateSubscription(_ context.Context, req *pubsubpb.UpdateSubscriptionRequest) (*pubsubpb.Subscription, error) {
	return s.registry.updateSubscription(req.GetSubscription(), req.GetUpdateMask().GetPaths())
}

func (s *subscriber) ListSubscriptions(_ context.Context, req *pubsubpb.ListSubscriptionsRequest) (*pubsubpb.ListSubscriptionsResponse, error) {
	subs, next := s.registry.listSubscriptions(req.GetProject(), req.GetPageSize(), req.GetPageToken())
	return &pubsubpb.ListSubscriptionsResponse{Subscriptions: subs, NextPageToken: next}, nil
}

func (s *subscriber) DeleteSubscription(_ context.Context, req *pubsubpb.DeleteSubscriptionRequest) (*emptypb.Empty, error) {
	if err := s.registry.deleteSubscription(req.GetSubscription()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *subscriber) Pull(ctx context.Context, req *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	sub, err := s.registry.subscription(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	if req.GetMaxMessages() <= 0 {
		return nil, status.Error(codes.InvalidArgument, "max_messages must be at least 1")
	}
	limit := min(int(req.GetMaxMessages()), maxResponseMessages)
	immediately := req.GetReturnImmediately() //nolint:staticcheck // deprecated, and yet served
	timer := time.NewTimer(s.opts.PullWait)
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

func (s *subscriber) Acknowledge(ctx context.Context, req *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	sub, err := s.registry.subscription(req.GetSubscription())
	if err != nil {
		return nil, err
	}
	if err := checkAckRequest(req, len(req.GetAckIds())); err != nil {
		return nil, err
	}
	if err := sub.acknowledge(req.GetAckIds(), servedAs(ctx).failures); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *subscriber) ModifyAckDeadline(ctx context.Context, req *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	sub, err := s.registry.subscription(req.GetSubscription())
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
	if err := sub.modifyDeadline(req.GetAckIds(), int(seconds), servedAs(ctx).failures); err != nil {
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
