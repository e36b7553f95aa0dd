package ndjson

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

var exact = []Message{
	{Attributes: map[string]string{"service_id": "sams"}, Data: []byte(`{"feature":"a.b", "x":1.0e3,"x":2}`)},
	{Attributes: map[string]string{"a": "<&>\u2028\"\\"}, Data: []byte(`{"s":"<&>\u2028"}`), OrderingKey: "k"},
	{Data: []byte(`{}`)},
	{Data: []byte(" {}")},
	{Data: []byte("{} ")},
	{Data: []byte("{\n}")},
	{Data: []byte("[1]")},
	{Data: []byte("\xff\x00")},
	{Data: []byte("{\"a\":\"\xff\"}")},
	{Data: []byte(strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000))},
	{Data: []byte(strings.Repeat(`{"a":`, 9_998) + "{}" + strings.Repeat("}", 9_998))},
	{Data: []byte(strings.Repeat(`{"a":`, 9_999) + "{}" + strings.Repeat("}", 9_999))},
	{Data: []byte(`{"a":[` + strings.Repeat(`{},`, 20_000) + `{}]}`)},
	{Attributes: map[string]string{"only": "attributes"}},
}

func same(t *testing.T, want, got Message) {
	t.Helper()
	if !bytes.Equal(want.Data, got.Data) {
		t.Errorf("data: got %.100q…, want %.100q…", got.Data, want.Data)
	}
	want.Data, got.Data = nil, nil
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestRoundTripIsExact(t *testing.T) {
	for _, want := range exact {
		text, err := Append(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(text, "\r\n") {
			t.Errorf("more than one line: %q", text)
		}
		got, err := Parse(text)
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		same(t, want, got)
	}
}

// Data keeps what it says in every byte, also where that is wrong.
func TestParseKeepsData(t *testing.T) {
	for _, data := range []string{`{"a":1,"a":2}`, "{\"a\":\"\xff\"}", `{ "a" : 1.0e3 }`, `null`, `[1, 2]`, `"\ud800"`} {
		text := []byte(`{"orderingKey":null,"attributes":{"a":"b"},"data":` + data + `}`)
		m, err := Parse(text)
		if err != nil || string(m.Data) != data || m.Attributes["a"] != "b" {
			t.Errorf("%s: got %s, %v", data, m.Data, err)
		}
	}
}

// Wide but shallow data stays readable.
func TestDataStaysReadable(t *testing.T) {
	for _, data := range []string{`{"a":1}`, `{"a":[` + strings.Repeat(`{},`, 20_000) + `{}]}`} {
		text, err := Append(nil, Message{Data: []byte(data)})
		if want := `{"data":` + data + `}`; err != nil || string(text) != want {
			t.Errorf("got %.80s…, %v", text, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "found nothing",
		"{":                               "does not end",
		"{]":                              "not valid JSON at byte 2",
		"[]":                              "expected a JSON object, and found a JSON array",
		`{"attributes":{"a":1}}`:          "attributes: expected another type than a JSON number",
		`{"data":{}} {}`:                  "found more behind it",
		`{"data":{},"dataBase64":"e30="}`: "found both",
		`{"date":{}}`:                     `unknown field "date"`,
		`{"Data":{}}`:                     `unknown field "Data"; expected attributes, data`,
		`{"DATABASE64":"e30="}`:           `unknown field "DATABASE64"`,
		`{"data":{},"data":{}}`:           `"data" is there twice`,
		`{"data":{},"\u0064ata":{}}`:      `"data" is there twice`,
		`{"attributes":{"a":"b"},"Attributes":{"c":"d"}}`: `unknown field "Attributes"`,
		`{"attributes":["a"]}`:                            "attributes: expected another type than a JSON array",
		`{"orderingKey":{},"data":{}}`:                    "orderingKey: expected another type than a JSON object",
		`{"data":{"a":}}`:                                 "not valid JSON at byte 14",
		`{"data":{}`:                                      "does not end",
		`{"data":{},}`:                                    "not valid JSON",
		`{}`:                                              "found neither",
		`{"dataBase64":"%"}`:                              "illegal base64",
	} {
		_, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func FuzzExact(f *testing.F) {
	for _, m := range exact {
		f.Add("k", "v", m.Data, m.OrderingKey)
	}
	f.Fuzz(func(t *testing.T, key, value string, data []byte, ordering string) {
		want := Message{
			Attributes:  map[string]string{strings.ToValidUTF8(key, ""): strings.ToValidUTF8(value, "")},
			Data:        data,
			OrderingKey: strings.ToValidUTF8(ordering, ""),
		}
		text, err := Append(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(text)
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		same(t, want, got)
	})
}

// TestParseIsStrict: what a lenient reader would lose or replace is a fault.
func TestParseIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		`{"attributes":{"service_id":"sams","service_id":"cody"},"data":{}}`:      "attributes: a name is there twice",
		`{"attributes":{"service_id":"sams","service\u005fid":"cody"},"data":{}}`: "attributes: a name is there twice",
		"{\"attributes\":{\"team\":\"M\xfcller\"},\"data\":{}}":                   "attributes: not valid UTF-8",
		"{\"attributes\":{\"te\xfcm\":\"x\"},\"data\":{}}":                        "attributes: not valid UTF-8",
		`{"attributes":{"team":"\ud800"},"data":{}}`:                              "attributes: not valid UTF-8, or a surrogate",
		"{\"orderingKey\":\"M\xfcller\",\"data\":{}}":                             "orderingKey: not valid UTF-8",
		`{"orderingKey":"\udc00","data":{}}`:                                      "orderingKey: not valid UTF-8, or a surrogate",
		`{"attributes":{"n":1},"data":{}}`:                                        "attributes: expected another type than a JSON number",
	} {
		if m, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", text, m, err)
		}
	}
}

// TestAppendIsHarmless: a line holds nothing that a terminal obeys, and yet gives
// the same message again.
func TestAppendIsHarmless(t *testing.T) {
	m := Message{Attributes: map[string]string{"k\u202e": "\u009b31m"}, OrderingKey: "\u2066", Data: []byte("{\"a\":\"\u009b2J\u202e\"}")}
	text, err := Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	if got := terminal.Clean(string(text)); got != string(text) {
		t.Errorf("%q", text)
	}
	got, err := Parse(text)
	if err != nil || !bytes.Equal(got.Data, m.Data) || got.OrderingKey != m.OrderingKey || got.Attributes["k\u202e"] != "\u009b31m" {
		t.Errorf("%v %+v", err, got)
	}
}
