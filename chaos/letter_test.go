package chaos_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// letter is a dead letter: the original message, and what the worker says of it.
type letter struct {
	data       []byte
	attributes map[string]string // the original ones
	dlq        map[string]string
}

// readLetter restores the original as the encodings are documented.
func readLetter(data []byte, attributes map[string]string) (letter, error) {
	l := letter{data: data, attributes: map[string]string{}, dlq: map[string]string{}}
	for key, value := range attributes {
		if strings.HasPrefix(key, "dlq_") {
			l.dlq[key] = value
		} else {
			l.attributes[key] = value
		}
	}
	encoding := l.dlq["dlq_encoding"]
	if encoding == "" {
		return l, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return l, err
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return l, err
	}
	switch encoding {
	case "gzip":
		l.data = plain
		return l, nil
	case "envelope+gzip":
		var line struct {
			Attributes map[string]string
			Data       json.RawMessage
			DataBase64 []byte
		}
		if err := json.Unmarshal(plain, &line); err != nil {
			return l, err
		}
		l.data, l.attributes = append(line.Data, line.DataBase64...), line.Attributes
		return l, nil
	}
	return l, fmt.Errorf("dlq_encoding is %q", encoding)
}
