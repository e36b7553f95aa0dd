// Package rawgrpc serves gRPC without generated code: requests and responses are bytes. The
// benchmark's servers share the machine with the measured process, so they must cost almost
// nothing.
package rawgrpc

import (
	"errors"
	"math"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// contentType is the only content type that is served.
const contentType = "application/grpc"

// Stream is a call of any kind.
type Stream struct{ grpc.ServerStream }

// Recv returns the next request, or io.EOF at the end. The request is valid until the next
// call.
func (s Stream) Recv() ([]byte, error) {
	var f frame
	if err := s.RecvMsg(&f); err != nil {
		return nil, err
	}
	return f.in, nil
}

// Send sends a response, which must not be changed afterwards.
func (s Stream) Send(b []byte) error {
	return s.SendMsg(frame{out: mem.BufferSlice{mem.SliceBuffer(b)}})
}

// SendPooled sends a response and returns its memory to the pool.
func (s Stream) SendPooled(b *[]byte) error {
	return s.SendMsg(frame{out: mem.BufferSlice{mem.NewBuffer(b, mem.DefaultBufferPool())}})
}

// Options of a server.
type Options struct {
	// MaxStreams is how many streams a connection may have at once
	// (SETTINGS_MAX_CONCURRENT_STREAMS); 0: any number.
	MaxStreams uint32
	// Distance is the round-trip time to the server.
	Distance time.Duration
}

// Serve serves on a port of its own until stop is called. The handler is given
// the full name of the method.
func Serve(opts Options, handler func(method string, s Stream) error) (addr string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with the process
	if err != nil {
		return "", nil, err
	}
	if opts.Distance > 0 {
		listener = distantListener{listener, opts.Distance / 2}
	}
	maxStreams := opts.MaxStreams
	if maxStreams == 0 {
		maxStreams = math.MaxUint32
	}
	server := grpc.NewServer(
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(64<<20),
		grpc.InitialWindowSize(8<<20),
		grpc.InitialConnWindowSize(16<<20),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			// Google's front ends answer other content types with HTTP 404, which clients
			// turn into Unimplemented. The status alone is enough here.
			if kind := metadata.ValueFromIncomingContext(stream.Context(), "content-type"); len(kind) != 1 || kind[0] != contentType {
				return status.Errorf(codes.Unimplemented, "the content type is %q, not %s", kind, contentType)
			}
			method, ok := grpc.MethodFromServerStream(stream)
			if !ok {
				return status.Error(codes.Internal, "no method")
			}
			return handler(method, Stream{stream})
		}),
	)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // it ends when it is stopped
	}()
	return listener.Addr().String(), func() { server.Stop(); <-done }, nil
}

type frame struct {
	in  []byte
	out mem.BufferSlice
}

type codec struct{}

// Name is the name of the encoding on the wire.
func (codec) Name() string { return "proto" }

// Marshal passes the bytes on.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(frame)
	if !ok {
		return nil, errors.New("rawgrpc: unknown type")
	}
	return f.out, nil
}

// Unmarshal passes the bytes on.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return errors.New("rawgrpc: unknown type")
	}
	f.in = data.Materialize()
	return nil
}
