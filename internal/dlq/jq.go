package dlq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/itchyny/gojq"
)

// Mender changes the data of events by a jq expression.
type Mender struct{ code *gojq.Code }

// mendTimeout bounds the expression for one event: it may be a loop.
const mendTimeout = 5 * time.Second

// NewMender compiles an expression.
func NewMender(expression string) (*Mender, error) {
	query, err := gojq.Parse(expression)
	if err != nil {
		return nil, err
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, err
	}
	return &Mender{code}, nil
}

// Mend returns the data that the expression makes. Its errors do not hold any
// part of the data, which may be private.
func (m *Mender) Mend(ctx context.Context, data []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	var input any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // so that large integers stay what they are
	if d.Decode(&input) != nil || d.More() {
		return nil, errors.New("--jq: the data is not JSON, which no expression can mend")
	}
	results := m.code.RunWithContext(ctx, input)
	result, ok := results.Next()
	if !ok {
		return nil, errors.New("--jq: the expression yields nothing for it; expected one object")
	}
	if err, failed := result.(error); failed {
		if ctx.Err() != nil {
			return nil, errors.New("--jq: the expression takes too long for it")
		}
		// jq's own texts quote values.
		return nil, fmt.Errorf("--jq: the expression fails on it (%T)", err)
	}
	if _, object := result.(map[string]any); !object {
		return nil, fmt.Errorf("--jq: the expression yields a JSON %s; expected one object", gojq.TypeOf(result))
	}
	if _, more := results.Next(); more {
		return nil, errors.New("--jq: the expression yields more than one value; expected one object")
	}
	return gojq.Marshal(result)
}
