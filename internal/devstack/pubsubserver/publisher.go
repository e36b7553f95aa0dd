package pubsubserver

import (
	"context"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
)

// publisher is the Publisher service of a Server.
type publisher struct {
	pubsubpb.UnimplementedPublisherServer
	server *Server
}

func (p *publisher) CreateTopic(_ context.Context, req *pubsubpb.Topic) (*pubsubpb.Topic, error) {
	return p.server.createTopic(req)
}

func (p *publisher) GetTopic(_ context.Context, req *pubsubpb.GetTopicRequest) (*pubsubpb.Topic, error) {
	p.server.mu.RLock()
	defer p.server.mu.RUnlock()
	if t := p.server.topics[req.GetTopic()]; t != nil {
		return t.proto, nil
	}
	return nil, status.Errorf(codes.NotFound, "Resource not found (resource=%s).", req.GetTopic())
}

func (p *publisher) ListTopics(_ context.Context, req *pubsubpb.ListTopicsRequest) (*pubsubpb.ListTopicsResponse, error) {
	p.server.mu.RLock()
	defer p.server.mu.RUnlock()
	var names []string
	for name := range p.server.topics {
		if strings.HasPrefix(name, req.GetProject()+"/") {
			names = append(names, name)
		}
	}
	names, next := page(names, req.GetPageSize(), req.GetPageToken())
	resp := &pubsubpb.ListTopicsResponse{NextPageToken: next}
	for _, name := range names {
		resp.Topics = append(resp.Topics, p.server.topics[name].proto)
	}
	return resp, nil
}

func (p *publisher) ListTopicSubscriptions(_ context.Context, req *pubsubpb.ListTopicSubscriptionsRequest) (*pubsubpb.ListTopicSubscriptionsResponse, error) {
	subs, err := p.server.subscribers(req.GetTopic())
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
	if err := p.server.deleteTopic(req.GetTopic()); err != nil {
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
	ids, err := p.server.publish(topic, req.GetMessages(), protowire.SizeTag(1)+protowire.SizeBytes(len(topic)))
	if err != nil {
		return nil, err
	}
	return &pubsubpb.PublishResponse{MessageIds: ids}, nil
}
