package dlq

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxShown bounds the text that a person sees of one message, in bytes.
	maxShown = 64 << 10
	// maxIndented is the depth down to which JSON is broken into lines. Indentation grows
	// with the square of the depth.
	maxIndented = 12
	// maxObjectLevels is the depth down to which data counts as an object in output for
	// programs. A valid event is not deeper.
	maxObjectLevels = 100
)

// View has the data and attributes of a message that may be shown.
type View struct {
	// Object is the data as compact JSON, if it is one object; else nil.
	Object []byte
	// Text describes data that is not one object.
	Text string
	// Attributes are those of the message.
	Attributes map[string]string
	// HiddenBytes counts the bytes of data and attributes that are not shown.
	HiddenBytes int
	// Private reports whether any data is or may be private: text in a field of numbers
	// or in an unknown field, or data that cannot be read.
	Private bool
}

// ViewOf returns the view of a dead-lettered message. With reveal it shows everything.
// Without, it shows only known fields and attributes whose values have their form.
func ViewOf(s *Stored, reveal bool) View {
	var v View
	v.attributes(s, reveal)
	v.data(s, reveal)
	return v
}

func (v *View) data(s *Stored, reveal bool) {
	data := s.Original.Data
	r := redactor{named: Field(s.Detail)}
	object, err := r.object(data)
	v.Private = v.Private || r.private || (err != nil && len(data) > 0)
	switch {
	case reveal && err == nil && levels(data) <= maxObjectLevels && jsontext.Value(data).IsValid(jsontext.AllowDuplicateNames(true)):
		v.Object = compact(data)
	case reveal:
		v.Text = asText(data)
	case err == nil:
		v.Object = object
		v.HiddenBytes += r.hidden
	case len(data) > 0:
		v.HiddenBytes += len(data)
		v.Text = fmt.Sprintf("%s %d bytes: %s", Hidden, len(data), describe(data))
	}
}

// ViewOfData is ViewOf for data that a replay would publish.
func ViewOfData(data []byte, reveal bool) View {
	s := &Stored{}
	s.Original.Data = data
	return ViewOf(s, reveal)
}

func (v *View) attributes(s *Stored, reveal bool) {
	v.Attributes = map[string]string{}
	named, _ := strings.CutPrefix(Field(s.Detail), attributePrefix)
	unknown := 0
	for _, key := range slices.Sorted(maps.Keys(s.Original.Attributes)) {
		value := s.Original.Attributes[key]
		form, known := safeAttributes[key]
		switch {
		case known && (value == "" || form.is(value)):
			v.Attributes[key] = value
		case reveal:
			v.Attributes[key] = value
		case known || key == named:
			v.Attributes[key] = Hidden
			v.HiddenBytes += len(value)
		default:
			unknown++
			v.HiddenBytes += len(key) + len(value)
			v.Private = v.Private || value != ""
		}
	}
	if unknown > 0 {
		v.Attributes[unknownMembers(unknown, "attribute")] = Hidden
	}
	if !reveal {
		v.HiddenBytes += len(s.Original.OrderingKey)
	}
}

func unknownMembers(n int, noun string) string {
	if n == 1 {
		return "[1 unknown " + noun + "]"
	}
	return fmt.Sprintf("[%d unknown %ss]", n, noun)
}

// redactor copies an event, and hides everything that is not known to be safe.
type redactor struct {
	in    *jsontext.Decoder
	out   bytes.Buffer
	named string // the path in the detail; its name may be shown, because the detail shows it

	hidden  int // bytes
	private bool
}

var errNoObject = errors.New("not one JSON object")

// object returns the redacted object, or an error if data is not exactly one JSON
// object.
func (r *redactor) object(data []byte) ([]byte, error) {
	r.in = jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true))
	if r.in.PeekKind() != '{' {
		return nil, errNoObject
	}
	if err := r.members("", safeFields); err != nil {
		return nil, err
	}
	if _, err := r.in.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errNoObject
	}
	return r.out.Bytes(), nil
}

// members copies an object with known fields, or with entries of a known form.
func (r *redactor) members(path string, of node) error {
	if _, err := r.in.ReadToken(); err != nil {
		return err
	}
	r.out.WriteByte('{')
	first, unknown := true, 0
	begin := func(name string) {
		if !first {
			r.out.WriteByte(',')
		}
		first = false
		quoted, _ := jsontext.AppendQuote(nil, name) // it is valid UTF-8
		r.out.Write(append(quoted, ':'))
	}
	for r.in.PeekKind() != '}' {
		token, err := r.in.ReadToken()
		if err != nil {
			return err
		}
		name := token.String()
		at := name
		if path != "" {
			at = path + "." + name
		}
		field, known := of.fields[name]
		if of.entries != nil && word.is(name) {
			field, known = node{value: of.entries}, true
		}
		switch {
		case known:
			begin(name)
			if err := r.value(at, field); err != nil {
				return err
			}
		case at == r.named && word.is(name):
			begin(name)
			if err := r.hide(0); err != nil {
				return err
			}
			r.out.WriteString(`"` + Hidden + `"`)
		default:
			unknown++
			if err := r.hide(len(name)); err != nil {
				return err
			}
		}
	}
	if unknown > 0 {
		begin(unknownMembers(unknown, "field"))
		r.out.WriteString(`"` + Hidden + `"`)
	}
	r.out.WriteByte('}')
	_, err := r.in.ReadToken()
	return err
}

