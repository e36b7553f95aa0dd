package plan

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// compile takes any expression but bad.
func compile(expression string) error {
	if expression == "bad" {
		return errors.New("unexpected token")
	}
	return nil
}

func TestParseFixesReadsEachAction(t *testing.T) {
	fixes, err := ParseFixes([]byte(`
# the first
F-7c3a91: {jq: '.user.userId |= tonumber'}
F-11aa22: replay
F-33bb44: purge
F-55cc66:
  jq: |
    del(.typo)
F-77dd88: keep
`), compile)
	if err != nil {
		t.Fatal(err)
	}
	want := "map[F-11aa22:{replay } F-33bb44:{purge } F-55cc66:{jq del(.typo)\n} F-77dd88:{keep } F-7c3a91:{jq .user.userId |= tonumber}]"
	if got := fmt.Sprint(fixes); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseFixesRefuses(t *testing.T) {
	const step = "expected replay, purge, keep or jq: EXPR"
	for text, want := range map[string][]string{
		"":                                 {"found nothing"},
		"# nothing":                        {"found nothing"},
		"{}":                               {"expected a mapping"},
		"- F-7c3a91: replay":               {"line 1: expected a mapping"},
		"F-7c3a91":                         {"expected a mapping"},
		"F-7c3a91: {":                      {"yaml: "},
		"F-7c3a91: replay\n---\nx: y":      {"one YAML document"},
		"F-7c3a91: delete":                 {`line 1: F-7c3a91: ` + step + `, got "delete"`},
		"F-7c3a91:":                        {step},
		"F-7c3a91: jq":                     {step},
		"F-7c3a91: [replay]":               {step},
		"F-7c3a91: {jq: '.', x: y}":        {step},
		"F-7c3a91: {JQ: '.'}":              {step},
		"F-7c3a91: {jq: ''}":               {"jq: expected an expression"},
		"F-7c3a91: {jq: bad}":              {"expected a jq expression: unexpected token"},
		"F-7c3a91: purge\nF-7c3a91: keep":  {"line 2: F-7c3a91 is there twice"},
		"x: purge\nF-7c3a91: z\nF-1: keep": {`line 1: expected the id of a fault`, `line 2: F-7c3a91: ` + step, `line 3: expected the id of a fault as stats prints it, such as F-7c3a91, got "F-1"`},
		"[1]: purge":                       {"expected the id of a fault"},
		strings.Repeat("# ", maxFixes):     {"expected at most"},
	} {
		_, err := ParseFixes([]byte(text), compile)
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%.80q: got %v, want %q", text, err, part)
			}
		}
	}
}

func FuzzParseFixes(f *testing.F) {
	f.Add("F-7c3a91: {jq: '.user.userId |= tonumber'}\nF-11aa22: replay")
	f.Add("a: &x\n  b: *x")
	f.Fuzz(func(t *testing.T, text string) {
		fixes, err := ParseFixes([]byte(text), compile)
		if err == nil && len(fixes) == 0 {
			t.Error("neither fixes nor an error")
		}
	})
}
