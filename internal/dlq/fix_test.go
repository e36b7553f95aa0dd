package dlq

import (
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

func applyFix(t *testing.T, expression, data string) (string, error) {
	t.Helper()
	m, err := CompileFix(expression)
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Apply(t.Context(), []byte(data))
	return string(out), err
}

// TestFixRefusesDataThatItCannotReadWithoutLoss has data of which an expression would see
// less than the worker's own decoder. A fix would lose the rest silently.
func TestFixRefusesDataThatItCannotReadWithoutLoss(t *testing.T) {
	nothing := func(data string) (string, string) { return `.feature="cody.hover"`, data }
	for name, c := range map[string]func() (expression, data, want string){
		"a key twice": func() (string, string, string) {
			e, d := nothing(`{"metadata":{"count":1,"count":2}}`)
			return e, d, "a key twice"
		},
		"a key twice, escaped": func() (string, string, string) { e, d := nothing(`{"a":1,"\u0061":2}`); return e, d, "a key twice" },
		"a lone surrogate":     func() (string, string, string) { e, d := nothing(`{"x":"emoji\ud83d"}`); return e, d, "malformed JSON" },
		"latin-1": func() (string, string, string) {
			e, d := nothing("{\"x\":\"M\xfcller\"}")
			return e, d, "malformed JSON"
		},
		"cut": func() (string, string, string) { e, d := nothing(`{"x":"M`); return e, d, "malformed JSON" },
		"two values": func() (string, string, string) {
			e, d := nothing(`{"x":1}{"y":2}`)
			return e, d, "more than one JSON value"
		},
		"nothing": func() (string, string, string) { e, d := nothing(``); return e, d, "no data" },
		"a key twice in text": func() (string, string, string) {
			return "fromjson", `"{\"count\":1,\"count\":2}"`, "fromjson: the data has a key twice"
		},
		"a surrogate in text": func() (string, string, string) {
			return ".x|fromjson", `{"x":"{\"a\":\"\\ud83d\"}"}`, "fromjson: the data is malformed JSON"
		},
		"latin-1 in base64":  func() (string, string, string) { return ".x|={y:@base64d}", `{"x":"TfxsbGVy"}`, "not valid UTF-8" },
		"an infinite number": func() (string, string, string) { return ".x*=10", `{"x":1e308}`, "a number that JSON cannot hold" },
		"no number at all":   func() (string, string, string) { return ".x=nan", `{"x":1}`, "a number that JSON cannot hold" },
	} {
		expression, data, want := c()
		out, err := applyFix(t, expression, data)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "--jq: ") {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
}

func TestFixKeepsUntouchedValuesExact(t *testing.T) {
	const rest = `"big":1e400,"decimal":0.12345678901234567890123,"id":12345678901234567890,"one":1.0`
	for _, c := range []struct{ expression, data, want string }{
		{`.a=1`, `{"a":0,` + rest + `}`, `{"a":1,` + rest + `}`},
		{`del(.a)`, `{"a":0,` + rest + `}`, `{` + rest + `}`},
		{`.[0]`, `[{` + rest + `}]`, `{` + rest + `}`},
		{`.x`, `{"x":{` + rest + `}}`, `{` + rest + `}`},
		{`fromjson`, `"{\"big\":1e400,\"decimal\":0.12345678901234567890123}"`, `{"big":1e400,"decimal":0.12345678901234567890123}`},
		{`with_entries(.key|=ascii_downcase)`, `{"BIG":1e400}`, `{"big":1e400}`},
		{`.a.b.c="x"`, `{"s":"\ud83d\ude00 M\u00fcller \ufffd"}`, `{"a":{"b":{"c":"x"}},"s":"😀 Müller \ufffd"}`},
	} {
		want := strings.ReplaceAll(c.want, `\ufffd`, "\uFFFD")
		if got, err := applyFix(t, c.expression, c.data); err != nil || got != want {
			t.Errorf("%s of %s: %v\n got %s\nwant %s", c.expression, c.data, err, got, want)
		}
	}
}

// TestAdviceIsTrue tries the advice. If it names an expression, the expression must fix the
// event; if it says that no expression can, a fix must fail.
func TestAdviceIsTrue(t *testing.T) {
	const inner = `{"feature":"a.b","action":"cd"}`
	for data, expression := range map[string]string{
		`"{\"feature\":\"a.b\",\"action\":\"cd\"}"`: "fromjson",
		"[" + inner + "]":        ".[0]",
		`{"feature":`:            "",
		"{\"feature\":\"\xff\"}": "",
		inner + inner:            "",
		"":                       "",
	} {
		s := &Stored{Reason: event.MalformedPayload}
		s.Original.Data = []byte(data)
		text := Advice(s)
		if expression == "" {
			if _, err := applyFix(t, "{}", data); err == nil || !strings.Contains(text, "no expression can fix that") {
				t.Errorf("%s: %s", data, text)
			}
			continue
		}
		if got, err := applyFix(t, expression, data); err != nil || got == "" || !strings.Contains(text, expression) {
			t.Errorf("%s: %s, %v; %s", data, got, err, text)
		}
	}
	s := &Stored{Reason: event.InvalidEvent}
	s.Original.Data = []byte(`{"feature":"a.b","feature":"a.b"}`)
	if text := Advice(s); !strings.Contains(text, "no expression can fix that") {
		t.Error(text)
	}
}

func TestFixErrorNamesTheCauseWithoutValues(t *testing.T) {
	const data = `{"user":{"userId":"secret(x"},"list":["secret"],"secret":{"k":1},"n":4711}`
	for expression, want := range map[string]string{
		".user.userId |= tonumber":        "tonumber cannot be applied to",
		".user.userId + 1":                "cannot add: string",
		".list[.user.userId]":             "expected an object but got: array",
		".user.userId | keys":             "keys cannot be applied to: string",
		".user.userId | test(\"(\")":      "",
		".user.userId | strptime(\"%Y\")": "",
		".n | .+\"a\"":                    "cannot add: number",
		".list | tonumber":                "tonumber cannot be applied to: array",
		"error(.user)":                    "it calls error",
		"error(.user.userId)":             "it calls error",
		".n | error":                      "it calls error",
		".user | implode":                 "",
		".user.userId | @base64d":         "",
		"{(.n|tostring): 1} | .[.n]":      "",
		"[range(.n)] | .[1e10] = 1":       "",
	} {
		_, err := applyFix(t, expression, data)
		if err == nil {
			if want != "" {
				t.Errorf("%s works", expression)
			}
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "4711") || strings.Contains(err.Error(), "gojq") {
			t.Errorf("%s: %v", expression, err)
		}
	}
}
