package relay

import (
	"reflect"
	"testing"
)

// TestLayout watches that an event begins with a cache line, which is so when its
// size is a multiple of one, and that what settles it is in its first.
func TestLayout(t *testing.T) {
	const line = 64
	event := reflect.TypeFor[held]()
	if event.Size()%line != 0 {
		t.Errorf("an event has %d bytes, no multiple of %d", event.Size(), line)
	}
	for _, name := range []string{"message", "publisher", "print", "hash", "with", "place", "lane", "sent", "newest", "gone", "panicked"} {
		f, ok := event.FieldByName(name)
		if !ok || f.Offset+f.Type.Size() > line {
			t.Errorf("%s ends with byte %d", name, f.Offset+f.Type.Size())
		}
	}
}
