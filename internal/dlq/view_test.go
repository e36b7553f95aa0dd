package dlq

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// view returns the view of a message with a detail.
func view(data, detail string, attributes map[string]string, reveal bool) View {
	s := &Stored{Detail: detail}
	s.Original.Data, s.Original.Attributes = []byte(data), attributes
	return ViewOf(s, reveal)
}

// shownText returns all texts of a view.
func shownText(v View) string {
	return v.String() + string(v.JSON()) + fmt.Sprint(v.Attributes)
}

// TestViewHidesUnsafeValues has private data in every place in which it once reached a
// screen. The view must hide it, and count the hidden bytes.
func TestViewHidesUnsafeValues(t *testing.T) {
	const typo = `{"feature":"cody.hover","action":"shown","prviateMetadata":{"email":"alice@example.com"}}`
	twice, err := json.Marshal(typo)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"as it should be":          `{"a":1,"privateMetadata":{"x":"alice@example.com"}}`,
		"misspelt":                 typo,
		"encoded twice":            string(twice),
		"in a string":              `{"message":` + string(twice) + `}`,
		"in a string of metadata":  `{"metadata":{"message":` + string(twice) + `}}`,
		"cut":                      strings.TrimSuffix(typo, "\"}}"),
		"in an array":              "[" + typo + "]",
		"two":                      typo + typo,
		"look-alike messages":      `{"\u0440rivateMetadata":{"x":"alice@example.com"}}`,
		"escaped":                  `{"\u0070rivateMetadata":{"x":"alice@example.com"}}`,
		"a known field's name":     `{"user":{"email":"alice@example.com"}}`,
		"a known field's value":    `{"user":{"userId":"alice@example.com"}}`,
		"a known field's type":     `{"client":["alice@example.com"]}`,
		"a known field's content":  `{"feature":{"x":"alice@example.com"}}`,
		"the id":                   `{"id":"alice@example.com"}`,
		"the timestamp":            `{"timestamp":"alice@example.com"}`,
		"the feature":              `{"feature":"alice@example.com"}`,
		"a key of metadata":        `{"metadata":{"alice@example.com":1}}`,
		"a value of metadata":      `{"metadata":{"email":"alice@example.com"}}`,
		"a flag":                   `{"featureFlags":{"x":"alice@example.com"}}`,
		"an unknown name":          `{"alice@example.com":1}`,
		"a web address":            `{"marketingTracking":{"url":"https://x.example/?email=alice@example.com"}}`,
		"invalid UTF-8":            "{\"privateMetadata\":\"alice@example.com\xff\"}",
		"a lone surrogate":         `{"privateMetadata":"\ud800 alice@example.com"}`,
		"text":                     "alice@example.com",
		"twice":                    `{"feature":"a.b","feature":"alice@example.com"}`,
		"deep":                     `{"metadata":` + strings.Repeat("[", 20000) + `"alice@example.com"` + strings.Repeat("]", 20000) + `}`,
		"a byte order mark before": "\ufeff" + typo,
	} {
		v := view(data, "", nil, false)
		if got := shownText(v); strings.Contains(got, "alice") || strings.Contains(got, "example") || !strings.Contains(got, Hidden) {
			t.Errorf("%s: shown is %s", name, got)
		}
		if v.HiddenBytes < len("alice@example.com") || v.HiddenBytes > len(data) {
			t.Errorf("%s: %d bytes hidden of %d", name, v.HiddenBytes, len(data))
		}
		if !v.Private && name != "a web address" && name != "an unknown name" && name != "a key of metadata" {
			t.Errorf("%s: counts as without private data", name)
		}
		if len(data) > 1000 {
			continue
		}
		if got := shownText(view(data, "", nil, true)); !strings.Contains(got, "alice") {
			t.Errorf("%s: revealed is %s", name, got)
		}
	}
}

