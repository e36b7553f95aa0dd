package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// reject is a message that must be dead-lettered.
type reject struct {
	name     string
	message  *pubsubpb.PubsubMessage
	reason   string
	says     []string // parts of the detail
	encoding string
	replays  string
	eventID  string
	noID     bool // the event's id is not known
}

const (
	head    = `"feature":"cody.chat","action":"sent"`
	givenID = "019a0000-0000-7000-8000-00000000abcd"
)

// with returns the data of an event with a further part.
func with(more string) string { return "{" + head + "," + more + "}" }

// nested returns an event with this many levels.
func nested(levels int) string {
	inner := levels - 2 // the event and its privateMetadata
	return with(`"privateMetadata":{"deep":` + strings.Repeat("[", inner) + strings.Repeat("]", inner) + `}`)
}

// random returns bytes that do not compress.
func random(n int) []byte {
	source := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = source.Read(b) // never fails
	return b
}

// named returns a message with only these attributes.
func named(data string, attributes ...string) *pubsubpb.PubsubMessage {
	m := message(data, attributes...)
	if len(attributes) == 0 || attributes[0] != "service_id" {
		delete(m.Attributes, "service_id")
	}
	return m
}

// rejects has every reason of the decoder, and every rule.
func rejects() []reject {
	var all []reject
	add := func(reason, name string, m *pubsubpb.PubsubMessage, says ...string) *reject {
		all = append(all, reject{name: reason + "/" + name, message: m, reason: reason, says: says})
		return &all[len(all)-1]
	}

	add("unsupported_schema", "newer", message(with(`"metadataVersion":1`), "schema_version", "2"), "schema_version", `"1"`)
	add("unsupported_schema", "empty", message("{"+head+"}", "schema_version", ""), "schema_version")
	add("unsupported_schema", "before the service", named("{}", "service_id", "nobody", "schema_version", "1.0"), "schema_version")
	add("unknown_service", "not listed", named("{"+head+"}", "service_id", "nobody"), "service_id", "nobody", "services.yaml")
	add("unknown_service", "malformed", named("{"+head+"}", "service_id", "Cody_Gateway"), "service_id", "^[a-z0-9-]+$")
	add("unknown_service", "empty", named("{"+head+"}", "service_id", ""), "service_id")
	add("unknown_service", "missing", named("{"+head+"}", "service_version", "1"), "service_id", "missing")
	add("unknown_service", "no attributes", named("{"+head+"}"), "service_id", "missing")
	add("unknown_service", "before the payload", named("[]", "service_id", "nobody"), "service_id")

	for _, bad := range []struct{ name, data string }{
		{"no data", ""},
		{"blank", " \n"},
		{"text", "hello"},
		{"array", "[{" + head + "}]"},
		{"null", "null"},
		{"string", `"text"`},
		{"number", "17"},
		{"trailing data", "{" + head + "} x"},
		{"two objects", "{" + head + "}{" + head + "}"},
		{"trailing comma", "{" + head + ",}"},
		{"unfinished", "{" + head},
		{"single quotes", "{'feature':'a'}"},
		{"comment", "{" + head + "} // ok"},
		{"BOM", "\ufeff{" + head + "}"},
		{"invalid UTF-8 in a value", with("\"privateMetadata\":{\"k\":\"\xff\"}")},
		{"invalid UTF-8 in a key", with("\"metadata\":{\"\xc3\x28\":1}")},
		{"invalid UTF-8 behind", "{" + head + "}\xff"},
		{"surrogate in UTF-8", with("\"privateMetadata\":{\"k\":\"\xed\xa0\x80\"}")},
		{"leading zero", with(`"metadata":{"n":01}`)},
		{"not a number", with(`"metadata":{"n":NaN}`)},
		{"control character", with("\"privateMetadata\":{\"k\":\"a\nb\"}")},
		{"UTF-16", "\xff\xfe{\x00}\x00"},
		{"101 levels", nested(101)},
		{"100,000 levels", nested(100_000)},
		{"broken behind a fault", `{"feature":1,`},
	} {
		add("malformed_payload", bad.name, message(bad.data))
	}

	for _, bad := range []struct {
		name, data string
		says       []string
	}{
		{"empty", "{}", []string{"feature"}},
		{"no feature", `{"action":"sent"}`, []string{"feature", "missing"}},
		{"no action", `{"feature":"cody"}`, []string{"action", "missing"}},
		{"null feature", `{"feature":null,"action":"sent"}`, []string{"feature"}},
		{"null action", `{"feature":"cody","action":null}`, []string{"action"}},
		{"empty feature", `{"feature":"","action":"sent"}`, []string{"feature"}},
		{"short feature", `{"feature":"a","action":"sent"}`, []string{"feature"}},
		{"capital feature", `{"feature":"Cody","action":"sent"}`, []string{"feature"}},
		{"digit in action", `{"feature":"cody","action":"v2"}`, []string{"action"}},
		{"underscore in action", `{"feature":"cody","action":"chat_sent"}`, []string{"action"}},
		{"space in feature", `{"feature":"cody chat","action":"sent"}`, []string{"feature"}},
		{"slash in feature", `{"feature":"cody/chat","action":"sent"}`, []string{"feature"}},
		{"line break in feature", `{"feature":"cody\n","action":"sent"}`, []string{"feature"}},
		{"65 bytes of feature", `{"feature":"` + strings.Repeat("a", 65) + `","action":"sent"}`, []string{"feature"}},
		{"feature in Greek", `{"feature":"κώδικας","action":"sent"}`, []string{"feature"}},
		{"unknown field", with(`"privatMetadata":{"a":"b"}`), []string{"privatMetadata", "privateMetadata"}},
		{"wrong case", with(`"UserID":1`), []string{"UserID"}},
		{"feature in capitals", `{"Feature":"cody.chat","action":"sent"}`, []string{"Feature"}},
		{"unknown field of user", with(`"user":{"email":"x"}`), []string{"user.email"}},
		{"wrong case in user", with(`"user":{"userID":1}`), []string{"user.userID", "userId"}},
		{"unknown field of client", with(`"client":{"os":"linux"}`), []string{"client.os"}},
		{"unknown field of interaction", with(`"interaction":{"geolocation":"x"}`), []string{"interaction.geolocation"}},
		{"unknown field of billing", with(`"billingMetadata":{"sku":"x"}`), []string{"billingMetadata.sku"}},
		{"unknown field of marketing", with(`"marketingTracking":{"utm":"x"}`), []string{"marketingTracking.utm"}},
		{"duplicate key", with(`"action":"sent"`), []string{"action", "duplicate"}},
		{"duplicate key, escaped", with(`"\u0061ction":"sent"`), []string{"action", "duplicate"}},
		{"duplicate null", with(`"user":null,"user":null`), []string{"user", "duplicate"}},
		{"duplicate in metadata", with(`"metadata":{"a":1,"a":1}`), []string{"metadata", "duplicate"}},
		{"duplicate in privateMetadata", with(`"privateMetadata":{"x":[{"k":1,"k":2}]}`), []string{"privateMetadata", "duplicate"}},
		{"duplicate in user", with(`"user":{"userId":1,"userId":1}`), []string{"user.userId", "duplicate"}},
		{"duplicate in flags", with(`"featureFlags":{"f":"on","f":"on"}`), []string{"featureFlags", "duplicate"}},
		{"feature as number", `{"feature":1,"action":"sent"}`, []string{"feature", "string"}},
		{"metadata as array", with(`"metadata":[]`), []string{"metadata", "object"}},
		{"metadata with string", with(`"metadata":{"n":"1"}`), []string{"metadata.n", "number"}},
		{"metadata with boolean", with(`"metadata":{"n":true}`), []string{"metadata.n", "number"}},
		{"metadata with null", with(`"metadata":{"n":null}`), []string{"metadata.n", "number"}},
		{"metadata too large", with(`"metadata":{"n":1e400}`), []string{"metadata.n"}},
		{"metadata too small", with(`"metadata":{"n":-1e400}`), []string{"metadata.n"}},
		{"privateMetadata as string", with(`"privateMetadata":"x"`), []string{"privateMetadata", "object"}},
		{"privateMetadata as array", with(`"privateMetadata":[1]`), []string{"privateMetadata", "object"}},
		{"privateMetadata too large", with(`"privateMetadata":{"n":[1e999]}`), []string{"privateMetadata"}},
		{"version negative", with(`"metadataVersion":-1`), []string{"metadataVersion"}},
		{"version over int32", with(`"metadataVersion":2147483648`), []string{"metadataVersion"}},
		{"version with fraction", with(`"metadataVersion":1.0`), []string{"metadataVersion", "integer"}},
		{"version as string", with(`"metadataVersion":"1"`), []string{"metadataVersion", "integer"}},
		{"user as string", with(`"user":"me"`), []string{"user", "object"}},
		{"userId with fraction", with(`"user":{"userId":1.0}`), []string{"user.userId", "integer"}},
		{"userId with exponent", with(`"user":{"userId":1e3}`), []string{"user.userId", "integer"}},
		{"userId over int64", with(`"user":{"userId":9223372036854775808}`), []string{"user.userId"}},
		{"userId under int64", with(`"user":{"userId":-9223372036854775809}`), []string{"user.userId"}},
		{"userId as string", with(`"user":{"userId":"1"}`), []string{"user.userId", "integer"}},
		{"samsExternalId as number", with(`"user":{"samsExternalId":1}`), []string{"user.samsExternalId", "string"}},
		{"client name as null object", with(`"client":{"name":{}}`), []string{"client.name", "string"}},
		{"flags with boolean", with(`"featureFlags":{"f":true}`), []string{"featureFlags.f", "string"}},
		{"flags with null", with(`"featureFlags":{"f":null}`), []string{"featureFlags.f", "string"}},
		{"countryCode as number", with(`"interaction":{"countryCode":49}`), []string{"interaction.countryCode", "string"}},
		{"timestamp as number", with(`"timestamp":1795169606`), []string{"timestamp", "string"}},
		{"timestamp empty", with(`"timestamp":""`), []string{"timestamp"}},
		{"timestamp in year 0000", with(`"timestamp":"0000-01-01T00:00:00Z"`), []string{"timestamp"}},
		{"timestamp in year 10000", with(`"timestamp":"10000-01-01T00:00:00Z"`), []string{"timestamp"}},
		{"timestamp in year 10000 by its offset", with(`"timestamp":"9999-12-31T23:59:59-01:00"`), []string{"timestamp"}},
		{"timestamp with 10 digits", with(`"timestamp":"2026-11-20T10:00:00.1234567890Z"`), []string{"timestamp"}},
		{"timestamp without zone", with(`"timestamp":"2026-11-20T10:00:00"`), []string{"timestamp"}},
		{"timestamp with space", with(`"timestamp":"2026-11-20 10:00:00Z"`), []string{"timestamp"}},
		{"timestamp of 30 February", with(`"timestamp":"2026-02-30T10:00:00Z"`), []string{"timestamp"}},
	} {
		add("invalid_event", bad.name, message(bad.data), bad.says...)
	}
	for _, bad := range []struct{ name, id string }{
		{"empty", ""},
		{"without hyphens", "019a000000007000800000000000abcd"},
		{"in braces", "{" + givenID + "}"},
		{"as URN", "urn:uuid:" + givenID},
		{"too short", givenID[1:]},
		{"no hex", "019a0000-0000-7000-8000-00000000wxyz"},
		{"words", "my-event"},
	} {
		add("invalid_event", "id "+bad.name, message(with(fmt.Sprintf(`"id":%q`, bad.id))), "id: ").noID = true
	}
	add("invalid_event", "id as number", message(with(`"id":1`)), "id", "string").noID = true
	add("invalid_event", "id twice", message(with(`"id":"`+givenID+`","id":"`+givenID+`"`)), "id", "duplicate").noID = true
	add("invalid_event", "known id", message(with(`"id":"`+givenID+`","extra":1`)), "extra").eventID = givenID

	add("policy_violation", "environment", named(`{"feature":"strict.a","action":"sent"}`, "service_id", "strict", "service_environment", "staging"), "environment", "staging")
	add("policy_violation", "feature", named(`{"feature":"loose.a","action":"sent"}`, "service_id", "strict"), "feature", "strict.*")
	add("policy_violation", "private metadata", named(`{"feature":"strict.a","action":"sent","id":"`+givenID+`","privateMetadata":{"k":1}}`, "service_id", "strict"), "privateMetadata").eventID = givenID

	add("oversized", "as it is", message(with(`"id":"`+givenID+`","privateMetadata":{"text":"`+strings.Repeat("a", 9_900_000)+`"}`)), "9900000").eventID = givenID
	add("oversized", "as JSON", message(with(`"privateMetadata":{"text":"`+strings.Repeat("<", 2_000_000)+`"}`)), "9900000")
	add("oversized", "many numbers", message(with(`"privateMetadata":{"n":[`+strings.TrimSuffix(strings.Repeat("1e20,", 500_000), ",")+`]}`)))

	// These contents cannot be in a dead-lettered message without encoding.
	add("malformed_payload", "nearly 10 MB", message("["+strings.Repeat(" ", 9_999_900)+"]")).encoding = "gzip"
	own := add("invalid_event", "publisher's own dlq attribute", message(with(`"own":1`), "dlq_reason", "mine", "dlq_custom", "x"), "own")
	own.encoding = "envelope+gzip"
	own = add("invalid_event", "publisher's own replay_count", message(with(`"own":2`), "replay_count", "none", "origin_message_id", "1"), "own")
	own.encoding = "envelope+gzip"
	own = add("malformed_payload", "no JSON in an envelope", message("\xff\x00binary", "origin_thing", "x"))
	own.encoding = "envelope+gzip"
	var many []string
	for i := range 97 {
		many = append(many, fmt.Sprintf("key%d", i), "value")
	}
	add("invalid_event", "many attributes", message(with(`"own":3`), many...), "own").encoding = "envelope+gzip"
	ordered := message(with(`"own":4`))
	ordered.OrderingKey = "customer-1"
	add("invalid_event", "ordering key", ordered, "own")
	ordered = message(with(`"own":5`), "dlq_reason", "mine")
	ordered.OrderingKey = "customer-2"
	add("invalid_event", "ordering key in an envelope", ordered, "own").encoding = "envelope+gzip"
	replayed := add("invalid_event", "replayed", message(with(`"own":6`),
		"replay_count", "2", "origin_message_id", "4711", "origin_publish_time", "2026-11-20T10:00:00.5Z"), "own")
	replayed.replays = "2"
	replayed.eventID = derivedID("4711", origin)
	return all
}
