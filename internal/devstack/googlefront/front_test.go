package googlefront

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTimeout = 20 * time.Second

// echoMethod is a bidirectional stream that sends back what it receives.
const echoMethod = "/test.Echo/Echo"

var echoDesc = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// fixture is a front of a server that handles every method with handler.
type fixture struct {
	*Front
	t    testing.TB
	ctx  context.Context
	addr string
}

func newFixture(t testing.TB, handler func(grpc.ServerStream) error) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	must(t, err)
	server := grpc.NewServer(
		grpc.WaitForHandlers(true), grpc.MaxRecvMsgSize(64<<20),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { return handler(stream) }),
	)
	front := Serve(listener, server, nil)
	t.Cleanup(front.Close)
	return &fixture{Front: front, t: t, ctx: ctx, addr: listener.Addr().String()}
}

func (f *fixture) dial(opts ...grpc.DialOption) *grpc.ClientConn {
	f.t.Helper()
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
	}, opts...)
	conn, err := grpc.NewClient(f.addr, opts...)
	must(f.t, err)
	f.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (f *fixture) echo(ctx context.Context, conn *grpc.ClientConn, opts ...grpc.CallOption) grpc.ClientStream {
	f.t.Helper()
	stream, err := conn.NewStream(ctx, echoDesc, echoMethod, opts...)
	must(f.t, err)
	return stream
}

func (f *fixture) roundTrip(stream grpc.ClientStream, text string) {
	f.t.Helper()
	must(f.t, stream.SendMsg(wrapperspb.String(text)))
	got := &wrapperspb.StringValue{}
	must(f.t, stream.RecvMsg(got))
	if got.GetValue() != text {
		f.t.Fatalf("%d bytes came back, want %d", len(got.GetValue()), len(text))
	}
}

func echo(stream grpc.ServerStream) error {
	for {
		m := &wrapperspb.StringValue{}
		if err := stream.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("code %v (%v), want %v", got, err, want)
	}
}

func TestContentType(t *testing.T) {
	f := newFixture(t, func(stream grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		if got := md.Get("content-type"); len(got) != 1 || got[0] != ContentType {
			t.Errorf("the handler sees the content types %q", got)
		}
		return echo(stream)
	})
	conn := f.dial()
	f.roundTrip(f.echo(f.ctx, conn), "text")
	err := f.echo(f.ctx, conn, grpc.CallContentSubtype("proto")).RecvMsg(&wrapperspb.StringValue{})
	wantCode(t, err, codes.Unimplemented)
	if err == nil || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "text/html") {
		t.Errorf("the refusal is %v", err)
	}
}

// Google's front ends put a Date into every answer; clients may compare clocks by it.
func TestEveryAnswerHasADate(t *testing.T) {
	f := newFixture(t, func(stream grpc.ServerStream) error {
		if md, _ := metadata.FromIncomingContext(stream.Context()); len(md.Get("refuse")) > 0 {
			return status.Error(codes.Unavailable, "for a moment")
		}
		return echo(stream)
	})
	conn := f.dial()
	for name, ctx := range map[string]context.Context{
		"served": f.ctx, "refused": metadata.AppendToOutgoingContext(f.ctx, "refuse", "true"),
	} {
		before := time.Now().Truncate(time.Second)
		stream := f.echo(ctx, conn)
		if name == "served" {
			f.roundTrip(stream, "text")
		} else {
			wantCode(t, stream.RecvMsg(&wrapperspb.StringValue{}), codes.Unavailable)
		}
		header, err := stream.Header()
		must(t, err)
		if len(header.Get("date")) != 1 {
			t.Errorf("%s: the header is %v, want one date", name, header)
			continue
		}
		if date, err := http.ParseTime(header.Get("date")[0]); err != nil || date.Before(before) || date.After(time.Now()) {
			t.Errorf("%s: the date is %v (%v)", name, date, err)
		}
	}
}

func TestOtherRequestsAreNotFound(t *testing.T) {
	f := newFixture(t, echo)
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, "http://"+f.addr+"/<b>", nil)
	must(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusNotFound || resp.Header.Get("Content-Type") != "text/html; charset=UTF-8" ||
		!strings.Contains(string(body), "&lt;b&gt;") {
		t.Errorf("%s %v\n%s", resp.Status, resp.Header, body)
	}
}

func TestRefuseAnswersWithoutServer(t *testing.T) {
	f := newFixture(t, echo)
	conn := f.dial()
	refused := func() error { return f.echo(f.ctx, conn).RecvMsg(&wrapperspb.StringValue{}) }
	open := f.echo(f.ctx, conn)
	f.roundTrip(open, "before")
	f.Refuse(2)
	wantCode(t, refused(), codes.Unimplemented)
	wantCode(t, refused(), codes.Unimplemented)
	f.roundTrip(f.echo(f.ctx, conn), "after two")
	f.Refuse(-1)
	for range 3 {
		wantCode(t, refused(), codes.Unimplemented)
	}
	f.Refuse(0)
	f.roundTrip(f.echo(f.ctx, conn), "after all")
	f.roundTrip(open, "all the while")
}

func TestLargeMessages(t *testing.T) {
	f := newFixture(t, echo)
	stream := f.echo(f.ctx, f.dial())
	f.roundTrip(stream, strings.Repeat("x", 20<<20))
	must(t, stream.CloseSend())
	if err := stream.RecvMsg(&wrapperspb.StringValue{}); !errors.Is(err, io.EOF) {
		t.Errorf("after the half close: %v", err)
	}
}

