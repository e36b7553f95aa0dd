package dlq

import (
	"slices"
	"testing"
)

func TestDiffNamesEachChangedField(t *testing.T) {
	known := func(name string) bool { return name == "typo" }
	for _, c := range []struct {
		name, before, after string
		want                []FieldChange
	}{
		{"nothing", `{"a":1, "b":{"c":1.50}}`, `{"b":{"c":1.50},"a":1}`, nil},
		{"a type", `{"user":{"userId":"1"}}`, `{"user":{"userId":1}}`, []FieldChange{{"user.userId", "string → number", false}}},
		{"a value", `{"action":"a"}`, `{"action":"b"}`, []FieldChange{{"action", "another string", false}}},
		{"a new field", `{}`, `{"id":"x"}`, []FieldChange{{"id", "new, string", false}}},
		{"null", `{"privateMetadata":{"email":"x"}}`, `{"privateMetadata":null}`, []FieldChange{{"privateMetadata", "object → null", true}}},
		{"private keys stay hidden", `{"privateMetadata":{"me@example.com":"x"}}`, `{"privateMetadata":{"other":"x"}}`, []FieldChange{{"privateMetadata", "another object", false}}},
		{"the id", `{"id":"x","action":"a"}`, `{"action":"a"}`, []FieldChange{{"id", "string removed", true}}},
		{"emptied", `{"metadata":{"a":1,"b":2}}`, `{"metadata":{}}`, []FieldChange{{"metadata", "object → empty object", true}}},
		{"an entry", `{"metadata":{"a":1,"b":2}}`, `{"metadata":{"a":1}}`, []FieldChange{{"metadata.b", "number removed", true}}},
		{"a known name", `{"typo":1}`, `{}`, []FieldChange{{"typo", "number removed", true}}},
		{"an unknown name", `{"me@example.com":1}`, `{}`, []FieldChange{{"[an unknown field]", "number removed", true}}},
		{"an object becomes a string", `{"user":{"userId":1}}`, `{"user":"x"}`, []FieldChange{{"user", "object → string", true}}},
		{"null was nothing", `{"client":null}`, `{}`, []FieldChange{{"client", "null removed", false}}},
		{"no object", `"{}"`, `{}`, []FieldChange{{"the data", "string → empty object", true}}},
		{"not JSON", `{`, `{}`, nil},
	} {
		if got := Diff([]byte(c.before), []byte(c.after), known); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
