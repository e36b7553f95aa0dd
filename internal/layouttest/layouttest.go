// Package layouttest watches how structs lie in memory, for tests.
package layouttest

import (
	"reflect"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/buffers"
)

// FirstLine fails the test unless a struct begins with a cache line, which is so when
// its size is a multiple of one, and these fields are in its first.
func FirstLine(t *testing.T, of reflect.Type, fields ...string) {
	t.Helper()
	if of.Size()%buffers.Line != 0 {
		t.Errorf("%v has %d bytes, no multiple of %d", of, of.Size(), buffers.Line)
	}
	for _, name := range fields {
		f, ok := of.FieldByName(name)
		if !ok {
			t.Errorf("%v has no field %s", of, name)
		} else if end := f.Offset + f.Type.Size(); end > buffers.Line {
			t.Errorf("%v: %s ends with byte %d", of, name, end)
		}
	}
}
