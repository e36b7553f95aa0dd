package event

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/sourcegraph/telemetry-relay/internal/race"
)

// The JSON Schema in docs/ is for publishers in other languages. These tests compare it
// with the decoder: an event is valid by the schema exactly if the decoder accepts it,
// except for the cases that docs/publishing.md lists as invisible to a schema.

const schemaFile = "../../docs/event.schema.json"

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// schemaSays reports whether data is valid by the schema. A schema can judge only one JSON
// document with unique keys; document is false for other data.
func schemaSays(schema *jsonschema.Schema, data []byte) (valid, document bool) {
	dec := jsontext.NewDecoder(bytes.NewReader(data))
	if _, err := dec.ReadValue(); err != nil || dec.PeekKind() != 0 {
		return false, false
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return false, false
	}
	return schema.Validate(v) == nil, true
}

// decoderSays reports whether the decoder accepts the data, and why not.
func decoderSays(t testing.TB, data []byte) (bool, string) {
	_, rejection := NewDecoder(testServices(t), "dev").Decode(testMessage(string(data)))
	if rejection != nil {
		return false, rejection.Error()
	}
	return true, ""
}

var utf8Free = regexp.MustCompile(`^[\x00-\x7f]*$`)

var edgeOfTime = regexp.MustCompile(`"timestamp":"(0001-01-01T|9999-12-31T)`)

// stricter names the listed exception because of which the schema refuses an event that the
// decoder accepts. The schema is limited to features that every validator loads. And RFC
// 3339 has a year 0000, which an offset can move to the year 0001.
func stricter(data []byte) bool {
	return yearZero.Match(data) || aboveLargest.Match(data)
}

var (
	yearZero = regexp.MustCompile(`"timestamp":"0000-`)
	// aboveLargest is a number that is rounded to the largest double.
	aboveLargest = regexp.MustCompile(`1\.7976931348623158e308`)
)

// beyond names the listed exception that a schema cannot see and because of which the
// decoder rejects an event that the schema accepts.
func beyond(data []byte, detail string) bool {
	if strings.HasPrefix(detail, "invalid_event: timestamp: ") {
		// The offset decides whether the time is within the years that exist.
		return edgeOfTime.Match(data)
	}
	if strings.Contains(detail, "expected a key of at most 250 bytes") {
		// A schema counts characters, not bytes.
		return !utf8Free.Match(data)
	}
	for _, listed := range []string{
		"expected an integer without fraction or exponent", // 1.0 is 1 to a schema
		"at most 100 levels of nesting",
		"the event is too large",
		"expected at most 96 keys", // a schema cannot count keys by their values
	} {
		if strings.Contains(detail, listed) {
			return true
		}
	}
	return false
}

// agree fails unless schema and decoder give the same verdict.
func agree(t interface{ Errorf(string, ...any) }, tb testing.TB, schema *jsonschema.Schema, data []byte) (accepted bool) {
	valid, document := schemaSays(schema, data)
	accepted, detail := decoderSays(tb, data)
	switch {
	case accepted && !valid && !stricter(data):
		t.Errorf("the decoder takes what is not valid by the schema: %.300s", data)
	case !accepted && valid && document && !beyond(data, detail):
		t.Errorf("valid by the schema, and the decoder says %q: %.300s", detail, data)
	}
	return accepted
}

// TestSchemaCorpus compares for all documents of this package's other tests, and for the
// sample events.
func TestSchemaCorpus(t *testing.T) {
	schema := compileSchema(t)
	corpus := seeds()
	for _, file := range []string{"../devstack/sample/events.ndjson", "../devstack/sample/bad.ndjson"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for sample := range strings.Lines(string(text)) {
			if _, data, ok := strings.Cut(strings.TrimSuffix(sample, "}\n"), `"data":`); ok {
				corpus = append(corpus, data)
			}
		}
	}
	for _, test := range timestampTests {
		corpus = append(corpus, fmt.Sprintf(`{"feature":"ab","action":"cd","timestamp":%q}`, test.text))
	}
	counts := map[bool]int{}
	for _, data := range corpus {
		counts[agree(t, t, schema, []byte(data))]++
	}
	if counts[true] < 2000 || counts[false] < 100 {
		t.Errorf("%d accepted, %d rejected: not much of a corpus", counts[true], counts[false])
	}
}

