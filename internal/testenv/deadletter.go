package testenv

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// DeadLetter is a dead-lettered message: the original one, and what the worker says of it.
type DeadLetter struct {
	Data       []byte
	Attributes map[string]string // the original ones
	DLQ        map[string]string // those that begin with dlq_
}

// ReadDeadLetter restores the original as the encodings are documented, apart from the
// worker's own decoder. An attribute that stands beside an envelope must be the original's.
func ReadDeadLetter(data []byte, attributes map[string]string) (DeadLetter, error) {
	l := DeadLetter{Data: data, Attributes: map[string]string{}, DLQ: map[string]string{}}
	for key, value := range attributes {
		if strings.HasPrefix(key, "dlq_") {
			l.DLQ[key] = value
		} else {
			l.Attributes[key] = value
		}
	}
	encoding := l.DLQ["dlq_encoding"]
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
		l.Data = plain
		return l, nil
	case "envelope+gzip":
		return l, l.open(plain)
	default:
		return l, fmt.Errorf("dlq_encoding is %q", encoding)
	}
}

// open takes the original out of an envelope.
func (l *DeadLetter) open(envelope []byte) error {
	var line struct {
		Attributes  map[string]string
		Data        json.RawMessage
		DataBase64  []byte
		OrderingKey string
	}
	if err := json.Unmarshal(envelope, &line); err != nil {
		return err
	}
	for key, value := range l.Attributes {
		if line.Attributes[key] != value {
			return fmt.Errorf("attribute %s stands beside the envelope and is not the original's", key)
		}
	}
	l.Data, l.Attributes = append(line.Data, line.DataBase64...), line.Attributes
	if line.OrderingKey != "" {
		l.DLQ["dlq_ordering_key"] = line.OrderingKey
	}
	return nil
}
