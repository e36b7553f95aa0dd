// Package sample has real sample events, for `worker local` and for tests.
package sample

import (
	"bytes"
	_ "embed" // for the events
	"fmt"

	"github.com/google/uuid"

	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
)

// Feature and action names, metadata keys and billing categories come from the
// public source of Cody (Apache-2.0); everything else is made up.
//
//go:embed events.ndjson
var events []byte

// bad events, one for each kind of mistake that is easily made.
//
//go:embed bad.ndjson
var bad []byte

// Events returns n valid events. It repeats its 2,000 events with new ids if n is larger.
func Events(n int) ([]ndjson.Message, error) {
	all, err := parse(events)
	if err != nil {
		return nil, err
	}
	out := make([]ndjson.Message, 0, n)
	for i := range n {
		m := all[i%len(all)]
		if i >= len(all) {
			if m.Data, err = renew(m.Data); err != nil {
				return nil, err
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// Bad returns events that the worker rejects, each for another reason.
func Bad() ([]ndjson.Message, error) { return parse(bad) }

func parse(text []byte) ([]ndjson.Message, error) {
	var all []ndjson.Message
	for text := range bytes.Lines(text) {
		m, err := ndjson.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("sample events: line %d: %w", len(all)+1, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// renew gives an event that has an id another one.
func renew(data []byte) ([]byte, error) {
	const key = `"id":"`
	at := bytes.Index(data, []byte(key))
	if at < 0 {
		return data, nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	fresh := bytes.Clone(data)
	copy(fresh[at+len(key):], id.String())
	return fresh, nil
}
