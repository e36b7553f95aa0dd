// Package ndjson reads and writes messages in files, one JSON object a line. `worker
// publish` reads these files; exports and backups write them.
package ndjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// Message is a message apart from what Pub/Sub itself gives it.
type Message struct {
	Attributes  map[string]string
	Data        []byte
	OrderingKey string
	// DeadLetter says where the message was in the dead-letter queue; nil if the line is
	// not from there.
	DeadLetter *DeadLetter
}

// DeadLetter has everything that a dead-lettered message has beyond the original one.
// A message that is published again from its line is the same event, and one that is
// put back into the queue is the same dead-lettered message.
type DeadLetter struct {
	// ID is the id of the message in the queue. It tells two lines of one message from
	// two messages.
	ID string `json:"id,omitempty"`
	// MessageID and PublishTime identify the original message.
	MessageID   string    `json:"messageId"`
	PublishTime time.Time `json:"publishTime"`
	// FirstRejectedAt is the time of the event's first rejection, and Replays how often
	// it was replayed before this one.
	FirstRejectedAt time.Time `json:"firstRejectedAt"`
	Replays         int       `json:"replays,omitempty"`
	// RejectedAt is the time of the rejection, if no attribute says it.
	RejectedAt time.Time `json:"rejectedAt,omitzero"`
	// Attributes are the attributes that the queue added: the reason, the detail, …
	Attributes map[string]string `json:"attributes,omitempty"`
}

type jsonLine struct {
	Attributes  map[string]string `json:"attributes,omitempty"`
	DataBase64  *[]byte           `json:"dataBase64,omitempty"`
	OrderingKey string            `json:"orderingKey,omitempty"`
	DeadLetter  *DeadLetter       `json:"deadLetter,omitempty"`
}

// Append appends the message as one line, without the line break. Parse gives
// exactly the same message again: data that is not a JSON object in one line, or
// has characters that a terminal obeys, travels in base64.
func Append(b []byte, m Message) ([]byte, error) {
	head := jsonLine{Attributes: m.Attributes, OrderingKey: m.OrderingKey, DeadLetter: m.DeadLetter}
	if len(m.Data) > 0 && !verbatim(m.Data) {
		head.DataBase64 = &m.Data
	}
	encoded, err := encode(head)
	if err != nil {
		return b, err
	}
	if len(m.Data) == 0 || head.DataBase64 != nil {
		return append(b, encoded...), nil
	}
	// The encoder would reformat the data, so it is put in as it is.
	b = append(b, encoded[:len(encoded)-1]...)
	if len(encoded) > len("{}") {
		b = append(b, ',')
	}
	b = append(b, `"data":`...)
	b = append(b, m.Data...)
	return append(b, '}'), nil
}

func encode(l jsonLine) ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return nil, err
	}
	return terminal.Escape(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), nil
}

// maxDepth is how deeply Parse lets a line be nested: encoding/json's limit.
const maxDepth = 10_000

// verbatim reports whether data can stand in a line as it is.
func verbatim(data []byte) bool {
	return data[0] == '{' && data[len(data)-1] == '}' &&
		!bytes.ContainsAny(data, "\r\n") && utf8.Valid(data) && bytes.IndexFunc(data, unsafe) < 0 && json.Valid(data) && shallow(data)
}

// unsafe reports whether a character must not stand in a line, which people look
// at: it could control their terminal. As an escape sequence it would be other
// data.
func unsafe(r rune) bool { return r != '\t' && terminal.Unsafe(r) }

// shallow reports whether valid JSON may be nested once more.
func shallow(data []byte) bool {
	if bytes.Count(data, []byte("{"))+bytes.Count(data, []byte("[")) < maxDepth {
		return true
	}
	return json.Valid(slices.Concat([]byte("["), data, []byte("]")))
}