// An answer per id to 2,500 ack ids is that long.
func TestLargeTrailers(t *testing.T) {
	results := map[string]string{}
	for i := range 2500 {
		results[fmt.Sprintf("%0192d", i)] = "PERMANENT_FAILURE_INVALID_ACK_ID"
	}
	f := newFixture(t, func(grpc.ServerStream) error {
		st, err := status.New(codes.InvalidArgument, "per id").WithDetails(&errdetails.ErrorInfo{Metadata: results})
		if err != nil {
			return err
		}
		return st.Err()
	})
	err := f.echo(f.ctx, f.dial()).RecvMsg(&wrapperspb.StringValue{})
	wantCode(t, err, codes.InvalidArgument)
	if details := status.Convert(err).Details(); len(details) != 1 {
		t.Errorf("%d details", len(details))
	} else if info, ok := details[0].(*errdetails.ErrorInfo); !ok || len(info.GetMetadata()) != len(results) {
		t.Errorf("details of %T", details[0])
	}
}

func TestClientCancels(t *testing.T) {
	ended := make(chan error, 1)
	f := newFixture(t, func(stream grpc.ServerStream) error {
		err := echo(stream)
		<-stream.Context().Done()
		ended <- stream.Context().Err()
		return err
	})
	ctx, cancel := context.WithCancel(f.ctx)
	f.roundTrip(f.echo(ctx, f.dial()), "x")
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context: %v", err)
		}
	case <-f.ctx.Done():
		t.Error("the handler goes on")
	}
}

func TestDeadlineReachesTheHandler(t *testing.T) {
	f := newFixture(t, func(stream grpc.ServerStream) error {
		if _, ok := stream.Context().Deadline(); !ok {
			t.Error("no deadline")
		}
		<-stream.Context().Done()
		return status.FromContextError(stream.Context().Err()).Err()
	})
	ctx, cancel := context.WithTimeout(f.ctx, 50*time.Millisecond)
	defer cancel()
	wantCode(t, f.echo(ctx, f.dial()).RecvMsg(&wrapperspb.StringValue{}), codes.DeadlineExceeded)
}

func TestServerEndsAStream(t *testing.T) {
	f := newFixture(t, func(stream grpc.ServerStream) error {
		if err := stream.SendMsg(wrapperspb.String("one")); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "cut")
	})
	conn := f.dial()
	for range 100 { // the client's half stays open, and yet it sees all
		stream := f.echo(f.ctx, conn)
		must(t, stream.RecvMsg(&wrapperspb.StringValue{}))
		wantCode(t, stream.RecvMsg(&wrapperspb.StringValue{}), codes.Unavailable)
	}
	if peers := f.Peers(); len(peers) != 1 {
		t.Errorf("connected: %v", peers)
	}
}

func TestConcurrentStreamsOfAConnection(t *testing.T) {
	f := newFixture(t, echo)
	conn := f.dial()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	for range MaxConcurrentStreams {
		f.roundTrip(f.echo(ctx, conn), "x")
	}
	short, stop := context.WithTimeout(f.ctx, 100*time.Millisecond)
	defer stop()
	if stream, err := conn.NewStream(short, echoDesc, echoMethod); err == nil {
		err = stream.RecvMsg(&wrapperspb.StringValue{})
		wantCode(t, err, codes.DeadlineExceeded)
	}
	f.roundTrip(f.echo(f.ctx, f.dial()), "on another connection")
	cancel()
	f.roundTrip(f.echo(f.ctx, conn), "when others have ended")
}

func TestFrozenConnectionStalls(t *testing.T) {
	f := newFixture(t, echo)
	// The shortest keepalive that gRPC lets a client have is 10 s. So what is seen
	// here is what a client without one sees: nothing.
	first := f.echo(f.ctx, f.dial())
	f.roundTrip(first, "before")
	second := f.echo(f.ctx, f.dial())
	f.roundTrip(second, "before")
	peers := f.Peers()
	if len(peers) != 2 || !f.Freeze(peers[0]) || f.Freeze("127.0.0.1:1") {
		t.Fatalf("connected: %v", peers)
	}
	must(t, first.SendMsg(wrapperspb.String("lost")))
	answered := make(chan error, 1)
	go func() { answered <- first.RecvMsg(&wrapperspb.StringValue{}) }()
	f.roundTrip(second, "after")
	select {
	case err := <-answered:
		t.Errorf("the frozen connection answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	f.Close()
	if err := <-answered; err == nil {
		t.Error("answered after all")
	}
}

func TestKeepalivePings(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 11 s: gRPC's shortest interval is 10 s")
	}
	t.Parallel()
	f := newFixture(t, echo)
	stream := f.echo(f.ctx, f.dial(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Second})))
	f.roundTrip(stream, "before")
	time.Sleep(11500 * time.Millisecond) // a ping without an answer would have cut the stream
	f.roundTrip(stream, "after")
}

func TestCloseEndsEverything(t *testing.T) {
	ended := make(chan struct{})
	f := newFixture(t, func(stream grpc.ServerStream) error {
		defer close(ended)
		return echo(stream)
	})
	stream := f.echo(f.ctx, f.dial())
	f.roundTrip(stream, "x")
	f.Close()
	select {
	case <-ended:
	default:
		t.Error("the handler goes on")
	}
	f.Close()
	if err := stream.RecvMsg(&wrapperspb.StringValue{}); err == nil {
		t.Error("the stream goes on")
	}
	if peers := f.Peers(); len(peers) != 0 {
		t.Errorf("connected: %v", peers)
	}
}
