package dlq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/itchyny/gojq"
)

// Fix is a jq expression that corrects the data of events.
type Fix struct {
	// Name is what errors call the expression, such as --jq.
	Name       string
	Expression string
	code       *gojq.Code
}

// fixTimeout bounds the expression for one event, because it may be a loop.
const fixTimeout = 5 * time.Second

// strictFromJSON replaces gojq's fromjson, which keeps only one of two equal keys and
// replaces invalid Unicode.
const strictFromJSON = "def fromjson: _strict_fromjson;"

// CompileFix compiles an expression.
func CompileFix(expression string) (*Fix, error) {
	query, err := gojq.Parse(expression)
	if err != nil {
		return nil, err
	}
	own, err := gojq.Parse(strictFromJSON + " .")
	if err != nil {
		return nil, err
	}
	query.FuncDefs = append(own.FuncDefs, query.FuncDefs...)
	code, err := gojq.Compile(query, gojq.WithFunction("_strict_fromjson", 0, 0, func(v any, _ []any) any {
		text, ok := v.(string)
		if !ok {
			return errors.New("fromjson: not a string")
		}
		value, err := readValue([]byte(text))
		if err != nil {
			return fmt.Errorf("fromjson: %w", err)
		}
		return value
	}))
	if err != nil {
		return nil, err
	}
	return &Fix{"--jq", expression, code}, nil
}

// Apply returns the data that the expression makes. Values that the expression does
// not change stay exact: numbers keep their digits. Apply refuses data that it cannot
// read without loss. Its errors have no part of the data, which may be private.
func (f *Fix) Apply(ctx context.Context, data []byte) ([]byte, error) {
	fixed, err := f.apply(ctx, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	return fixed, nil
}

func (f *Fix) apply(ctx context.Context, data []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fixTimeout)
	defer cancel()
	input, err := readValue(data)
	if err != nil {
		return nil, fmt.Errorf("%w: no expression can fix that", err)
	}
	results := f.code.RunWithContext(ctx, input)
	result, ok := results.Next()
	if !ok {
		return nil, errors.New("the expression yields nothing for it; expected one object")
	}
	if err, failed := result.(error); failed {
		if ctx.Err() != nil {
			return nil, errors.New("the expression takes too long for it")
		}
		if strict, ok := errors.AsType[*notReadable](err); ok {
			return nil, fmt.Errorf("fromjson: %w", strict)
		}
		return nil, fmt.Errorf("the expression fails: %s", jqCause(err))
	}
	if _, object := result.(map[string]any); !object {
		return nil, fmt.Errorf("the expression yields a JSON %s; expected one object", gojq.TypeOf(result))
	}
	if _, more := results.Next(); more {
		return nil, errors.New("the expression yields more than one value; expected one object")
	}
	if err := exact(result); err != nil {
		return nil, err
	}
	return gojq.Marshal(result)
}

// safeCause matches the beginning of jq's own messages, up to a value that they quote.
var safeCause = regexp.MustCompile(`^(?:[a-z_@]+[0-9]{0,2},? ?)+(?:: (?:null|boolean|number|string|array|object))?`)

// jqCause returns the cause of jq's error without the values that jq quotes, which may
// be private.
func jqCause(err error) string {
	if _, own := err.(gojq.ValueError); own { //nolint:errorlint // gojq returns it unwrapped
		return "it calls error; its message is not shown, because it may quote values"
	}
	if cause := safeCause.FindString(err.Error()); cause != "" {
		return strings.TrimSpace(cause) + " (the values are not shown)"
	}
	return "jq's own message is not shown, because it may quote values"
}

// notReadable is the error for data that an expression cannot be given; why names the cause.
type notReadable struct{ why string }

func (e *notReadable) Error() string { return e.why }

// readValue reads exactly one JSON value strictly: no key twice, only valid
// Unicode. Numbers stay as they are written.
func readValue(data []byte) (any, error) {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	value, err := readNext(d)
	if err != nil {
		return nil, &notReadable{whyNot(err)}
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, &notReadable{fmt.Sprintf("the data has more than one JSON value, the second at byte offset %d", d.InputOffset())}
	}
	return value, nil
}

func whyNot(err error) string {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return fmt.Sprintf("the data has a key twice in one object, at byte offset %d", syntax.ByteOffset)
	case ok:
		return fmt.Sprintf("the data is malformed JSON at byte offset %d (the first is 0)", syntax.ByteOffset)
	case errors.Is(err, io.EOF):
		return "there is no data"
	}
	return "the data is malformed JSON"
}

func readNext(d *jsontext.Decoder) (any, error) {
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case '{':
		object := map[string]any{}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String() // the decoder's memory is used again
			if object[key], err = readNext(d); err != nil {
				return nil, err
			}
		}
		_, err = d.ReadToken()
		return object, err
	case '[':
		list := []any{}
		for d.PeekKind() != ']' {
			element, err := readNext(d)
			if err != nil {
				return nil, err
			}
			list = append(list, element)
		}
		_, err = d.ReadToken()
		return list, err
	case '"':
		return token.String(), nil
	case '0':
		return json.Number(token.String()), nil
	case 't', 'f':
		return token.Bool(), nil
	default: // null
		return nil, nil
	}
}

// exact refuses values that JSON cannot hold, which gojq would write as others.
func exact(v any) error {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return errors.New("the expression yields a number that JSON cannot hold")
		}
	case string:
		if !utf8.ValidString(v) {
			return errors.New("the expression yields a text that is not valid UTF-8")
		}
	case []any:
		for _, element := range v {
			if err := exact(element); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, value := range v {
			if !utf8.ValidString(key) {
				return errors.New("the expression yields a key that is not valid UTF-8")
			}
			if err := exact(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// canRead reports whether an expression can be given the data.
func canRead(data []byte) bool {
	_, err := readValue(data)
	return err == nil
}