// fragments are values that a field may be given, right and wrong.
var fragments = []string{
	`null`, `true`, `false`, `0`, `-0`, `1`, `-1`, `2147483647`, `2147483648`, `1.0`, `1e2`, `0.5`, `1e308`, `1e309`, `-1e309`,
	`1.7976931348623157e308`, `1.7976931348623158e308`, `1.7976931348623159e308`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775808`, `-9223372036854775809`,
	`""`, `"a"`, `"ab"`, `"cody.hover"`, `"ab\n"`, `"019a0000-0000-7000-8000-000000000001\n"`, `"2026-11-20T09:00:00Z\n"`, `"0000-06-01T00:00:00Z"`, `"Cody"`, `"cody_hover"`, `"a1"`, `"é"`, `"a\u0062"`,
	`"` + strings.Repeat("a", 64) + `"`, `"` + strings.Repeat("a", 65) + `"`,
	`"019a0000-0000-7000-8000-000000000001"`, `"019A0000-0000-7000-8000-00000000000F"`, `"019a0000-0000-7000-8000-00000000000"`, `"019a000000007000-8000-000000000001"`,
	`"019a000-0000-7000-8000-000000000001"`, `"019a0000-000-7000-8000-000000000001"`, `"019a0000-0000-7000-8000-0000000000001"`, `"g19a0000-0000-7000-8000-000000000001"`,
	`"2026-11-20T09:00:00Z"`, `"2024-02-29T23:59:59.123456789+23:59"`, `"2023-02-29T00:00:00Z"`, `"1900-02-29T00:00:00Z"`, `"2000-02-29T00:00:00Z"`,
	`"2026-04-31T00:00:00Z"`, `"2026-11-20t09:00:00z"`, `"2026-11-20T09:00:60Z"`, `"2026-11-20T24:00:00Z"`, `"2026-11-20T09:00:00.1234567890Z"`, `"2026-11-20T09:00:00"`,
	`"0001-01-01T00:00:00+00:01"`, `"0000-12-31T23:59:59-23:59"`, `"9999-12-31T23:59:59-00:01"`,
	`[]`, `[1]`, `[null,[1e309]]`, `{}`, `{"":""}`, `{"a":1}`, `{"a":1e309}`, `{"a":1.7976931348623158e308}`, `{"a":1.7976931348623159e308}`, `{"a":-1.7976931348623159e308}`, `{"a":null}`, `{"a":"b"}`, `{"a":[{"b":1e400}]}`, `{"a":{"b":{}}}`,
	longKey(250, `1`), longKey(251, `1`), longKey(251, `0`), longKey(251, `1e-400`), longKey(251, `5e-324`), longKey(251, `-1`), longKey(251, `1e309`), longKey(300, `"a"`),
}

// longKey is an object whose only key becomes an attribute at the gateway.
func longKey(bytes int, value string) string {
	return `{"` + attributePrefix + strings.Repeat("k", bytes-len(attributePrefix)) + `":` + value + `}`
}

// known has the fields of each object; the event itself is "".
var known = map[string][]string{
	"": topNames, "user": userShape.names, "client": clientShape.names, "interaction": interactionShape.names,
	"billingMetadata": billingShape.names, "marketingTracking": marketingShape.names,
}

// drawObject returns an object of known fields, and sometimes an unknown one.
func drawObject(t *rapid.T, name string) string {
	fields := rapid.SliceOfNDistinct(rapid.SampledFrom(known[name]), 0, 3, rapid.ID[string]).Draw(t, name)
	if rapid.IntRange(0, 19).Draw(t, "unknown?") == 0 {
		fields = append(fields, rapid.SampledFrom([]string{"", "Feature", "tier", "legacyMetadata", "name2"}).Draw(t, "unknown"))
	}
	var members []string
	if name == "" {
		for _, required := range []string{"feature", "action"} {
			if rapid.IntRange(0, 29).Draw(t, required+"?") > 0 {
				members = append(members, fmt.Sprintf(`%q:"ab"`, required))
			}
		}
	}
	for _, field := range fields {
		if name == "" && (field == "feature" || field == "action") {
			// Once is enough.
			if len(members) == 2 {
				continue
			}
			members = nil
		}
		value := rapid.SampledFrom(fragments).Draw(t, field)
		if _, isObject := known[field]; isObject && field != "" && rapid.Bool().Draw(t, field+" is an object") {
			value = drawObject(t, field)
		}
		members = append(members, fmt.Sprintf("%q:%s", field, value))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// TestSchemaGenerated compares for events of every shape.
func TestSchemaGenerated(t *testing.T) {
	schema := compileSchema(t)
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		enough := "20000"
		if race.Enabled {
			enough = "1000" // the detector is slow, and there is one goroutine
		}
		_ = flag.Set("rapid.checks", enough)
		defer func() { _ = flag.Set("rapid.checks", checks.DefValue) }()
	}
	counts := map[bool]int{}
	rapid.Check(t, func(rt *rapid.T) {
		counts[agree(rt, t, schema, []byte(drawObject(rt, "")))]++
	})
	if counts[true] < 50 || counts[false] < 50 {
		t.Errorf("%d accepted, %d rejected: not much of a test", counts[true], counts[false])
	}
	// Compare each fragment in each place, too.
	for object, fields := range known {
		for _, field := range append(fields, "unknown") {
			for _, value := range fragments {
				data := fmt.Sprintf("%q:%s", field, value)
				switch {
				case object != "":
					data = fmt.Sprintf(`{"feature":"ab","action":"cd",%q:{%s}}`, object, data)
				case field == "feature":
					data = fmt.Sprintf(`{"action":"cd",%s}`, data)
				case field == "action":
					data = fmt.Sprintf(`{"feature":"ab",%s}`, data)
				default:
					data = fmt.Sprintf(`{"feature":"ab","action":"cd",%s}`, data)
				}
				agree(t, t, schema, []byte(data))
			}
		}
	}
}

// TestSchemaCalendar compares every possible day, and every leap day.
func TestSchemaCalendar(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector is slow, and there is one goroutine")
	}
	schema := compileSchema(t)
	day := func(year, month, day int) {
		agree(t, t, schema, fmt.Appendf(nil, `{"feature":"ab","action":"cd","timestamp":"%04d-%02d-%02dT12:00:00Z"}`, year, month, day))
	}
	for year := 1; year <= 9999; year++ {
		day(year, 2, 29)
	}
	for _, year := range []int{2023, 2024} {
		for month := range 14 {
			for d := range 33 {
				day(year, month, d)
			}
		}
	}
	for i := range 100 {
		for _, at := range []string{
			fmt.Sprintf("%02d:00:00Z", i), fmt.Sprintf("00:%02d:00Z", i), fmt.Sprintf("00:00:%02dZ", i),
			fmt.Sprintf("12:00:00+%02d:00", i), fmt.Sprintf("12:00:00-00:%02d", i), fmt.Sprintf("12:00:00.%0*d-00:00", i%12, i),
		} {
			agree(t, t, schema, fmt.Appendf(nil, `{"feature":"ab","action":"cd","timestamp":"2026-11-20T%s"}`, at))
		}
	}
}

// TestSchemaIsNarrow requires that each listed exception is needed: the schema accepts it,
// and the decoder rejects it.
func TestSchemaIsNarrow(t *testing.T) {
	schema := compileSchema(t)
	var manyAttributes strings.Builder
	for i := range 97 {
		fmt.Fprintf(&manyAttributes, `"%sOf%d":1,`, attributePrefix, i)
	}
	manyAttributes.WriteString(`"other":1`)
	deep := strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)
	for _, data := range []string{
		`{"feature":"ab","action":"cd","metadataVersion":1.0}`,
		`{"feature":"ab","action":"cd","user":{"userId":1e2}}`,
		`{"feature":"ab","action":"cd","privateMetadata":` + deep + `}`,
		`{"feature":"ab","action":"cd","timestamp":"0001-01-01T00:00:00+00:01"}`,
		`{"feature":"ab","action":"cd","privateMetadata":{"a":"` + strings.Repeat("<", 2<<20) + `"}}`,
		`{"feature":"ab","action":"cd","metadata":{"` + attributePrefix + strings.Repeat("é", 115) + `":1}}`,
		`{"feature":"ab","action":"cd","metadata":{` + manyAttributes.String() + `}}`,
	} {
		valid, document := schemaSays(schema, []byte(data))
		accepted, detail := decoderSays(t, []byte(data))
		if !valid || !document || accepted || !beyond([]byte(data), detail) {
			t.Errorf("valid %v, accepted %v, %s: %.100s", valid, accepted, detail, data)
		}
	}
	for _, data := range []string{`{"feature":"ab","action":"cd","action":"cd"}`, "{\"feature\":\"ab\",\"action\":\"cd\xff\"}", `{"feature":"ab","action":"cd"} {}`} {
		if _, document := schemaSays(schema, []byte(data)); document {
			t.Errorf("a schema sees %q", data)
		}
		if accepted, _ := decoderSays(t, []byte(data)); accepted {
			t.Errorf("accepted: %q", data)
		}
	}
}
