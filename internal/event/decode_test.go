package event

import (
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	gateway "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// base has the required fields, an id and a timestamp. Tests insert more before the closing
// brace.
const base = `"feature":"cody.chat","action":"executed","id":"` + testID + `","timestamp":"2026-11-20T10:13:26.4Z"`

// with returns the base event with further fields.
func with(fields string) string { return "{" + base + "," + fields + "}" }

func nest(opening, core, closing string, levels int) string {
	return strings.Repeat(opening, levels) + core + strings.Repeat(closing, levels)
}

// testMessage returns a message from the service that may publish anything.
func testMessage(data string) Message {
	return Message{
		ID: "11122233344455", PublishTime: time.Date(2026, 11, 20, 9, 0, 43, 200999000, time.UTC), Data: []byte(data),
		Attributes: map[string]string{"service_id": "allow"},
	}
}

// derivedID is the id of a testMessage without one.
const derivedID = "01a1f82f-c740-724b-a10f-4a6512d84dbe"

var accepted = []struct {
	name, data string
	// want is the event in prototext without the base's fields, source and parameters.
	want string
}{
	{"base", "{" + base + "}", ``},
	{"white space", " \t\r\n{ " + strings.NewReplacer(`":"`, "\" \t:\r\n\"", `","`, `" , "`).Replace(base) + " }\n ", ``},
	{"escapes", `{"\u0066eature":"cody\u002echat","action":"\u0065xecuted","id":"` + strings.Replace(testID, "0", `\u0030`, 1) + `","timestamp":"2026-11-20T10:13:26.\u0034Z"}`, ``},
	{"null is absent", with(`"metadata":null,"metadataVersion":null,"privateMetadata":null,"billingMetadata":null,"user":null,"client":null,"interaction":null,"featureFlags":null,"marketingTracking":null`), ``},
	{"null within objects", with(`"billingMetadata":{"product":null,"category":null},"user":{"samsExternalId":null,"anonymousUserId":null,"userId":null},"client":{"name":null,"version":null},"interaction":{"traceId":null,"interactionId":null,"countryCode":null},"marketingTracking":{"url":null}`),
		`parameters{billing_metadata{}} user{} source{client{}} interaction{} marketing_tracking{}`},
	{"empty objects are present", with(`"metadata":{},"privateMetadata":{},"billingMetadata":{},"user":{},"client":{},"interaction":{},"featureFlags":{},"marketingTracking":{}`),
		`parameters{private_metadata{} billing_metadata{}} user{} source{client{}} interaction{} feature_flags{} marketing_tracking{}`},
	{"empty strings", with(`"billingMetadata":{"product":"","category":""},"user":{"samsExternalId":"","anonymousUserId":""},"client":{"name":"","version":""},"interaction":{"traceId":"","interactionId":"","countryCode":""},"featureFlags":{"":""},"marketingTracking":{"url":""}`),
		`parameters{billing_metadata{}} user{sams_external_id:"" anonymous_user_id:""} source{client{version:""}} interaction{trace_id:"" interaction_id:"" geolocation{}} feature_flags{flags{key:"" value:""}} marketing_tracking{url:""}`},
	{"metadata", with(`"metadata":{"a":1,"b":-0.5,"c":1e3,"d":1E-400,"":0,"é\n":-0,"1":12345678901234567890}`),
		`parameters{metadata{key:"a" value:1} metadata{key:"b" value:-0.5} metadata{key:"c" value:1000} metadata{key:"d" value:0} metadata{key:"" value:0} metadata{key:"é\n" value:-0} metadata{key:"1" value:12345678901234567890}}`},
	{"metadata version", with(`"metadataVersion":2147483647`), `parameters{version:2147483647}`},
	{"metadata version zero", with(`"metadataVersion":-0`), ``},
	{"billing", with(`"billingMetadata":{"product":"cody","category":"core"}`), `parameters{billing_metadata{product:"cody" category:"core"}}`},
	{"user", with(`"user":{"userId":-9223372036854775808,"samsExternalId":"s","anonymousUserId":"a"}`),
		`user{user_id:-9223372036854775808 sams_external_id:"s" anonymous_user_id:"a"}`},
	{"user id zero", with(`"user":{"userId":-0}`), `user{user_id:0}`},
	{"user id at the limit", with(`"user":{"userId":9223372036854775807}`), `user{user_id:9223372036854775807}`},
	{"client", with(`"client":{"version":"1.2","name":"web"}`), `source{client{name:"web" version:"1.2"}}`},
	{"interaction", with(`"interaction":{"countryCode":"CH","interactionId":"i","traceId":"t"}`), `interaction{trace_id:"t" interaction_id:"i" geolocation{country_code:"CH"}}`},
	{"flags", with(`"featureFlags":{"a":"b","c":"\ud83d\ude00"}`), `feature_flags{flags{key:"a" value:"b"} flags{key:"c" value:"😀"}}`},
	{"marketing", with(`"marketingTracking":{"url":"1","firstSourceUrl":"2","cohortId":"3","referrer":"4","lastSourceUrl":"5","deviceSessionId":"6","sessionReferrer":"7","sessionFirstUrl":"8"}`),
		`marketing_tracking{url:"1" first_source_url:"2" cohort_id:"3" referrer:"4" last_source_url:"5" device_session_id:"6" session_referrer:"7" session_first_url:"8"}`},
	{"private", with(`"privateMetadata":{"a":"\b\f\r\t\/\\\"","b":[1,"x",null,true,false,[],{},[{"k":[-1.5]}]],"c":{"d":{"e":""},"":1e-400},"null":null}`),
		`parameters{private_metadata{
			fields{key:"a" value{string_value:"\b\f\r\t/\\\""}}
			fields{key:"b" value{list_value{values{number_value:1} values{string_value:"x"} values{null_value:NULL_VALUE} values{bool_value:true} values{bool_value:false}
				values{list_value{}} values{struct_value{}} values{list_value{values{struct_value{fields{key:"k" value{list_value{values{number_value:-1.5}}}}}}}}}}}
			fields{key:"c" value{struct_value{fields{key:"d" value{struct_value{fields{key:"e" value{string_value:""}}}}} fields{key:"" value{number_value:0}}}}}
			fields{key:"null" value{null_value:NULL_VALUE}}}}`},
}

func TestValidEventsAreAccepted(t *testing.T) {
	d := NewDecoder(testServices(t), "default-env")
	for _, test := range accepted {
		t.Run(test.name, func(t *testing.T) {
			want := &gateway.Event{}
			text := `id:"` + testID + `" timestamp{seconds:1795169606 nanos:400000000} feature:"cody.chat" action:"executed" source{server{}} parameters{}`
			if err := prototext.Unmarshal([]byte(text), want); err != nil {
				t.Fatal(err)
			}
			more := &gateway.Event{}
			if err := prototext.Unmarshal([]byte(test.want), more); err != nil {
				t.Fatal(err)
			}
			proto.Merge(want, more)
			m := testMessage(test.data)
			event, rejection := d.Decode(m)
			if diff := refEqual(outcome{id: testID, publisher: Publisher{"allow", "default-env"}, event: want}, event, rejection); diff != "" {
				t.Error(diff)
			}
			compare(t, m)
		})
	}
}

// rejected has the detail that on-call reads, for every rule.
var rejected = []struct {
	name, data string
	reason     Reason
	detail     string
	id         string
}{
	{"empty", ``, MalformedPayload, `malformed JSON at byte offset 0 (the first is 0): expected a JSON object`, ""},
	{"white space only", `  `, MalformedPayload, `malformed JSON at byte offset 2 (the first is 0): expected a JSON object`, ""},
	{"array", `[]`, MalformedPayload, `malformed JSON at byte offset 0 (the first is 0): expected a JSON object`, ""},
	{"null", `null`, MalformedPayload, `malformed JSON at byte offset 0 (the first is 0): expected a JSON object`, ""},
	{"byte order mark", "\ufeff{}", MalformedPayload, `malformed JSON at byte offset 0 (the first is 0): expected a JSON object, and the data begins as a byte order mark, which JSON must not have`, ""},
	{"trailing data", `{"a":1} {}`, MalformedPayload, `malformed JSON at byte offset 8 (the first is 0): expected nothing after the object`, ""},
	{"trailing zero byte", "{}\x00", MalformedPayload, `malformed JSON at byte offset 2 (the first is 0): expected nothing after the object`, ""},
	{"cut off", `{"feature":"a`, MalformedPayload, `malformed JSON at byte offset 13 (the first is 0): expected the end of a string`, ""},
	{"cut off after a key", `{"feature"`, MalformedPayload, `malformed JSON at byte offset 10 (the first is 0): expected a colon`, ""},
	{"cut off after a colon", `{"feature":`, MalformedPayload, `malformed JSON at byte offset 11 (the first is 0): expected a value`, ""},
	{"trailing comma", `{"a":1,}`, MalformedPayload, `malformed JSON at byte offset 7 (the first is 0): expected a key in double quotes`, ""},
	{"leading comma", `{,"a":1}`, MalformedPayload, `malformed JSON at byte offset 1 (the first is 0): expected a key in double quotes`, ""},
	{"missing comma", `{"a":1"b":2}`, MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected a comma or a closing brace`, ""},
	{"array with trailing comma", `{"a":[1,]}`, MalformedPayload, `malformed JSON at byte offset 8 (the first is 0): expected a value`, ""},
	{"array without comma", `{"a":[1 2]}`, MalformedPayload, `malformed JSON at byte offset 8 (the first is 0): expected a comma or a closing bracket`, ""},
	{"mixed brackets", `{"a":[1}}`, MalformedPayload, `malformed JSON at byte offset 7 (the first is 0): expected a comma or a closing bracket`, ""},
	{"unquoted key", `{a:1}`, MalformedPayload, `malformed JSON at byte offset 1 (the first is 0): expected a key in double quotes`, ""},
	{"comment", `{/**/}`, MalformedPayload, `malformed JSON at byte offset 1 (the first is 0): expected a key in double quotes`, ""},
	{"misspelt literal", `{"a":nul}`, MalformedPayload, `malformed JSON at byte offset 5 (the first is 0): expected a value`, ""},
	{"NaN", with(`"metadata":{"a":NaN}`), MalformedPayload, `malformed JSON at byte offset 140 (the first is 0): expected a value`, ""},
	{"leading zero", `{"a":01}`, MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected a comma or a closing brace`, ""},
	{"plus sign", `{"a":+1}`, MalformedPayload, `malformed JSON at byte offset 5 (the first is 0): expected a value`, ""},
	{"bare minus", `{"a":-}`, MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected a digit`, ""},
	{"bare point", `{"a":1.}`, MalformedPayload, `malformed JSON at byte offset 7 (the first is 0): expected a digit`, ""},
	{"bare exponent", `{"a":1e+}`, MalformedPayload, `malformed JSON at byte offset 8 (the first is 0): expected a digit`, ""},
	{"control character", "{\"a\":\"\n\"}", MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected an escape sequence in place of a control character`, ""},
	{"bad escape", `{"a":"\x"}`, MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected a valid escape sequence, with surrogates in pairs`, ""},
	{"short escape", `{"a":"\u12"}`, MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected a valid escape sequence, with surrogates in pairs`, ""},
	{"lone high surrogate", `{"a":"\ud83dx"}`, MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected a valid escape sequence, with surrogates in pairs`, ""},
	{"lone low surrogate", `{"a":"\ude00"}`, MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected a valid escape sequence, with surrogates in pairs`, ""},
	{"swapped surrogates", `{"a":"\ude00\ud83d"}`, MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected a valid escape sequence, with surrogates in pairs`, ""},
	{"invalid UTF-8 in a value", "{\"a\":\"é\xff\"}", MalformedPayload, `malformed JSON at byte offset 8 (the first is 0): expected valid UTF-8`, ""},
	{"invalid UTF-8 in a key", "{\"\xc3\":1}", MalformedPayload, `malformed JSON at byte offset 2 (the first is 0): expected valid UTF-8`, ""},
	{"encoded surrogate", "{\"a\":\"\xed\xa0\x80\"}", MalformedPayload, `malformed JSON at byte offset 6 (the first is 0): expected valid UTF-8`, ""},
	{"too deep in private metadata", with(`"privateMetadata":{"a":` + nest("[", "", "]", 99) + `}`), MalformedPayload, `malformed JSON at byte offset 245 (the first is 0): expected at most 100 levels of nesting`, ""},
	{"too deep in an unknown field", with(`"x":` + nest(`{"a":`, "1", "}", 100)), MalformedPayload, `malformed JSON at byte offset 623 (the first is 0): expected at most 100 levels of nesting`, ""},
	{"malformed wins over invalid", `{"feature":1,"unknown":2,"id":"","a":}`, MalformedPayload, `malformed JSON at byte offset 37 (the first is 0): expected a value`, ""},
	{"malformed wins over a duplicate", `{"feature":"ab","feature":"ab"`, MalformedPayload, `malformed JSON at byte offset 30 (the first is 0): expected a comma or a closing brace`, ""},

	{"no feature", `{"action":"cd","id":"` + testID + `"}`, InvalidEvent, `feature: missing; expected 2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$`, testID},
	{"null feature", `{"action":"cd","feature":null}`, InvalidEvent, `feature: missing; expected 2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$`, derivedID},
	{"no action", `{"feature":"ab"}`, InvalidEvent, `action: missing; expected 2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$`, derivedID},
	{"bad feature", `{"feature":"v2","action":"cd"}`, InvalidEvent, `feature: expected 2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$, got "v2"`, derivedID},
	{"long action", `{"feature":"ab","action":"` + strings.Repeat("a", 90) + `"}`, InvalidEvent, `action: expected 2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$, got a string of 90 bytes`, derivedID},
	{"feature of another type", `{"feature":["ab"],"action":"cd"}`, InvalidEvent, `feature: expected a string, got an array`, derivedID},
	{"empty id", `{"feature":"ab","action":"cd","id":""}`, InvalidEvent, `id: expected a UUID in its canonical form of 36 characters, got a string of 0 bytes`, ""},
	{"id in braces", `{"feature":"ab","action":"cd","id":"{` + testID + `}"}`, InvalidEvent, `id: expected a UUID in its canonical form of 36 characters, got a string of 38 bytes`, ""},
	{"id as URN", `{"feature":"ab","action":"cd","id":"urn:uuid:` + testID + `"}`, InvalidEvent, `id: expected a UUID in its canonical form of 36 characters, got a string of 45 bytes`, ""},
	{"id without hyphens", `{"feature":"ab","action":"cd","id":"` + strings.ReplaceAll(testID, "-", "") + `"}`, InvalidEvent, `id: expected a UUID in its canonical form of 36 characters, got a string of 32 bytes`, ""},
	{"id not hexadecimal", `{"feature":"ab","action":"cd","id":"` + strings.Replace(testID, "f", "g", 1) + `"}`, InvalidEvent, `id: expected a UUID in its canonical form of 36 characters, got a string of 36 bytes`, ""},
	{"id of another type", `{"feature":"ab","action":"cd","id":7}`, InvalidEvent, `id: expected a string, got a number`, ""},
	{"id twice", `{"feature":"ab","action":"cd","id":"` + testID + `","id":"` + testID + `"}`, InvalidEvent, `id: duplicate key; expected it once`, ""},
	{"id after another fault", `{"feature":1,"action":"cd","id":"` + testID + `"}`, InvalidEvent, `feature: expected a string, got a number`, testID},
	{"bad id after another fault", `{"feature":1,"action":"cd","id":"x"}`, InvalidEvent, `feature: expected a string, got a number`, ""},
	{"timestamp", `{"feature":"ab","action":"cd","timestamp":"2026-11-20 10:00:00Z"}`, InvalidEvent, `timestamp: expected RFC 3339 with at most 9 fractional digits, within the years 0001 to 9999, such as 2006-01-02T15:04:05Z, got a string of 20 bytes`, derivedID},
	{"timestamp of another type", `{"feature":"ab","action":"cd","timestamp":1795169606}`, InvalidEvent, `timestamp: expected a string, got a number`, derivedID},

	{"unknown field", with(`"source":{}`), InvalidEvent, `source: unknown field; expected one of feature, action, id, timestamp, metadata, metadataVersion, privateMetadata, billingMetadata, user, client, interaction, featureFlags, marketingTracking`, testID},
	{"letter case", with(`"Metadata":{}`), InvalidEvent, `Metadata: unknown field; did you mean metadata?`, testID},
	{"misspelt", with(`"interction":{}`), InvalidEvent, `interction: unknown field; did you mean interaction?`, testID},
	{"unknown field with an odd name", with(`"a b\u0000é":{}`), InvalidEvent, `[a key of 6 bytes]: unknown field; expected one of feature, action, id, timestamp, metadata, metadataVersion, privateMetadata, billingMetadata, user, client, interaction, featureFlags, marketingTracking`, testID},
	{"unknown field of an object", with(`"user":{"id":7}`), InvalidEvent, `user.id: unknown field; expected one of samsExternalId, anonymousUserId, userId`, testID},
	{"misspelt field of an object", with(`"user":{"samsExternalID":7}`), InvalidEvent, `user.samsExternalID: unknown field; did you mean samsExternalId?`, testID},
	{"unknown null field", with(`"user":{"x":null}`), InvalidEvent, `user.x: unknown field; expected one of samsExternalId, anonymousUserId, userId`, testID},
	{"geolocation", with(`"interaction":{"geolocation":{}}`), InvalidEvent, `interaction.geolocation: unknown field; expected one of traceId, interactionId, countryCode`, testID},
	{"legacy metadata", with(`"legacyMetadata":{"a":1}`), InvalidEvent, `legacyMetadata: unknown field; expected one of feature, action, id, timestamp, metadata, metadataVersion, privateMetadata, billingMetadata, user, client, interaction, featureFlags, marketingTracking`, testID},

	{"duplicate field", with(`"user":{},"\u0075ser":null`), InvalidEvent, `user: duplicate key; expected it once`, testID},
	{"duplicate after null", with(`"user":null,"user":{}`), InvalidEvent, `user: duplicate key; expected it once`, testID},
	{"duplicate field of an object", with(`"client":{"name":"a","name":null}`), InvalidEvent, `client.name: duplicate key; expected it once`, testID},
	{"duplicate metadata", with(`"metadata":{"tier":1,"b":2,"\u0074ier":3}`), InvalidEvent, `metadata.tier: duplicate key; expected it once`, testID},
	{"duplicate empty key", with(`"metadata":{"":1,"":2}`), InvalidEvent, `metadata[""]: duplicate key; expected it once`, testID},
	{"duplicate flag", with(`"featureFlags":{"a b":"1","a b":"2"}`), InvalidEvent, `featureFlags[a key of 3 bytes]: duplicate key; expected it once`, testID},
	{"duplicate private key", with(`"privateMetadata":{"a":1,"a":2}`), InvalidEvent, `privateMetadata: duplicate key at byte offset 149 (the first is 0); expected it once`, testID},
	{"nested duplicate private key", with(`"privateMetadata":{"a":[{"a":1,"b":{"c":1,"d":1,"\u0063":2}}]}`), InvalidEvent, `privateMetadata: duplicate key; expected each once`, testID},

	{"metadata of another type", with(`"metadata":[1]`), InvalidEvent, `metadata: expected an object of numbers, got an array`, testID},
	{"metadata string", with(`"metadata":{"ok":1,"tier":"secret"}`), InvalidEvent, `metadata.tier: expected a number, got a string`, testID},
	{"metadata null", with(`"metadata":{"a b":null}`), InvalidEvent, `metadata[a key of 3 bytes]: expected a number, got null`, testID},
	{"metadata boolean", with(`"metadata":{"a":true}`), InvalidEvent, `metadata.a: expected a number, got a boolean`, testID},
	{"metadata object", with(`"metadata":{"a":{"b":{}}}`), InvalidEvent, `metadata.a: expected a number, got an object`, testID},
	{"infinite metadata", with(`"metadata":{"a":1e400}`), InvalidEvent, `metadata.a: expected a number within the range of a 64-bit float`, testID},
	{"metadata version too large", with(`"metadataVersion":2147483648`), InvalidEvent, `metadataVersion: expected an integer from 0 to 2147483647, got one out of range`, testID},
	{"metadata version negative", with(`"metadataVersion":-1`), InvalidEvent, `metadataVersion: expected an integer from 0 to 2147483647, got one out of range`, testID},
	{"metadata version with exponent", with(`"metadataVersion":1e0`), InvalidEvent, `metadataVersion: expected an integer without fraction or exponent`, testID},
	{"metadata version string", with(`"metadataVersion":"1"`), InvalidEvent, `metadataVersion: expected an integer, got a string`, testID},
	{"private array", with(`"privateMetadata":[]`), InvalidEvent, `privateMetadata: expected an object, got an array`, testID},
	{"private string", with(`"privateMetadata":"secret"`), InvalidEvent, `privateMetadata: expected an object, got a string`, testID},
	{"infinite private number", with(`"privateMetadata":{"a":[-1e309]}`), InvalidEvent, `privateMetadata: expected a number within the range of a 64-bit float at byte offset 148 (the first is 0)`, testID},
	{"user of another type", with(`"user":"me"`), InvalidEvent, `user: expected an object, got a string`, testID},
	{"user id string", with(`"user":{"userId":"1"}`), InvalidEvent, `user.userId: expected an integer, got a string`, testID},
	{"user id fraction", with(`"user":{"userId":1.0}`), InvalidEvent, `user.userId: expected an integer without fraction or exponent`, testID},
	{"user id too large", with(`"user":{"userId":9223372036854775808}`), InvalidEvent, `user.userId: expected an integer from -9223372036854775808 to 9223372036854775807, got one out of range`, testID},
	{"string field number", with(`"marketingTracking":{"url":1}`), InvalidEvent, `marketingTracking.url: expected a string, got a number`, testID},
	{"billing boolean", with(`"billingMetadata":{"product":false}`), InvalidEvent, `billingMetadata.product: expected a string, got a boolean`, testID},
	{"country object", with(`"interaction":{"countryCode":{}}`), InvalidEvent, `interaction.countryCode: expected a string, got an object`, testID},
	{"flags of another type", with(`"featureFlags":true`), InvalidEvent, `featureFlags: expected an object of strings, got a boolean`, testID},
	{"flag boolean", with(`"featureFlags":{"a":true}`), InvalidEvent, `featureFlags.a: expected a string, got a boolean`, testID},
	{"flag null", with(`"featureFlags":{"a":null}`), InvalidEvent, `featureFlags.a: expected a string, got null`, testID},
	{"the first fault is told", with(`"user":{"userId":"1"},"metadata":{"a":"b"},"x":1`), InvalidEvent, `user.userId: expected an integer, got a string`, testID},
}

func TestInvalidEventsAreRejected(t *testing.T) {
	d := NewDecoder(testServices(t), "default-env")
	for _, test := range rejected {
		t.Run(test.name, func(t *testing.T) {
			m := testMessage(test.data)
			_, rejection := d.Decode(m)
			want := Rejection{test.reason, test.detail, test.id}
			if rejection == nil || *rejection != want {
				t.Errorf("Decode(%s)\n got %v\nwant %v", test.data, rejection, &want)
			}
			compare(t, m)
		})
	}
}

// seeds returns the documents of all tables, and some that combine what else only fuzzing
// does.
func seeds() []string {
	var all []string
	for _, test := range accepted {
		all = append(all, test.data)
	}
	for _, test := range rejected {
		all = append(all, test.data)
	}
	for _, test := range timestampTests {
		all = append(all, `{"feature":"ab","action":"cd","timestamp":"`+test.text+`"}`)
	}
	return append(all, typicalEvent, privateEvent,
		with(`"privateMetadata":`+nest(`{"a":`, "1", "}", 99)), with(`"privateMetadata":`+nest(`{"a":`, "1", "}", 100)),
		with(`"privateMetadata":{"a":`+nest("[", "", "]", 98)+"}"))
}

func TestSeedsAgreeWithReference(t *testing.T) {
	for _, data := range seeds() {
		for _, service := range []string{"allow", "drop", "reject", "narrow"} {
			compare(t, fuzzMessage([]byte(data), "service_id="+service, "11122233344455", 1795165243, 200999000))
		}
	}
	for _, attributes := range attributeSeeds {
		compare(t, fuzzMessage([]byte(`{"feature":"cody.chat","action":"executed"}`), attributes, "1", 1795165243, 0))
		compare(t, fuzzMessage([]byte(`{"feature":"ab","action":"cd","interaction":{}}`), attributes, "", -62135596801, 999))
	}
}

// TestTruncatedEventIsMalformed cuts a full event at every byte. The decoder must reject
// each piece as malformed.
func TestTruncatedEventIsMalformed(t *testing.T) {
	d := NewDecoder(testServices(t), "")
	for n := range len(privateEvent) {
		_, rejection := d.Decode(testMessage(privateEvent[:n]))
		if rejection == nil || rejection.Reason != MalformedPayload {
			t.Fatalf("cut at %d: %v", n, rejection)
		}
	}
}

func TestDecoderIsConcurrent(t *testing.T) {
	d := NewDecoder(testServices(t), "")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var buf []byte
			for i := range 200 {
				data := []string{typicalEvent, privateEvent, `{"x":`}[i%3]
				var event Event
				var rejection *Rejection
				event, buf, rejection = d.DecodeInto(buf, testMessage(data))
				if (rejection == nil) != (i%3 < 2) {
					t.Errorf("%s: %v", data, rejection)
				}
				if rejection == nil && proto.Unmarshal(event.Wire, new(gateway.Event)) != nil {
					t.Errorf("%s: bad wire bytes", data)
				}
			}
		})
	}
	wg.Wait()
}
