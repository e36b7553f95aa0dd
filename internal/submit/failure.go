package submit

import (
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Class says what a failed stream means for its events.
type Class int

const (
	// Transient errors say nothing about the events.
	Transient Class = iota
	// SAMS gave no token, which says nothing about the events.
	SAMS
	// Credentials were refused twice, with a new token the second time.
	Credentials
	// BatchRefused means that the gateway accepts the identity, but not these events.
	BatchRefused
	// IdentityRefused means that the gateway accepts others, but not this identity.
	IdentityRefused
	// Fatal means that the gateway refuses every identity, or does not know the method.
	Fatal
)

func (c Class) String() string {
	return [...]string{"passing", "sams", "credentials", "batch_refused", "identity_refused", "unusable"}[c]
}

// Canary is the result of a stream with the same identity and no events.
type Canary int

const (
	// NoCanary means that no canary was sent.
	NoCanary Canary = iota
	// CanaryPassed means that the gateway accepted the canary, so the stream failed because
	// of its events.
	CanaryPassed
	// CanaryFailed means that the canary failed, too, so the events are not the reason.
	CanaryFailed
)

// Failure is the error of a stream. Whether and when another try is worth it is decided
// once, here.
type Failure struct {
	Class Class
	Code  codes.Code
	// Canary is the result of the canary.
	Canary Canary
	// RetryAfter is the delay that the gateway or SAMS asked for, at most maxRetryAfter; 0
	// if neither did.
	RetryAfter time.Duration
	Err        error
	// words is the text that may be shown; see Detail.
	words string
}

// Error returns the same as Detail.
func (f *Failure) Error() string { return f.Detail() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// NotSent returns the failure of a batch that was given up before its stream was opened.
func NotSent(err error) *Failure { return &Failure{Class: Transient, Code: codes.Canceled, Err: err} }

// classify derives the class of a stream's error. Only a canary can tell whose fault a
// refusal is.
func classify(err error) *Failure {
	s := status.Convert(err)
	f := &Failure{Class: Transient, Code: listedCode(s.Code()), Err: err}
	switch s.Code() {
	case codes.Unauthenticated, codes.PermissionDenied:
		f.Class = Credentials
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		f.Class = BatchRefused
	case codes.Unimplemented:
		f.Class = Fatal
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			f.RetryAfter = min(max(0, info.GetRetryDelay().AsDuration()), maxRetryAfter)
		}
	}
	return f
}

// listedCode returns the code if gRPC defines it, else Unknown: a code becomes the value of
// a metric's label, and a server may send any number.
func listedCode(code codes.Code) codes.Code {
	if code > codes.Unauthenticated {
		return codes.Unknown
	}
	return code
}

// TimedOut reports whether the stream took too long.
func (f *Failure) TimedOut() bool { return f.Code == codes.DeadlineExceeded }

// NoCapacity reports whether the gateway had no capacity for the stream. That says nothing
// about the events.
func (f *Failure) NoCapacity() bool { return f.Code == codes.ResourceExhausted && !f.TooLarge() }

// TooLarge reports whether gRPC refused the message because of its size. It has the same
// code for that as servers have for a lack of capacity; the texts are those of grpc-go,
// grpc-java and gRPC's C core.
func (f *Failure) TooLarge() bool {
	text := strings.ToLower(status.Convert(f.Err).Message())
	return f.Code == codes.ResourceExhausted && (strings.Contains(text, "larger than max") || strings.Contains(text, "exceeds maximum size"))
}

// NoGateway reports whether the server that answered is not Telemetry Gateway.
func (f *Failure) NoGateway() bool { return f.Code == codes.Unimplemented }

// TransportError reports whether connections fail with this code by chance.
func (f *Failure) TransportError() bool {
	switch f.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
		return true
	}
	return false
}

// Detail returns a text that may be shown: it has neither credentials nor anything that may
// quote an event.
func (f *Failure) Detail() string {
	if f.words == "" {
		return f.Code.String()
	}
	return f.words
}
