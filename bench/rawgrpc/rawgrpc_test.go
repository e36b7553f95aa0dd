package rawgrpc

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestOtherContentTypesAreRefused(t *testing.T) {
	addr, stop, err := Serve(func(_ string, s Stream) error {
		b, err := s.Recv()
		if err != nil {
			return err
		}
		return s.Send(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
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
