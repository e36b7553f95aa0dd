package gatewayserver

import (
	"context"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/bundle"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// Event is the gateway's event.
type Event = telemetrygatewayv1.Event

// Phase is the moment at which a Fault's Err ends the stream.
type Phase int

const (
	// BeforeRecording: nothing of the payload is recorded.
	BeforeRecording Phase = iota
	// BeforeResponding: the payload is recorded, its response is not sent.
	BeforeResponding
	// AfterResponding: recorded and responded, then the stream is cut.
	AfterResponding
)

// Fault is a failure of the server; the zero value is none. Delay and Hang come first,
// then Err or Omit.
type Fault struct {
	// Err, a gRPC status error, ends the RPC.
	Err error
	// Phase says when Err does so; on a stream's metadata there is only
	// BeforeRecording.
	Phase Phase
	// Delay is waited for, or until the RPC's context ends.
	Delay time.Duration
	// Hang waits until the RPC's context ends.
	Hang bool
	// Omit and OmitAll leave events out of a payload's response, the status
	// being OK, as when the gateway's backend fails.
	Omit    []string
	OmitAll bool
	// RecordOmitted records the omitted events nevertheless, as when the backend's
	// answer was lost.
	RecordOmitted bool
}

// StreamInfo is one RPC.
type StreamInfo struct {
	// ID counts the RPCs of a server, from 1.
	ID int
	// Method is "RecordEvents" or "RecordEvent".
	Method string
	// Identity and RequestID come from the metadata.
	Identity  Identity
	RequestID string
	// Peer is the address that the RPC's connection comes from.
	Peer string
	// Payload counts the stream's payloads from 1; 0 when the metadata arrives.
	Payload int
}

// Identity is a managed service in one of its environments.
type Identity struct {
	ServiceID, Environment string
}

// OnStreamFunc decides about a stream when its metadata arrives, before the
// metadata and the token are checked.
type OnStreamFunc func(StreamInfo) Fault

// OnPayloadFunc decides about one payload before any of it is recorded. It must
// not change the events.
type OnPayloadFunc func(StreamInfo, []*Event) Fault

// SetOnStream installs f for all further streams; nil removes it.
func (s *Server) SetOnStream(f OnStreamFunc) {
	if f == nil {
		s.onStream.Store(nil)
		return
	}
	s.onStream.Store(&f)
}

// SetOnPayload installs f for all further payloads; nil removes it.
func (s *Server) SetOnPayload(f OnPayloadFunc) {
	if f == nil {
		s.onPayload.Store(nil)
		return
	}
	s.onPayload.Store(&f)
}

// LoseFunc decides about one request that publishes events, of several payloads
// and streams, to the gateway's backend: true is a failure of the backend, and
// all of them are left out. It is called by one goroutine at a time.
type LoseFunc func(ids []string) bool

// SetLose installs f for all further requests; nil removes it.
func (s *Server) SetLose(f LoseFunc) {
	if f == nil {
		s.loss.Store(nil)
		return
	}
	s.loss.Store(&f)
}

func (s *Server) lose(messages []bundle.Message) bool {
	f := s.loss.Load()
	if f == nil {
		return false
	}
	ids := make([]string, len(messages))
	for i, m := range messages {
		ids[i] = m.ID
	}
	return (*f)(ids)
}

// SetDown makes the server refuse everything with Unavailable, or serve again.
// Streams that are open are refused at their next message.
func (s *Server) SetDown(down bool) { s.down.Store(down) }

// RetryAfter returns a status error that tells the client when to come back.
func RetryAfter(code codes.Code, message string, delay time.Duration) error {
	st, err := status.New(code, message).WithDetails(&errdetails.RetryInfo{
		RetryDelay: durationpb.New(delay),
	})
	if err != nil { // code is OK, which cannot have details
		return status.Error(codes.Internal, err.Error())
	}
	return st.Err()
}

var errDown = status.Error(codes.Unavailable, "the gateway is down")

func (s *Server) streamFault(info StreamInfo) Fault {
	if f := s.onStream.Load(); f != nil {
		return (*f)(info)
	}
	return Fault{}
}

func (s *Server) payloadFault(info StreamInfo, events []*Event) Fault {
	if f := s.onPayload.Load(); f != nil {
		return (*f)(info, events)
	}
	return Fault{}
}

// wait does the fault's waiting; its error is the status of an ended context.
func (f Fault) wait(ctx context.Context) error {
	if f.Hang {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	if f.Delay <= 0 {
		return nil
	}
	timer := time.NewTimer(f.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// omits returns a function that reports whether an id is to be left out.
func (f Fault) omits() func(id string) bool {
	if f.OmitAll {
		return func(string) bool { return true }
	}
	ids := make(map[string]struct{}, len(f.Omit))
	for _, id := range f.Omit {
		ids[id] = struct{}{}
	}
	return func(id string) bool {
		_, ok := ids[id]
		return ok
	}
}
