package topic

import (
	"context"
	"errors"
	"regexp"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// publishError says why a request was not confirmed. A server's message may quote the
// request, which has private data in it. So the text shows only messages that Pub/Sub is
// known to use.
type publishError struct{ err error }

// Error returns the code, and a known message or the meaning of the code.
func (e *publishError) Error() string {
	s := status.Convert(e.err)
	for _, known := range knownWords {
		if known.MatchString(s.Message()) {
			return s.Code().String() + ": " + s.Message()
		}
	}
	if meaning, ok := meanings[s.Code()]; ok {
		return s.Code().String() + ": " + meaning
	}
	return s.Code().String()
}

// Unwrap returns the cause, with the server's message.
func (e *publishError) Unwrap() error { return e.err }

// GRPCStatus keeps the code for status.Code, without the server's message.
func (e *publishError) GRPCStatus() *status.Status {
	return status.New(status.Code(e.err), e.Error())
}

// knownWords are messages of Pub/Sub and of the local gRPC library that quote no part of
// a request.
var knownWords = []*regexp.Regexp{
	regexp.MustCompile(`^Resource not found \(resource=[A-Za-z0-9._~+%/-]{1,300}\)\.?$`),
	regexp.MustCompile(`^(User not authorized to perform this action|Topic not found|The service was unable to fulfill your request\. Please try again\. \[code=[0-9a-f]{1,8}\])\.?$`),
	regexp.MustCompile(`^connection error: desc = "transport: Error while dialing: dial tcp [0-9A-Za-z.:\[\]-]+: [a-z :/.]+"$`),
	regexp.MustCompile(`^context deadline exceeded$`),
}

var meanings = map[codes.Code]string{
	codes.NotFound:          "the topic does not exist",
	codes.PermissionDenied:  "publishing to the topic is not permitted",
	codes.Unauthenticated:   "there are no valid credentials",
	codes.InvalidArgument:   "Pub/Sub refuses the request as invalid",
	codes.ResourceExhausted: "a quota is used up, or the request is too large",
	codes.Unavailable:       "Pub/Sub cannot be reached, or takes no requests",
	codes.DeadlineExceeded:  "no answer in time",
}

// shown wraps the error of a request to publish.
func shown(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return &publishError{err}
}
