package pubsubserver

import (
	"context"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
)

// publisher is the Publisher service of a Server.
type publisher struct {
	pubsubpb.UnimplementedPublisherServer
	registry *registry
}

func (p *publisher) CreateTopic(_ context.Context, req *pubsubpb.Topic) (*pubsubpb.Topic, error) {
	return p.registry.createTopic(req)
}

func (p *publisher) GetTopic(_ context.Context, req *pubsubpb.GetTopicRequest) (*pubsubpb.Topic, error) {
	return p.registry.topic(req.GetTopic())
}

func (p *publisher) ListTopics(_ context.Context, req *pubsubpb.ListTopicsRequest) (*pubsubpb.ListTopicsResponse, error) {
	topics, next := p.registry.listTopics(req.GetProject(), req.GetPageSize(), req.GetPageToken())
	return &pubsubpb.ListTopicsResponse{Topics: topics, NextPageToken: next}, nil
}

func (p *publisher) ListTopicSubscriptions(_ context.Context, req *pubsubpb.ListTopicSubscriptionsRequest) (*pubsubpb.ListTopicSubscriptionsResponse, error) {
	subs, err := p.registry.subscribers(req.GetTopic())
	if err != nil {
		return nil, err
	}
	names := make([]string, len(subs))
	for i, sub := range subs {
		names[i] = sub.name
	}
	names, next := page(names, req.GetPageSize(), req.GetPageToken())
	return &pubsubpb.ListTopicSubscriptionsResponse{Subscriptions: names, NextPageToken: next}, nil
}

func (p *publisher) DeleteTopic(_ context.Context, req *pubsubpb.DeleteTopicRequest) (*emptypb.Empty, error) {
	if err := p.registry.deleteTopic(req.GetTopic()); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (p *publisher) Publish(_ context.Context, req *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	switch n := len(req.GetMessages()); {
	case n == 0:
		return nil, status.Error(codes.InvalidArgument, "The request contains no messages.")
	case n > MaxPublishMessages:
		return nil, status.Errorf(codes.InvalidArgument, "The value for message_count is too large. You passed %d in the request, but the maximum value is %d.", n, MaxPublishMessages)
	}
	topic := req.GetTopic()
	ids, err := p.registry.publish(topic, req.GetMessages(), protowire.SizeTag(1)+protowire.SizeBytes(len(topic)))
	if err != nil {
		return nil, err
	}
	return &pubsubpb.PublishResponse{MessageIds: ids}, nil
}