// TestViewShowsSafeValues: values of a safe form stay, also where they are wrong.
func TestViewShowsSafeValues(t *testing.T) {
	const data = `{"feature":"cody_chat","action":"sent","id":"019aa000-0000-7000-8000-000000000001","timestamp":"2026-11-20 02:00:00",
		"metadata":{"n":1.50,"big":1e400},"metadataVersion":2,"privateMetadata":{},"user":{"userId":"4711"},"client":{"name":"VSCODE.Cody","version":"1.2.3+x"},
		"interaction":{"countryCode":"US","traceId":null},"featureFlags":{"new-ui":"true"}}`
	v := view(data, "", nil, false)
	if got, want := string(v.JSON()), strings.NewReplacer("\n", "", "\t", "").Replace(data); got != want || v.HiddenBytes != 0 || v.Private {
		t.Errorf("%d hidden, private %v\n got %s\nwant %s", v.HiddenBytes, v.Private, got, want)
	}
	if got, want := view(`{"metadata":{"n":1.50},"user":{}}`, "", nil, false).String(), "{\n  \"metadata\": {\n    \"n\": 1.50\n  },\n  \"user\": {}\n}"; got != want {
		t.Errorf("got %s", got)
	}
	// The detail shows the name of its field anyway; the value stays hidden.
	v = view(`{"typo":"secret","other":"secret","more":1,"user":{"given":"secret"}}`, "typo: unknown field; expected one of feature", nil, false)
	if got, want := string(v.JSON()), `{"typo":"[hidden]","user":{"[1 unknown field]":"[hidden]"},"[2 unknown fields]":"[hidden]"}`; got != want {
		t.Errorf("got %s", got)
	}
}

func TestViewHidesUnknownAttributes(t *testing.T) {
	attributes := map[string]string{
		"service_id": "sams", "service_version": "1.84.0", "service_environment": "alice@example.com", "user": "alice@example.com", "alice@example.com": "x",
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "origin_publish_time": "2026-11-20T02:00:00.5Z",
	}
	v := view("{}", "", attributes, false)
	want := map[string]string{
		"service_id": "sams", "service_version": "1.84.0", "service_environment": Hidden, "[2 unknown attributes]": Hidden,
		"traceparent": attributes["traceparent"], "origin_publish_time": attributes["origin_publish_time"],
	}
	if !maps.Equal(v.Attributes, want) || v.HiddenBytes != len("alice@example.com")*3+len("userx") || !v.Private {
		t.Errorf("%d %v", v.HiddenBytes, v.Attributes)
	}
	if v := view("{}", "attribute user: no", attributes, false); v.Attributes["user"] != Hidden {
		t.Errorf("%v", v.Attributes)
	}
	if v := view("{}", "", attributes, true); !maps.Equal(v.Attributes, attributes) || v.HiddenBytes != 0 {
		t.Errorf("%d %v", v.HiddenBytes, v.Attributes)
	}
}

// TestViewIsBounded: the view does not grow faster than its input, and the text for a
// person has a maximum length.
func TestViewIsBounded(t *testing.T) {
	nested := `{"x":` + strings.Repeat("[", 9900) + strings.Repeat("1,", 10_000) + "1" + strings.Repeat("]", 9900) + "}"
	many := `{"metadata":{"a":1` + strings.Repeat(`,"b":2`, 100_000) + `}}`
	for name, data := range map[string]string{
		"nested": nested, "deeper than a parser goes": strings.Repeat("[", 70_000) + strings.Repeat("]", 70_000), "many": many,
		"objects": `{"x":` + strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000) + "}",
		"long":    `{"x":"` + strings.Repeat("x", 1_000_000) + `"}`, "text": strings.Repeat("x", 1_000_000), "binary": strings.Repeat("\xff", 1_000_000),
		"hundred levels": `{"x":` + strings.Repeat("[", 99) + strings.Repeat("1,", 10_000) + "1" + strings.Repeat("]", 99) + "}",
	} {
		for _, reveal := range []bool{false, true} {
			v := view(data, "", nil, reveal)
			if got := len(v.String()); got > 2*maxShown {
				t.Errorf("%s, reveal %v: a person sees %d bytes of %d", name, reveal, got, len(data))
			}
			if got := v.JSON(); len(got) > len(data)+100 && len(got) > 8*maxShown || !json.Valid(got) {
				t.Errorf("%s, reveal %v: a program gets %d bytes of %d", name, reveal, len(got), len(data))
			}
			// As a part of a line it must be valid, too.
			if _, err := json.Marshal(struct{ Data any }{v.JSON()}); err != nil {
				t.Errorf("%s, reveal %v: %v", name, reveal, err)
			}
		}
	}
}

func TestSafeDetailHidesQuotedValues(t *testing.T) {
	for in, want := range map[string]string{
		`id: expected a UUID in its canonical form of 36 characters, got "alice@example.com"`: `id: expected a UUID in its canonical form of 36 characters, got "[hidden]"`,
		`metadata["alice@example.com"]: expected a number, got a string`:                      `metadata["[hidden]"]: expected a number, got a string`,
		`attribute service_id: "cody-web" is not listed in services.yaml`:                     `attribute service_id: "cody-web" is not listed in services.yaml`,
		`feature: expected x, got "aaa aaa"...`:                                               `feature: expected x, got "[hidden]"`,
		"\u009b31m":                                                                           "\ufffd31m",
	} {
		if got := SafeDetail(in); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}
