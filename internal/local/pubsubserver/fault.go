package pubsubserver

import (
	"context"
	"errors"
	"path"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FaultFunc decides about an RPC before it is served: its error, a gRPC status
// error, is the RPC's. The method is the RPC's bare name, such as "Publish" or
// "Acknowledge", and req its request.
//
// A StreamingPull is asked about with a nil req when it opens and as
// "StreamingPull.Send" with a SendInfo before each response with messages; an error ends the
// stream and the messages of the response stay leased.
//
// It is called from many goroutines and must not call Close.
type FaultFunc func(method string, req any) error

// SendInfo is the request that FaultFunc sees before a streaming response.
type SendInfo struct {
	Subscription string
	Messages     int
}

// ErrHang makes an RPC hang until its context ends, when a FaultFunc returns it.
var ErrHang = errors.New("hang")

// AfterServing returns what a FaultFunc returns to have the RPC served and then
// fail with err, as when the response gets lost. It has this effect on unary RPCs only.
func AfterServing(err error) error { return &afterServing{err} }

type afterServing struct{ err error }

func (a *afterServing) Error() string { return a.err.Error() }
func (a *afterServing) Unwrap() error { return a.err }

// SetFault installs f for all further RPCs and responses; nil removes it.
func (s *Server) SetFault(f FaultFunc) {
	if f == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&f)
}

// inject asks the fault hook. Without an error the RPC goes on, and fails with
// after, if there is one, once it is served.
func (s *Server) inject(ctx context.Context, method string, req any) (after, err error) {
	f := s.fault.Load()
	if f == nil {
		return nil, nil
	}
	err = (*f)(method, req)
	if late, ok := errors.AsType[*afterServing](err); ok {
		return late.err, nil
	}
	if errors.Is(err, ErrHang) {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return nil, err
}

func (s *Server) interceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	after, err := s.inject(ctx, path.Base(info.FullMethod), req)
	if err != nil {
		return nil, err
	}
	resp, err := handler(ctx, req)
	if err == nil && after != nil {
		return nil, after
	}
	return resp, err
}

func (s *Server) interceptStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if _, err := s.inject(stream.Context(), path.Base(info.FullMethod), nil); err != nil {
		return err
	}
	return handler(srv, stream)
}

// BreakStreams ends all open StreamingPull streams with err, as the service does
// now and then; nil means Unavailable. Leases run on.
func (s *Server) BreakStreams(err error) {
	if err == nil {
		err = status.Error(codes.Unavailable, "the stream was broken")
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for stream := range s.streams {
		stream.end(err)
	}
}

// Streams returns the number of open StreamingPull streams of a subscription.
func (s *Server) Streams(subscription string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for stream := range s.streams {
		if stream.sub.name == subscription {
			n++
		}
	}
	return n
}

// ExpireLeases ends all leases of a subscription at once, as if their deadlines
// had passed.
func (s *Server) ExpireLeases(subscription string) {
	if sub, err := s.subscription(subscription); err == nil {
		s.expireAll(sub)
	}
}
