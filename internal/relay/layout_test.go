package relay

import (
	"reflect"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/layouttest"
)

// TestLayout watches that what settles an event is in its first cache line.
func TestLayout(t *testing.T) {
	layouttest.FirstLine(t, reflect.TypeFor[held](), "message", "publisher", "print", "hash", "with", "place", "lane", "sent", "newest", "gone", "panicked")
}
