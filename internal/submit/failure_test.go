package submit

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestSizeIsNoLackOfCapacity has the texts of servers that refuse with ResourceExhausted.
func TestSizeIsNoLackOfCapacity(t *testing.T) {
	for _, test := range []struct {
		code               codes.Code
		text               string
		noCapacity, tooBig bool
	}{
		{codes.ResourceExhausted, "too many streams", true, false},
		{codes.ResourceExhausted, "", true, false},
		{codes.ResourceExhausted, "grpc: received message larger than max (5242880 vs. 4194304)", false, true},
		{codes.ResourceExhausted, "gRPC message exceeds maximum size 4194304: 5242880", false, true},
		{codes.ResourceExhausted, "CLIENT: Received message larger than max (5242880 vs. 4194304)", false, true},
		{codes.Unavailable, "received message larger than max", false, false},
	} {
		f := classify(status.Error(test.code, test.text))
		if f.NoCapacity() != test.noCapacity || f.TooLarge() != test.tooBig {
			t.Errorf("%v %q: no capacity %v, too large %v", test.code, test.text, f.NoCapacity(), f.TooLarge())
		}
	}
}
