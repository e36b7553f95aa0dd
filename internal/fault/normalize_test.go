package fault

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// detailOf has the worker's own decoder reject a message.
func detailOf(t *testing.T, data string, attributes ...string) string {
	t.Helper()
	services, err := policy.NewSet([]*policy.Service{{ID: "sams"}, {
		ID: "strict2", Environments: []string{"dev", "prod1"}, Features: []string{"strict.*"}, PrivateMetadata: policy.RejectPrivate,
	}, {
		ID: "listed", PrivateMetadata: policy.RejectPrivate, RejectUnlisted: true,
		Catalogue: policy.Catalogue{{Feature: "a.b", Action: "cd"}: {Metadata: map[string]bool{"tier2": true}, Private: map[string]bool{"repository": true}}},
	}}, false)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"service_id": "sams"}
	for i := 0; i < len(attributes); i += 2 {
		all[attributes[i]] = attributes[i+1]
	}
	maps.DeleteFunc(all, func(_, v string) bool { return v == "none" })
	_, rejection := event.NewDecoder(services, "dev").Decode(event.Message{ID: "1", PublishTime: time.Now(), Data: []byte(data), Attributes: all})
	if rejection == nil {
		t.Fatalf("%s: it is valid", data)
	}
	return rejection.Detail
}

// field makes the data of an event that is valid but for some more.
func field(more string) string { return `{"feature":"a.b","action":"cd",` + more + `}` }

