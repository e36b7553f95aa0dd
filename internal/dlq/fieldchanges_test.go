package dlq

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChangesAreCountedByFrequency(t *testing.T) {
	var c Changes
	s := &Stored{Detail: "typo: unknown field"}
	for _, pair := range [][2]string{
		{`{"user":{"userId":"1"}}`, `{"user":{"userId":1}}`},
		{`{"user":{"userId":"2"},"typo":1}`, `{"user":{"userId":2}}`},
		{`{"secretName":1}`, `{}`},
		{`{"feature":"ab"}`, `{"feature":"ab"}`},
	} {
		c.Add(s, ".user.userId |= tonumber", []byte(pair[0]), []byte(pair[1]))
	}
	want := []ChangeCount{
		{FieldChange{"user.userId", "string → number", false}, 2},
		{FieldChange{"[an unknown field]", "number removed", true}, 1},
		{FieldChange{"typo", "number removed", true}, 1},
	}
	if diff := cmp.Diff(want, c.Counts()); diff != "" || c.Unchanged != 1 {
		t.Errorf("%s; unchanged %d", diff, c.Unchanged)
	}
}
