package submit

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestConstantWords has error messages of the gateway. Once it has been sent events,
// on-call sees only those that cannot quote one.
func TestConstantWords(t *testing.T) {
	for _, test := range []struct {
		code          codes.Code
		message, want string
	}{
		{codes.Internal, "unable to validate token", "Internal: unable to validate token"},
		{codes.Internal, "unable to validate token of user@example.com", "Internal"},
		{codes.Internal, "grpc: error unmarshalling request: user@example.com", "Internal"},
		{codes.InvalidArgument, "bad event: user@example.com", "InvalidArgument"},
		{codes.ResourceExhausted, "user@example.com", "ResourceExhausted"},
		{codes.Unavailable, "user@example.com", "Unavailable"},
	} {
		if got := shown(status.Error(test.code, test.message), true, nil); got != test.want {
			t.Errorf("%s %q: shown as %q, want %q", test.code, test.message, got, test.want)
		}
	}
}