// TestNormalizeRemovesWhatVaries has two events with each kind of fault that the worker
// finds. Both details must give the same text, without the parts in which they differ.
func TestNormalizeRemovesWhatVaries(t *testing.T) {
	const all = "feature, action, id, timestamp, metadata, metadataVersion, privateMetadata, billingMetadata, user, client, interaction, featureFlags, marketingTracking"
	key := func(name string) string { return field(`"metadata":{"` + name + `":"x"}`) }
	attribute := func(bytes int) string {
		return field(`"metadata":{"recordsPrivateMetadata` + strings.Repeat("k", bytes-len("recordsPrivateMetadata")) + `":1}`)
	}
	for _, c := range []struct {
		one, other         string
		oneAttr, otherAttr []string
		want               string
	}{
		{one: `{"feature":"Bad 17","action":"cd"}`, other: `{"feature":"x","action":"cd"}`, want: `feature: expected 2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$, got "…"`},
		{one: `{"feature":"` + strings.Repeat("A", 90) + `","action":"cd"}`, other: `{"feature":"quo\"te 7","action":"cd"}`, want: `feature: expected 2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$, got "…"`},
		{one: `{"feature":1,"action":"cd"}`, other: `{"feature":22,"action":"cd"}`, want: `feature: expected a string, got a number`},
		{one: `{"action":"cd"}`, other: `{"action":"ef"}`, want: `feature: missing; expected 2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$`},
		{one: field(`"id":"17"`), other: field(`"id":"my, got 5"`), want: `id: expected a UUID in its canonical form of 36 characters, got "…"`},
		{
			one: field(`"timestamp":"2026-11-20 10:00:00Z"`), other: field(`"timestamp":"x"`),
			want: `timestamp: expected RFC 3339 with at most 9 fractional digits, within the years 0001 to 9999, such as 2006-01-02T15:04:05Z, got "…"`,
		},
		{one: field(`"typo":1`), other: field(`"typo":[2]`), want: `typo: unknown field; expected one of ` + all},
		{one: field(`"Id":"1"`), other: field(`"Id":"2"`), want: `Id: unknown field; did you mean id?`},
		{one: field(`"a b":1`), other: field(`"expected 4: x":1`), want: `["…"]: unknown field; expected one of ` + all},
		{one: field(`"user":{"userId":9223372036854775808}`), other: field(`"user":{"userId":-9223372036854775809}`), want: `user.userId: expected an integer from -9223372036854775808 to 9223372036854775807, got one out of range`},
		{one: field(`"metadataVersion":2147483648`), other: field(`"metadataVersion":-1`), want: `metadataVersion: expected an integer from 0 to 2147483647, got one out of range`},
		{one: field(`"metadataVersion":1.5`), other: field(`"metadataVersion":1e3`), want: `metadataVersion: expected an integer without fraction or exponent`},
		{one: key("p95"), other: field(`"metadata":{"p95":"y"}`), want: `metadata.p95: expected a number, got a string`},
		{one: key("gpt-4"), other: field(`"metadata":{"gpt-4":"y"}`), want: `metadata.gpt-4: expected a number, got a string`},
		{one: key("user_10001"), other: key("user_20002"), want: `metadata.user_N: expected a number, got a string`},
		{one: key("019a0000-0000-7000-8000-000000000001"), other: key("019b0000-0000-7000-8000-000000000002"), want: `metadata.ID: expected a number, got a string`},
		{one: key(`a\"]: 1`), other: key(`b c 22`), want: `metadata["…"]: expected a number, got a string`},
		{one: field(`"metadata":{"n":1e400}`), other: field(`"metadata":{"n":-1e999}`), want: `metadata.n: expected a number within the range of a 64-bit float`},
		{one: field(`"metadata":{"n":1,"n":2}`), other: field(`"metadata":{"n":3,"n":4}`), want: `metadata.n: duplicate key; expected it once`},
		{
			one: field(`"privateMetadata":{"n":[1e999]}`), other: field(`"privateMetadata":{"longer":[1e999]}`),
			want: `privateMetadata: expected a number within the range of a 64-bit float at byte offset N (the first is 0)`,
		},
		{
			one: field(`"privateMetadata":{"n":[{"a":1,"a":1}]}`), other: field(`"privateMetadata":{"longer":[{"a":1,"a":1}]}`),
			want: `privateMetadata: duplicate key at byte offset N (the first is 0); expected it once`,
		},
		{one: `{"feature":`, other: `{"longer":`, want: `malformed JSON at byte offset N (the first is 0): expected a value`},
		{one: `[1]`, other: ` []`, want: `malformed JSON at byte offset N (the first is 0): expected a JSON object`},
		{
			one: field(`"metadata":` + strings.Repeat("[", 200)), other: field(`"user":` + strings.Repeat("[", 200)),
			want: `malformed JSON at byte offset N (the first is 0): expected at most 100 levels of nesting`,
		},
		{one: field("\"client\":{\"name\":\"\xff\"}"), other: field("\"client\":{\"name\":\"abc\xff\"}"), want: `malformed JSON at byte offset N (the first is 0): expected valid UTF-8`},
		{one: attribute(300), other: attribute(301), want: `metadata[a key that begins with recordsPrivateMetadata]: expected a key of at most 250 bytes, got N: the gateway makes an attribute of it`},
		{
			one: field(`"privateMetadata":{"x":"` + strings.Repeat("<", 2_000_000) + `"}`), other: field(`"privateMetadata":{"x":"` + strings.Repeat("<", 2_000_001) + `"}`),
			want: `the event is too large: expected less than 9900000 bytes when the gateway renders it as JSON with its metadata, got N`,
		},
		{oneAttr: []string{"schema_version", "2"}, otherAttr: []string{"schema_version", "1.0"}, want: `attribute schema_version: expected "1" or none, got "…"`},
		{oneAttr: []string{"service_id", "none"}, otherAttr: []string{"service_id", "none", "x", "y"}, want: `attribute service_id: missing; expected the MSP service id of the publisher`},
		{oneAttr: []string{"service_id", "Bad 1"}, otherAttr: []string{"service_id", "Bad_2"}, want: `attribute service_id: expected an MSP service id of the form ^[a-z0-9-]+$, got "…"`},
		// The parts that stay are shown in other columns anyway.
		{oneAttr: []string{"service_id", "nobody-17"}, otherAttr: []string{"service_id", "nobody-17"}, want: `attribute service_id: "nobody-17" is not listed in services.yaml`},
		{
			one: field(`"metadata":{}`), other: field(`"metadata":{}`), oneAttr: []string{"service_id", "strict2", "service_environment", "x9"}, otherAttr: []string{"service_id", "strict2", "service_environment", "x9"},
			want: `service "strict2" may not publish for environment "x9"; services.yaml allows "dev", "prod1"`,
		},
		{
			one: field(`"metadata":{}`), other: field(`"metadata":{}`), oneAttr: []string{"service_id", "strict2"}, otherAttr: []string{"service_id", "strict2"},
			want: `feature: service "strict2" may not publish "a.b"; services.yaml allows "strict.*"`,
		},
		{
			one: `{"feature":"strict.a","action":"cd","privateMetadata":{"a":1}}`, other: `{"feature":"strict.a","action":"cd","privateMetadata":{"b":2}}`,
			oneAttr: []string{"service_id", "strict2"}, otherAttr: []string{"service_id", "strict2"},
			want: `privateMetadata: services.yaml does not allow service "strict2" any; expected none or an empty object`,
		},
		{
			one: field(`"privateMetadata":{"a":1}`), other: field(`"privateMetadata":{"repository":1,"longer":1}`),
			oneAttr: []string{"service_id", "listed"}, otherAttr: []string{"service_id", "listed"},
			want: `privateMetadata: the field at byte offset N (the first is 0) is not listed; the catalogue allows "repository"`,
		},
		{
			one: field(`"metadata":{"teir":1}`), other: field(`"metadata":{"tier2":1,"teir":1}`),
			oneAttr: []string{"service_id", "listed"}, otherAttr: []string{"service_id", "listed"},
			want: `metadata.teir: the catalogue allows "tier2"`,
		},
		{
			one: `{"feature":"a.b","action":"ef"}`, other: `{"feature":"a.b","action":"ef","metadata":{"x":1}}`,
			oneAttr: []string{"service_id", "listed"}, otherAttr: []string{"service_id", "listed"},
			want: `action: the catalogue does not list "ef" of "a.b"`,
		},
	} {
		one, other := detailOf(t, c.one, c.oneAttr...), detailOf(t, c.other, c.otherAttr...)
		if got := Normalize(one); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", one, got, c.want)
		}
		if got := Normalize(other); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", other, got, c.want)
		}
	}
}