// value copies the safe parts of the value of a known field.
func (r *redactor) value(at string, of node) error {
	if of.value == nil {
		if r.in.PeekKind() == '{' {
			return r.members(at, of)
		}
		of.value = &form{}
	}
	value, err := r.in.ReadValue()
	if err != nil {
		return err
	}
	if of.value.scalar(value) {
		r.out.Write(compact(value))
		return nil
	}
	r.hidden += len(value)
	switch at {
	case "feature", "action", "id", "timestamp":
		// A wrong name is not private, unless it looks like an address.
		r.private = r.private || bytes.ContainsRune(value, '@') || value.Kind() != '"' && holdsText(value)
	default:
		// A hidden web address does not make the event private.
		r.private = r.private || !strings.HasPrefix(at, "marketingTracking.") && holdsText(value)
	}
	r.out.WriteString(`"` + Hidden + `"`)
	return nil
}

// hide skips an unknown value; name is the length of its hidden name in bytes.
func (r *redactor) hide(name int) error {
	value, err := r.in.ReadValue()
	if err != nil {
		return err
	}
	r.hidden += name + len(value)
	r.private = r.private || holdsText(value)
	return nil
}

// holdsText reports whether a value can contain private data: it is a string or a
// container that is not empty.
func holdsText(value jsontext.Value) bool {
	switch value.Kind() {
	case '"', '{', '[':
		return len(value) > 2
	default:
		return false
	}
}

// compact returns valid JSON without white space between its tokens.
func compact(value []byte) []byte {
	out := jsontext.Value(bytes.Clone(value))
	if out.Compact(jsontext.AllowDuplicateNames(true)) != nil {
		return value
	}
	return out
}

// levels returns the depth of JSON.
func levels(data []byte) int {
	level, deepest, inText := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}

// describe describes data that is not one JSON object.
func describe(data []byte) string {
	d := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true))
	value, err := d.ReadValue()
	switch {
	case err != nil && !utf8.Valid(data):
		return "not text"
	case err != nil:
		return "not valid JSON"
	}
	kind := kinds[value.Kind()]
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return "more than one JSON value"
	}
	return "a JSON " + kind
}

var kinds = map[jsontext.Kind]string{'{': "object", '[': "array", '"': "string", '0': "number", 't': "boolean", 'f': "boolean", 'n': "null"}

// asText returns data as a text of bounded length.
func asText(data []byte) string {
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		const limit = maxShown / 8
		text := fmt.Sprintf("%+q", data[:min(len(data), limit)])
		return text + more(len(data)-limit)
	}
	if len(data) <= maxShown {
		return string(data)
	}
	return strings.ToValidUTF8(string(data[:maxShown]), "") + more(len(data)-maxShown)
}

// more says how many bytes are not shown.
func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf("… (%d more bytes; worker dlq show --full or export has all)", n)
}

// String returns the data for a person: indented, and of bounded length.
func (v View) String() string { return v.Clip(maxShown) }

// Clip is String with another bound, in bytes.
func (v View) Clip(limit int) string {
	if v.Object == nil {
		if len(v.Text) > limit {
			return strings.ToValidUTF8(v.Text[:limit], "") + more(len(v.Text)-limit)
		}
		return v.Text
	}
	return indent(v.Object, limit)
}

// JSON returns the data for a program: an object, or a string.
func (v View) JSON() json.RawMessage {
	if v.Object != nil {
		return v.Object
	}
	text, _ := json.Marshal(v.Text) // a string never fails
	return text
}

// indent breaks compact JSON into lines, down to maxIndented levels and up to limit
// bytes.
func indent(data []byte, limit int) string {
	var b strings.Builder
	level := 0
	newLine := func() {
		if level <= maxIndented {
			b.WriteByte('\n')
			b.WriteString(strings.Repeat("  ", level))
		}
	}
	for i := 0; i < len(data); i++ {
		if b.Len() > limit {
			b.WriteString("\n" + more(len(data)-i))
			break
		}
		switch c := data[i]; c {
		case '"':
			end := i + 1
			for data[end] != '"' {
				if data[end] == '\\' {
					end++
				}
				end++
			}
			text := data[i : end+1]
			if room := limit - b.Len(); len(text) > room {
				b.Write(bytes.ToValidUTF8(text[:max(0, room)], nil))
				i += max(0, room)
				b.WriteString(more(len(data) - i))
				return b.String()
			}
			b.Write(text)
			i = end
		case '{', '[':
			b.WriteByte(c)
			level++
			if data[i+1] == c+2 {
				continue
			}
			newLine()
		case '}', ']':
			level--
			if data[i-1] != c-2 {
				if level < maxIndented {
					newLine()
				}
			}
			b.WriteByte(c)
		case ',':
			b.WriteByte(c)
			newLine()
		case ':':
			b.WriteString(": ")
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// SafeID returns id if it is a UUID, else nothing.
func SafeID(id string) string {
	if uuidForm.is(id) {
		return id
	}
	return ""
}

// SafeName returns the feature and the action, each hidden unless it is a word.
func SafeName(s *Stored) (feature, action string) { return Word(s.Feature), Word(s.Action) }
