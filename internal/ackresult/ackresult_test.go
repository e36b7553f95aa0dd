package ackresult_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/googleapis/gax-go/v2/apierror"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/sourcegraph/telemetry-relay/internal/ackresult"
)

func failure(t *testing.T, code codes.Code, details ...protoadapt.MessageV1) error {
	t.Helper()
	s, err := status.New(code, "refused").WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

func info(metadata map[string]string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: "EXACTLY_ONCE_ACKID_FAILURE", Domain: "pubsub.googleapis.com", Metadata: metadata}
}

func TestOfAndSplit(t *testing.T) {
	const permanent, transient = ackresult.Permanent, ackresult.Transient
	both := map[string]string{"a": "PERMANENT_FAILURE_INVALID_ACK_ID", "b": "TRANSIENT_FAILURE_UNORDERED_ACK_ID"}
	wrapped, _ := apierror.FromError(failure(t, codes.FailedPrecondition, info(both)))
	ids := []string{"c", "b", "a"}
	for _, c := range []struct {
		name        string
		err         error
		want        map[string]ackresult.Result
		retry, lost []string
	}{
		{"no error", nil, nil, nil, nil},
		{"no status", errors.New("refused"), nil, nil, nil},
		{"no details: a key is disabled", status.Error(codes.FailedPrecondition, "key"), nil, nil, nil},
		{"other details", failure(t, codes.FailedPrecondition, &errdetails.PreconditionFailure{}), nil, nil, nil},
		{"ErrorInfo about something else", failure(t, codes.PermissionDenied, info(map[string]string{"service": "pubsub.googleapis.com"})), nil, nil, nil},
		{"FailedPrecondition", failure(t, codes.FailedPrecondition, info(both)),
			map[string]ackresult.Result{"a": permanent, "b": transient}, []string{"c", "b"}, []string{"a"}},
		{"InvalidArgument", failure(t, codes.InvalidArgument, info(both)),
			map[string]ackresult.Result{"a": permanent, "b": transient}, []string{"c", "b"}, []string{"a"}},
		{"as the generated client returns it", wrapped,
			map[string]ackresult.Result{"a": permanent, "b": transient}, []string{"c", "b"}, []string{"a"}},
		{"wrapped", fmt.Errorf("acknowledge: %w", failure(t, codes.FailedPrecondition, info(both))),
			map[string]ackresult.Result{"a": permanent, "b": transient}, []string{"c", "b"}, []string{"a"}},
		{"among others", failure(t, codes.FailedPrecondition, &errdetails.Help{}, info(map[string]string{
			"a": "PERMANENT_FAILURE_OTHER", "b": "", "c": "x PERMANENT_FAILURE_", "service": "pubsub.googleapis.com"})),
			map[string]ackresult.Result{"a": permanent}, []string{"c", "b"}, []string{"a"}},
		{"only ids that nobody sent", failure(t, codes.FailedPrecondition, info(map[string]string{"z": "PERMANENT_FAILURE_INVALID_ACK_ID"})),
			map[string]ackresult.Result{"z": permanent}, ids, nil},
		{"all lost", failure(t, codes.FailedPrecondition, info(map[string]string{
			"a": "PERMANENT_FAILURE_INVALID_ACK_ID", "b": "PERMANENT_FAILURE_INVALID_ACK_ID", "c": "PERMANENT_FAILURE_INVALID_ACK_ID"})),
			map[string]ackresult.Result{"a": permanent, "b": permanent, "c": permanent}, nil, ids},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := ackresult.Of(c.err)
			if !maps.Equal(got, c.want) || ok != (c.want != nil) {
				t.Errorf("Of: got %v, %v; want %v", got, ok, c.want)
			}
			retry, lost, ok := ackresult.Split(c.err, ids)
			if !slices.Equal(retry, c.retry) || !slices.Equal(lost, c.lost) || ok != (c.want != nil) {
				t.Errorf("Split: retry %v, lost %v, %v; want %v, %v", retry, lost, ok, c.retry, c.lost)
			}
		})
	}
}
