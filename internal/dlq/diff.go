package dlq

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// FieldChange is what a fix does to one field of an event.
type FieldChange struct {
	// Field is the path of the field. An unknown name is hidden unless the expression
	// or the detail has it.
	Field string
	// Change is the change of the type, such as "string → number".
	Change string
	// Loses is set if the fix removes data.
	Loses bool
}

// maxFieldChanges bounds the changes of one event.
const maxFieldChanges = 100

// Diff compares the data of an event before and after a fix, field by field. It does
// not look into privateMetadata, whose keys may be private. known reports whether the
// name of an unknown field may be shown. Data that is not one object is one field.
func Diff(before, after []byte, known func(name string) bool) []FieldChange {
	old, err := readValue(before)
	if err != nil {
		return nil // a fix refuses it as well
	}
	fixed, err := readValue(after)
	if err != nil {
		return nil
	}
	d := differ{known: known}
	d.value("", old, fixed, safeFields)
	return d.changes
}

type differ struct {
	known   func(string) bool
	changes []FieldChange
}

// absent is the value of a field that is not there.
type absent struct{}

func (d *differ) value(path string, old, fixed any, of node) {
	before, isObject := old.(map[string]any)
	after, staysObject := fixed.(map[string]any)
	descend := isObject && staysObject && (path == "" || len(before) == 0 || len(after) > 0) && (of.fields != nil || of.entries != nil)
	switch {
	case reflect.DeepEqual(old, fixed):
	case descend:
		names := maps.Clone(before)
		maps.Copy(names, after)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			d.value(join(path, d.name(name, of)), at(before, name), at(after, name), of.fields[name])
		}
	case len(d.changes) < maxFieldChanges:
		if path == "" {
			path = "the data"
		}
		d.changes = append(d.changes, FieldChange{path, change(old, fixed), !empty(old) && (empty(fixed) || isContainer(old) && !isContainer(fixed))})
	}
}

// name returns the name of a field as it may be shown.
func (d *differ) name(name string, of node) string {
	if _, ok := of.fields[name]; ok || word.is(name) && (of.entries != nil || d.known(name)) {
		return name
	}
	return "[an unknown field]"
}

func at(object map[string]any, name string) any {
	if v, ok := object[name]; ok {
		return v
	}
	return absent{}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// change describes a change without the values.
func change(old, fixed any) string {
	before, after := kind(old), kind(fixed)
	switch {
	case before == after:
		return "another " + after
	case before == "":
		return "new, " + after
	case after == "":
		return before + " removed"
	}
	return before + " → " + after
}

// kind is the type of a JSON value; empty for one that is not there.
func kind(v any) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", v), "json.")
	switch v := v.(type) {
	case absent:
		return ""
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		name = "string"
	case []any:
		name = "array"
		if len(v) == 0 {
			return "empty array"
		}
	case map[string]any:
		name = "object"
		if len(v) == 0 {
			return "empty object"
		}
	default:
		name = strings.ToLower(name)
	}
	return name
}

// empty reports whether a value holds no data.
func empty(v any) bool {
	switch v := v.(type) {
	case absent, nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

func isContainer(v any) bool {
	switch v.(type) {
	case []any, map[string]any:
		return true
	}
	return false
}
