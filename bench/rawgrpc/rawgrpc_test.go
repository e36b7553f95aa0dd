package rawgrpc

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// echo serves a method that returns its requests, and returns a client of it.
func echo(t *testing.T, opts Options) *grpc.ClientConn {
	t.Helper()
	addr, stop, err := Serve(opts, func(_ string, s Stream) error {
		b, err := s.Recv()
		if err != nil {
			return err
		}
		return s.Send(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestDistanceDelaysBytes(t *testing.T) {
	const distance = 40 * time.Millisecond
	conn := echo(t, Options{Distance: distance})
	sent := wrapperspb.Bytes(bytes.Repeat([]byte("telemetry"), 50_000)) // many parcels
	for range 3 {
		began := time.Now()
		received := &wrapperspb.BytesValue{}
		if err := conn.Invoke(t.Context(), "/test.Echo/Echo", sent, received); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < distance {
			t.Errorf("an answer came after %v", took)
		}
		if !bytes.Equal(received.GetValue(), sent.GetValue()) {
			t.Error("other bytes arrived")
		}
	}
}

func TestOtherContentTypesAreRefused(t *testing.T) {
	conn := echo(t, Options{})
	for want, opts := range map[codes.Code][]grpc.CallOption{
		codes.OK:            nil,
		codes.Unimplemented: {grpc.CallContentSubtype("proto")},
	} {
		err := conn.Invoke(t.Context(), "/test.Echo/Echo", &emptypb.Empty{}, &emptypb.Empty{}, opts...)
		if got := status.Code(err); got != want {
			t.Errorf("code %v (%v), want %v", got, err, want)
		}
	}
}
