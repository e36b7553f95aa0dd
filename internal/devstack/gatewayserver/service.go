package gatewayserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// service is the gRPC face of a Server.
type service struct {
	telemetrygatewayv1.UnimplementedTelemeteryGatewayServiceServer
	server *Server
}

// session is one RPC whose metadata was accepted.
type session struct {
	server   *Server
	info     StreamInfo      // Payload is that of the latest one
	metadata json.RawMessage // as it is rendered with every event
}

// RecordEvents implements the streaming RPC.
func (s *service) RecordEvents(stream telemetrygatewayv1.TelemeteryGatewayService_RecordEventsServer) error {
	ctx := stream.Context()
	var session *session
	defer func() {
		if session != nil {
			session.server.ledger.ended()
		}
	}()
	if s.server.down.Load() {
		return errDown
	}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if s.server.down.Load() {
			return errDown
		}
		switch payload := req.GetPayload().(type) {
		case nil:
			continue
		case *telemetrygatewayv1.RecordEventsRequest_Metadata:
			if session != nil {
				return status.Error(codes.InvalidArgument, "received metadata more than once")
			}
			if session, err = s.server.open(ctx, "RecordEvents", payload.Metadata); err != nil {
				return err
			}
		case *telemetrygatewayv1.RecordEventsRequest_Events:
			if session == nil {
				return status.Error(codes.InvalidArgument, "received events before the metadata")
			}
			if err := session.serve(ctx, payload.Events.GetEvents(), stream.Send); err != nil {
				return err
			}
		}
	}
}

// RecordEvent implements the unary RPC. An event that is not recorded is
// Internal, whatever the cause.
func (s *service) RecordEvent(ctx context.Context, req *telemetrygatewayv1.RecordEventRequest) (*telemetrygatewayv1.RecordEventResponse, error) {
	if s.server.down.Load() {
		return nil, errDown
	}
	session, err := s.server.open(ctx, "RecordEvent", req.GetMetadata())
	if err != nil {
		return nil, err
	}
	defer s.server.ledger.ended()
	if req.GetEvent() == nil {
		return nil, status.Error(codes.InvalidArgument, "an event is required")
	}
	recorded := false
	err = session.serve(ctx, []*Event{req.GetEvent()}, func(resp *telemetrygatewayv1.RecordEventsResponse) error {
		recorded = len(resp.GetSucceededEvents()) == 1
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !recorded:
		return nil, status.Error(codes.Internal, "failed to record the event")
	}
	return &telemetrygatewayv1.RecordEventResponse{}, nil
}

// open judges a stream's metadata and its token.
func (s *Server) open(ctx context.Context, method string, m *telemetrygatewayv1.RecordEventsRequestMetadata) (_ *session, err error) {
	s.ledger.arrived()
	defer func() {
		if err != nil {
			s.ledger.refuse()
		}
	}()
	managed := m.GetIdentifier().GetManagedService()
	info := StreamInfo{
		ID:     int(s.lastID.Add(1)),
		Method: method,
		Identity: Identity{
			ServiceID:   managed.GetServiceId(),
			Environment: managed.GetServiceEnvironment(),
		},
		RequestID: m.GetRequestId(),
	}
	if from, ok := peer.FromContext(ctx); ok {
		info.Peer = from.Addr.String()
	}
	fault := s.streamFault(info)
	if err := fault.wait(ctx); err != nil {
		return nil, err
	}
	if fault.Err != nil {
		return nil, fault.Err
	}
	if managed == nil {
		return nil, status.Error(codes.InvalidArgument, "the identifier must be that of a managed service")
	}
	if managed.GetServiceId() == "" {
		return nil, status.Error(codes.InvalidArgument, "service_id is required")
	}
	if err := s.authorize(ctx); err != nil {
		return nil, err
	}
	rendered, err := renderMetadata(m)
	if err != nil {
		return nil, status.Error(codes.Internal, "failed to render the metadata")
	}
	s.ledger.accepted(info.Identity)
	return &session{server: s, info: info, metadata: rendered}, nil
}

// authorize checks the RPC's token. Like the real gateway it does not say why it refuses a
// token.
func (s *Server) authorize(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	headers := md.Get("authorization")
	if len(headers) != 1 {
		return status.Error(codes.Unauthenticated, "one authorization header is required")
	}
	token, ok := strings.CutPrefix(headers[0], "Bearer ")
	if !ok || strings.TrimSpace(token) != token || token == "" {
		return status.Error(codes.Unauthenticated, "the authorization must be a bearer token")
	}
	if s.opts.Introspector == nil {
		return nil
	}
	active, scopes, _ := s.opts.Introspector.Introspect(token)
	if !active || !slices.Contains(scopes, RequiredScope) {
		return status.Error(codes.PermissionDenied, "permission denied")
	}
	return nil
}
