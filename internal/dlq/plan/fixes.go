package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// Action is what happens to the messages of a fault.
type Action string

// The actions. Fix replays the messages with data that an expression has corrected.
const (
	Fix    Action = "jq"
	Replay Action = "replay"
	Purge  Action = "purge"
	Keep   Action = "keep"
)

// Publishes reports whether the action publishes messages again.
func (a Action) Publishes() bool { return a == Fix || a == Replay }

// Step is an action with its expression, which only Fix has.
type Step struct {
	Action Action
	JQ     string
}

// check returns what is wrong with a step. compile returns what is wrong with an
// expression.
func (s Step) check(compile func(string) error) error {
	switch s.Action {
	case Fix:
		if s.JQ == "" {
			return errors.New("jq: expected an expression")
		}
		if err := compile(s.JQ); err != nil {
			return fmt.Errorf("jq: expected a jq expression: %w", err)
		}
	case Replay, Purge, Keep:
		if s.JQ != "" {
			return fmt.Errorf("%s: expected no expression", s.Action)
		}
	default:
		return fmt.Errorf("expected replay, purge, keep or jq: EXPR, got %s", clip(string(s.Action)))
	}
	return nil
}

// Fixes says what happens to which fault, by the fault's id.
type Fixes map[string]Step

// maxFixes bounds the file, in bytes.
const maxFixes = 1 << 20

// ParseFixes reads a file of fixes:
//
//	F-7c3a91: {jq: '.user.userId |= tonumber'}
//	F-11aa22: replay
//	F-33bb44: purge
//	F-55cc66: keep
//
// It is strict, and lists all faults of the file. compile returns what is wrong with an
// expression.
func ParseFixes(source []byte, compile func(string) error) (Fixes, error) {
	if len(source) > maxFixes {
		return nil, fmt.Errorf("the file has %d bytes; expected at most %d", len(source), maxFixes)
	}
	d := yaml.NewDecoder(bytes.NewReader(source))
	var document yaml.Node
	switch err := d.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("expected fault: action, and found nothing")
	case err != nil:
		return nil, err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("expected one YAML document")
	}
	top := document.Content[0]
	if top.Kind != yaml.MappingNode || len(top.Content) == 0 {
		return nil, fmt.Errorf("line %d: expected a mapping of fault: action", top.Line)
	}
	fixes := Fixes{}
	var errs []error
	for pair := range slices.Chunk(top.Content, 2) {
		id, step := pair[0].Value, pair[1]
		wrong := func(err error) { errs = append(errs, fmt.Errorf("line %d: %w", pair[0].Line, err)) }
		_, twice := fixes[id]
		switch parsed, err := readStep(step); {
		case pair[0].Kind != yaml.ScalarNode || !fault.IsID(id):
			wrong(fmt.Errorf("expected the id of a fault as stats prints it, such as F-7c3a91, got %s", clip(id)))
		case twice:
			wrong(fmt.Errorf("%s is there twice", id))
		case err != nil:
			wrong(fmt.Errorf("%s: %w", id, err))
		default:
			if err := parsed.check(compile); err != nil {
				wrong(fmt.Errorf("%s: %w", id, err))
			}
			fixes[id] = parsed
		}
	}
	return fixes, errors.Join(errs...)
}

// readStep reads the action of a fault.
func readStep(node *yaml.Node) (Step, error) {
	switch {
	case node.Kind == yaml.ScalarNode && node.Value != string(Fix):
		return Step{Action: Action(node.Value)}, nil
	case node.Kind == yaml.MappingNode && len(node.Content) == 2 &&
		node.Content[0].Value == string(Fix) && node.Content[1].Kind == yaml.ScalarNode:
		return Step{Fix, node.Content[1].Value}, nil
	}
	return Step{}, errors.New("expected replay, purge, keep or jq: EXPR")
}

// clip quotes a text from outside for an error, shortened.
func clip(s string) string {
	const limit = 60
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
