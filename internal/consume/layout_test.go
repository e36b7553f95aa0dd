package consume

import (
	"reflect"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/layouttest"
)

// TestLayout watches that what settles a message is in its first cache line.
func TestLayout(t *testing.T) {
	layouttest.FirstLine(t, reflect.TypeFor[Message](), "PublishTime", "ackID", "hash", "due", "size", "acking", "deadMark", "finished", "shared")
}
