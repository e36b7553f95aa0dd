package pubsubserver

import (
	"context"
	"errors"
	"path"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// FaultFunc decides about an RPC before it is served: its error, a gRPC status
// error or one of those that this package makes for it, is the RPC's. The method is
// the RPC's bare name, such as "Publish" or "Acknowledge", and req its request.
//
// A StreamingPull is asked about three times: as "StreamingPull" with a nil req when
// it opens, as "StreamingPull.Open" with an Opening when its first request has
// arrived, and as "StreamingPull.Send" with a SendInfo before each response with
// messages; an error ends the stream and the messages of the response stay leased.
//
// It is called from many goroutines and must not call Close.
type FaultFunc func(method string, req any) error

// SendInfo is the request that FaultFunc sees before a streaming response.
type SendInfo struct {
	Subscription string
	Messages     int
}

var (
	// ErrHang makes an RPC hang until its context ends, when a FaultFunc returns it.
	ErrHang = errors.New("hang")
	// ErrEmpty makes a Pull answer without messages although there are some, when a
	// FaultFunc returns it; without return_immediately after Options.PullWait, as for
	// an empty subscription. The service does so now and then (google-cloud-java#2108,
	// google-cloud-go#8235). It has this effect on Pull only; other RPCs are served.
	ErrEmpty = errors.New("answer without messages")
)

// AfterServing returns what a FaultFunc returns to have the RPC served and then
// fail with err, as when the response gets lost. It has this effect on unary RPCs only.
func AfterServing(err error) error { return &afterServing{err} }

type afterServing struct{ err error }

func (a *afterServing) Error() string { return a.err.Error() }
func (a *afterServing) Unwrap() error { return a.err }

// AfterDelay returns what a FaultFunc returns to have the RPC, the opening of a stream
// or its response served after d, unless the RPC's context ends before.
func AfterDelay(d time.Duration) error { return &afterDelay{d} }

type afterDelay struct{ d time.Duration }

func (a *afterDelay) Error() string { return "served after " + a.d.String() }

// AnswerAfter returns what a FaultFunc returns to have an RPC served at once and answered
// after d, unless its context ends before. It has this effect on unary RPCs only; others are
// served.
func AnswerAfter(d time.Duration) error { return &answerAfter{d} }

type answerAfter struct{ d time.Duration }

func (a *answerAfter) Error() string { return "answered after " + a.d.String() }

// FailIDs returns what a FaultFunc returns to have an Acknowledge or ModifyAckDeadline
// answer as one of an exactly-once subscription: the ids in failures fail for the reason
// that they map to, such as TransientFailure or InvalidAckID, and nothing is done to
// their messages; the other ids of the request are served. It has this effect on those two RPCs
// only; others are served.
func FailIDs(failures map[string]string) error { return &failIDs{failures} }

type failIDs struct{ failures map[string]string }

func (f *failIDs) Error() string { return strconv.Itoa(len(f.failures)) + " ids fail" }

// SetFault installs f for all further RPCs and responses; nil removes it.
func (s *Server) SetFault(f FaultFunc) { s.faults.set(f) }

// faults asks the FaultFunc of a Server, if there is one.
type faults struct{ hook atomic.Pointer[FaultFunc] }

func (f *faults) set(hook FaultFunc) {
	if hook == nil {
		f.hook.Store(nil)
		return
	}
	f.hook.Store(&hook)
}

// served says how an RPC that goes on is served otherwise than usual.
type served struct {
	after    error             // with which it fails once it is served
	delay    time.Duration     // between serving and answering
	empty    bool              // a Pull answers with nothing
	failures map[string]string // by ack id
}

// inject asks the hook. Without an error the RPC goes on.
func (f *faults) inject(ctx context.Context, method string, req any) (served, error) {
	hook := f.hook.Load()
	if hook == nil {
		return served{}, nil
	}
	err := (*hook)(method, req)
	if late, ok := errors.AsType[*afterServing](err); ok {
		return served{after: late.err}, nil
	}
	if slow, ok := errors.AsType[*afterDelay](err); ok {
		return served{}, wait(ctx, slow.d)
	}
	if late, ok := errors.AsType[*answerAfter](err); ok {
		return served{delay: late.d}, nil
	}
	if ids, ok := errors.AsType[*failIDs](err); ok {
		return served{failures: ids.failures}, nil
	}
	switch {
	case errors.Is(err, ErrEmpty):
		return served{empty: true}, nil
	case errors.Is(err, ErrHang):
		<-ctx.Done()
		return served{}, status.FromContextError(ctx.Err()).Err()
	}
	return served{}, err
}

func wait(ctx context.Context, d time.Duration) error {
	if err := retry.Sleep(ctx, d); err != nil {
		return status.FromContextError(err).Err()
	}
	return nil
}

// servedKey is the context's key of how a unary RPC is served.
type servedKey struct{}

func servedAs(ctx context.Context) served {
	how, _ := ctx.Value(servedKey{}).(served)
	return how
}

func (f *faults) interceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	how, err := f.inject(ctx, path.Base(info.FullMethod), req)
	if err != nil {
		return nil, err
	}
	resp, err := handler(context.WithValue(ctx, servedKey{}, how), req)
	if err == nil && how.after != nil {
		return nil, how.after
	}
	if how.delay > 0 {
		if err := wait(ctx, how.delay); err != nil {
			return nil, err
		}
	}
	return resp, err
}

func (f *faults) interceptStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if _, err := f.inject(stream.Context(), path.Base(info.FullMethod), nil); err != nil {
		return err
	}
	return handler(srv, stream)
}