// Parse reads a line. It is strict: unknown keys, also those that differ in
// letter case only, keys that are there twice, and both forms of data at once
// are errors. The message may share the line's memory.
func Parse(text []byte) (Message, error) {
	// The data is only looked through: whether it is good is for others to say.
	d := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	switch token, err := d.ReadToken(); {
	case errors.Is(err, io.EOF):
		return Message{}, errors.New("expected a JSON object, and found nothing")
	case err != nil:
		return Message{}, describe(err)
	case token.Kind() != '{':
		return Message{}, fmt.Errorf("expected a JSON object, and found a JSON %s", kindName(token.Kind()))
	}
	var (
		m    Message
		seen []string
	)
	for d.PeekKind() != '}' {
		key, err := d.ReadToken()
		if err != nil {
			return Message{}, describe(err)
		}
		name := key.String()
		if slices.Contains(seen, name) {
			return Message{}, fmt.Errorf("%s is there twice", clipped(name))
		}
		seen = append(seen, name)
		if err := m.read(d, text, name); err != nil {
			return Message{}, describe(err)
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return Message{}, describe(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return Message{}, errors.New("expected one JSON object a line, and found more behind it")
	}
	if slices.Contains(seen, "data") && slices.Contains(seen, "dataBase64") {
		return Message{}, errors.New(`expected "data" or "dataBase64", and found both`)
	}
	if len(m.Data) == 0 && len(m.Attributes) == 0 {
		return Message{}, errors.New(`expected {"attributes":{…},"data":{…}}, and found neither`)
	}
	return m, nil
}

// read reads the value of a key.
func (m *Message) read(d *jsontext.Decoder, text []byte, name string) error {
	switch name {
	case "attributes":
		return strictValue(d, name, &m.Attributes)
	case "data":
		data, err := d.ReadValue()
		end := d.InputOffset() // the decoder's own copy is gone with the next token
		m.Data = text[int(end)-len(data) : end : end]
		return err
	case "dataBase64":
		return strictValue(d, name, &m.Data)
	case "orderingKey":
		return strictValue(d, name, &m.OrderingKey)
	case "deadLetter":
		return strictValue(d, name, &m.DeadLetter)
	}
	return fmt.Errorf("unknown field %s; expected attributes, data, dataBase64, orderingKey or deadLetter", clipped(name))
}

// strictValue reads a value into a Go one, as strictly as an event is read: what
// is there twice, or not valid Unicode, would be lost in silence.
func strictValue(d *jsontext.Decoder, name string, into any) error {
	kind := d.PeekKind()
	text, err := d.ReadValue()
	if err != nil {
		return err
	}
	begin := d.InputOffset() - int64(len(text))
	err = jsonv2.Unmarshal(text, into)
	semantic, ok := errors.AsType[*jsonv2.SemanticError](err)
	syntax, malformed := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jsontext.ErrDuplicateName):
		return fmt.Errorf("%s: a name is there twice, the second time at byte %d", name, begin+syntax.ByteOffset+1)
	case malformed:
		return fmt.Errorf("%s: not valid UTF-8, or a surrogate without its other half, at byte %d", name, begin+syntax.ByteOffset+1)
	case !ok:
		return err
	case semantic.Err != nil && kind == '"':
		return fmt.Errorf("%s: %w", name, semantic.Err) // base64's own
	case semantic.JSONKind != 0:
		kind = semantic.JSONKind
	}
	return fmt.Errorf("%s: expected another type than a JSON %s", name, kindName(kind))
}

func kindName(kind jsontext.Kind) string {
	switch kind {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case '0':
		return "number"
	case 't', 'f':
		return "bool"
	default:
		return "null"
	}
}

// clipped returns the part of a key that an error may repeat: nothing of a key that could
// be more than a name.
func clipped(key string) string {
	const limit = 80
	isName := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
	}
	if len(key) > limit || strings.IndexFunc(key, func(r rune) bool { return !isName(r) }) >= 0 {
		return fmt.Sprintf("with a name of %d bytes", len(key))
	}
	return strconv.Quote(key)
}

// describe says what is wrong without showing the content.
func describe(err error) error {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON object does not end")
	case ok:
		return fmt.Errorf("not valid JSON at byte %d", syntax.ByteOffset+1)
	}
	return err
}
