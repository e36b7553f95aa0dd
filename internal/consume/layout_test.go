package consume

import (
	"reflect"
	"testing"
)

// TestLayout watches that a message begins with a cache line, which is so when its
// size is a multiple of one, and that what settles it is in its first.
func TestLayout(t *testing.T) {
	const line = 64
	message := reflect.TypeFor[Message]()
	if message.Size()%line != 0 {
		t.Errorf("a message has %d bytes, no multiple of %d", message.Size(), line)
	}
	for _, name := range []string{"PublishTime", "ackID", "hash", "until", "size", "acking", "deadMark", "finished", "shared"} {
		f, ok := message.FieldByName(name)
		if !ok || f.Offset+f.Type.Size() > line {
			t.Errorf("%s ends with byte %d", name, f.Offset+f.Type.Size())
		}
	}
}
