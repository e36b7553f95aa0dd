// Package line is the form in which messages are kept in files, one a line:
// what `worker publish` takes and what exports and backups hold.
package line

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// Message is a message apart from what Pub/Sub itself gives it.
type Message struct {
	Attributes  map[string]string
	Data        []byte
	OrderingKey string
}

type jsonLine struct {
	Attributes  map[string]string `json:"attributes,omitempty"`
	Data        json.RawMessage   `json:"data,omitempty"`
	DataBase64  *[]byte           `json:"dataBase64,omitempty"`
	OrderingKey string            `json:"orderingKey,omitempty"`
}

// Append appends the message as one line, without the line break. Parse gives
// exactly the same message again: data that is not a JSON object in one line
// travels in base64.
func Append(b []byte, m Message) ([]byte, error) {
	head := jsonLine{Attributes: m.Attributes, OrderingKey: m.OrderingKey}
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
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// maxDepth is how deeply Parse lets a line be nested: encoding/json's limit.
const maxDepth = 10_000

// verbatim reports whether data can stand in a line as it is.
func verbatim(data []byte) bool {
	return data[0] == '{' && data[len(data)-1] == '}' &&
		!bytes.ContainsAny(data, "\r\n") && utf8.Valid(data) && json.Valid(data) && shallow(data)
}

// shallow reports whether valid JSON may be nested once more.
func shallow(data []byte) bool {
	if bytes.Count(data, []byte("{"))+bytes.Count(data, []byte("[")) < maxDepth {
		return true
	}
	return json.Valid(slices.Concat([]byte("["), data, []byte("]")))
}

// Parse reads a line. It is strict: unknown keys and both forms of data at once
// are errors. The message may share the line's memory.
func Parse(text []byte) (Message, error) {
	var l jsonLine
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return Message{}, describe(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Message{}, errors.New("expected one JSON object a line, and found more behind it")
	}
	m := Message{Attributes: l.Attributes, OrderingKey: l.OrderingKey, Data: l.Data}
	if l.DataBase64 != nil {
		if l.Data != nil {
			return Message{}, errors.New(`expected "data" or "dataBase64", and found both`)
		}
		m.Data = *l.DataBase64
	}
	if len(m.Data) == 0 && len(m.Attributes) == 0 {
		return Message{}, errors.New(`expected {"attributes":{…},"data":{…}}, and found neither`)
	}
	return m, nil
}

// describe says what is wrong without showing the content.
func describe(err error) error {
	var (
		syntax *json.SyntaxError
		kind   *json.UnmarshalTypeError
	)
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("expected a JSON object, and found nothing")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON object does not end")
	case errors.As(err, &syntax):
		return fmt.Errorf("not valid JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Errorf("%s: expected another type than a JSON %s", kind.Field, kind.Value)
	case errors.As(err, &kind):
		return fmt.Errorf("expected a JSON object, and found a JSON %s", kind.Value)
	}
	return err
}
