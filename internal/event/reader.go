package event

import (
	"fmt"
	"strings"
)

// reader reads the parts of a document that all fields share: strings without their
// escapes, names, integers and keys. It remembers the first fault of a field and goes on.
type reader struct {
	scanner

	// fault is the detail of the first invalid field; empty if there is none.
	fault string
	// keys are the keys of the open objects, innermost last. table finds duplicates
	// among many. arena has keys and values without their escapes.
	keys  []key
	table []int32
	arena []byte
}

// invalid remembers the first fault of a field. Arguments from the document must have gone
// through describe or path.
func (r *reader) invalid(format string, args ...any) {
	if r.fault == "" {
		r.fault = fmt.Sprintf(format, args...)
	}
}

// bytes returns the content of a string. It is valid until the end of the pass.
func (r *reader) bytes(t text) []byte {
	raw := r.data[t.start:t.end]
	if !t.escaped {
		return raw
	}
	start := len(r.arena)
	r.arena = appendUnescaped(r.arena, raw)
	return r.arena[start:len(r.arena):len(r.arena)]
}

// null skips a null, and reports whether there was one.
func (r *reader) null() bool {
	if r.peek() != 'n' {
		return false
	}
	r.literal("null")
	return true
}

// wrongType remembers the fault and skips the value. level is the level of the value if it
// is a container.
func (r *reader) wrongType(object string, key []byte, expected string, level int) {
	if r.fault == "" {
		r.invalid("%s: expected %s, got %s", path(object, key), expected, kind(r.peek()))
	}
	r.skip(level)
}

// unknown remembers a field that does not exist and skips its value.
func (r *reader) unknown(object string, key []byte, names []string, level int) {
	if r.fault == "" {
		hint := "expected one of " + strings.Join(names, ", ")
		if name := similar(key, names); name != "" {
			hint = "did you mean " + name + "?"
		}
		r.invalid("%s: unknown field; %s", path(object, key), hint)
	}
	r.skip(level)
}

// duplicate remembers a key that occurs twice and skips its value.
func (r *reader) duplicate(object string, key []byte, level int) {
	if r.fault == "" {
		r.invalid("%s: duplicate key; expected it once", path(object, key))
	}
	r.skip(level)
}

// integer reads an integer between low and high. level is the level of the value if it is a
// container instead.
func (r *reader) integer(object, name string, level int, low, high int64) (int64, bool) {
	if c := r.peek(); c != '-' && !isDigit(c) {
		r.wrongType(object, []byte(name), "an integer", level)
		return 0, false
	}
	n := r.num()
	if r.syntax != "" {
		return 0, false
	}
	if !n.integer {
		r.invalid("%s: expected an integer without fraction or exponent", path(object, []byte(name)))
		return 0, false
	}
	i, ok := parseInt(r.data[n.start:n.end])
	if !ok || i < low || i > high {
		r.invalid("%s: expected an integer from %d to %d, got one out of range", path(object, []byte(name)), low, high)
		return 0, false
	}
	return i, true
}

// name reads feature or action.
func (r *reader) name(field string) []byte {
	b := r.topString(field)
	if b != nil && !validName(b) {
		r.invalid("%s: expected %s, got %s", field, nameRule, describe(b))
	}
	return b
}

func validName(b []byte) bool {
	if len(b) < 2 || len(b) > 64 || b[0]-'a' > 'z'-'a' {
		return false
	}
	for _, c := range b[1:] {
		if c|0x20-'a' > 'z'-'a' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// topString reads a string. The result is not nil even if the string is empty, and nil if
// there is none.
func (r *reader) topString(field string) []byte {
	if r.peek() != '"' {
		r.wrongType("", []byte(field), "a string", 2)
		return nil
	}
	t := r.str()
	if r.syntax != "" {
		return nil
	}
	return r.bytes(t)
}
