package consume

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestCodeLabel: a label has a bounded set of values.
func TestCodeLabel(t *testing.T) {
	labels := map[string]bool{}
	for code := range codes.Code(2000) {
		labels[Code(status.Error(code, "no"))] = true
	}
	if len(labels) != int(codes.Unauthenticated)+1 {
		t.Errorf("%d labels", len(labels))
	}
}
