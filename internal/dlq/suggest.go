package dlq

import (
	"regexp"
	"strings"
)

// fieldPath matches the path of a field that jq takes as it is.
var fieldPath = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)

// jqWords are names that jq does not take as the name of a field after a point.
var jqWords = regexp.MustCompile(`(^|\.)(__loc__|and|as|catch|def|elif|else|end|foreach|if|import|include|label|module|or|reduce|then|try)(\.|$)`)

// forbidden matches the details of fields that the services list or a catalogue forbids.
var forbidden = regexp.MustCompile(`services\.yaml does not allow|the catalogue allows`)

// conversions are expressions that convert a value to the expected type: the text in the
// detail, and the jq expression to append to the field's path.
var conversions = []struct{ detail, jq string }{
	{"expected an integer, got a string", " |= tonumber"},
	{"expected a number, got a string", " |= tonumber"},
	{"expected a number, got a boolean", " |= if . then 1 else 0 end"},
	{"expected a string, got a number", " |= tostring"},
	{"expected a string, got a boolean", " |= tostring"},
}

// SuggestFix returns a jq expression that may correct the event, or the identity "."
// if none is known. The expression is a guess from the detail: check it on every event.
func SuggestFix(s *Stored) string {
	if s.Broken != nil {
		return "."
	}
	if strings.HasPrefix(s.Detail, "malformed JSON") {
		return suggestUnwrap(s.Original.Data)
	}
	field := Field(s.Detail)
	if !fieldPath.MatchString(field) || jqWords.MatchString(field) {
		return "."
	}
	_, what, _ := strings.Cut(s.Detail, ": ")
	path := "." + field
	if meant, ok := strings.CutPrefix(what, "unknown field; did you mean "); ok {
		return suggestRename(path, strings.TrimSuffix(meant, "?"))
	}
	switch {
	case field == "privateMetadata" && forbidden.MatchString(what), strings.HasPrefix(what, "unknown field"), strings.HasSuffix(what, "got null"):
		return "del(" + path + ")"
	case field == "id" && strings.HasPrefix(what, "expected a UUID"):
		return "del(.id)" // the worker derives one from the message
	case field == "timestamp" && what == "expected a string, got a number":
		return ".timestamp |= todate"
	}
	for _, c := range conversions {
		if strings.HasPrefix(what, c.detail) {
			return path + c.jq
		}
	}
	return "."
}

// suggestRename gives a misspelt field the intended name, unless the event has a field of
// that name, too.
func suggestRename(path, meant string) string {
	if !fieldPath.MatchString(meant) || jqWords.MatchString(meant) {
		return "."
	}
	right := path[:strings.LastIndex(path, ".")+1] + meant
	return right + " //= " + path + " | del(" + path + ")"
}

// suggestUnwrap is for data that is valid JSON and no object.
func suggestUnwrap(data []byte) string {
	value, err := readValue(data)
	if err != nil {
		return "."
	}
	switch v := value.(type) {
	case string:
		if inner, err := readValue([]byte(v)); err == nil {
			if _, object := inner.(map[string]any); object {
				return "fromjson"
			}
		}
	case []any:
		if len(v) == 1 {
			return ".[0]"
		}
	}
	return "."
}