// TestNormalizeOtherDetails has details that other parts of the worker, the gateway and
// other programs write.
func TestNormalizeOtherDetails(t *testing.T) {
	for in, want := range map[string]string{
		"the gateway left the event out of 3 answers in 5 submissions while it recorded others, without saying why":                 "the gateway left the event out of N answers in N submissions while it recorded others, without saying why",
		"5 streams with this event alone failed (Internal) while the gateway recorded others":                                       "N streams with this event alone failed (Internal) while the gateway recorded others",
		`the gateway refuses the identity service_id="sams2" service_environment="dev" (InvalidArgument) while it takes others`:     `the gateway refuses the identity service_id="sams2" service_environment="dev" (InvalidArgument) while it takes others`,
		"the gateway refuses a stream with this event (InvalidArgument) and takes the same stream without it":                       "the gateway refuses a stream with this event (InvalidArgument) and takes the same stream without it",
		"the message has 11000000 bytes, more than Pub/Sub can carry":                                                               "the message has N bytes, more than Pub/Sub can carry",
		"timestamp: missing, and the message's publish time is not within the years 0001 to 9999":                                   "timestamp: missing, and the message's publish time is not within the years 0001 to 9999",
		"Pub/Sub's own dead-letter policy took the message after 5 deliveries to the subscription relay-2; no worker has judged it": "Pub/Sub's own dead-letter policy took the message after N deliveries to the subscription relay-2; no worker has judged it",
		"the message's envelope cannot be read: not valid JSON at byte 17":                                                          "the message's envelope cannot be read: not valid JSON at byte N",
		"flate: corrupt input before offset 5":                                                                                      "flate: corrupt input before offset N",
		"id 019a0000-0000-7000-8000-000000000001 of m12 at 2026-11-20T10:00:00.5Z":                                                  "id ID of m12 at N",
		"value -1.5 of trace 0af7651916cd43dd8448eb211c80319c":                                                                      "value N of trace ID",
		"":               "",
		`an open "quote`: `an open "quote`,
	} {
		if got := Normalize(in); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
	if got := Normalize(strings.Repeat("ä", 2000)); len([]rune(got)) > maxDetailShown+1 {
		t.Errorf("%d characters", len([]rune(got)))
	}
}

func BenchmarkNormalize(b *testing.B) {
	const detail = `timestamp: expected RFC 3339 with at most 9 fractional digits, within the years 0001 to 9999, such as 2006-01-02T15:04:05Z, got "2026-11-20 10:00:00Z"`
	for b.Loop() {
		_ = Normalize(detail)
	}
}
