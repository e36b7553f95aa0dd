package event

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/race"
)

func TestAttributesIdentifyPublisher(t *testing.T) {
	d := NewDecoder(testServices(t), "default-env")
	for _, test := range []struct {
		name       string
		attributes map[string]string
		data       string
		reason     Reason
		detail     string
	}{
		{"schema wins over service and syntax", map[string]string{"schema_version": "2"}, `{`, UnsupportedSchema,
			`attribute schema_version: expected "1" or none, got "2"`},
		{"empty schema", map[string]string{"schema_version": "", "service_id": "allow"}, `{}`, UnsupportedSchema,
			`attribute schema_version: expected "1" or none, got ""`},
		{"no service wins over syntax", nil, `{`, UnknownService,
			`attribute service_id: missing; expected the MSP service id of the publisher`},
		{"malformed service", map[string]string{"service_id": "Über"}, `{}`, UnknownService,
			`attribute service_id: expected an MSP service id of the form ^[a-z0-9-]+$, got a string of 5 bytes`},
		{"empty service", map[string]string{"service_id": ""}, `{}`, UnknownService,
			`attribute service_id: expected an MSP service id of the form ^[a-z0-9-]+$, got ""`},
		{"unknown service", map[string]string{"service_id": "nobody", "schema_version": "1"}, `{}`, UnknownService,
			`attribute service_id: "nobody" is not listed in services.yaml`},
		{"environment", map[string]string{"service_id": "narrow"}, `{"feature":"cody.chat","action":"cd"}`, PolicyViolation,
			`service "narrow" may not publish for environment "default-env"; services.yaml allows "dev", "prod"`},
		{"feature", map[string]string{"service_id": "narrow", "service_environment": "dev"}, `{"feature":"sams.x","action":"cd"}`, PolicyViolation,
			`feature: service "narrow" may not publish "sams.x"; services.yaml allows "cody.*", "sams"`},
		{"environment is told before feature", map[string]string{"service_id": "narrow", "service_environment": "x"}, `{"feature":"ab","action":"cd"}`, PolicyViolation,
			`service "narrow" may not publish for environment "x"; services.yaml allows "dev", "prod"`},
		{"private", map[string]string{"service_id": "reject"}, `{"feature":"ab","action":"cd","privateMetadata":{"k":null}}`, PolicyViolation,
			`privateMetadata: services.yaml does not allow service "reject" any; expected none or an empty object`},
		{"invalid wins over policy", map[string]string{"service_id": "reject"}, `{"feature":"ab","action":"cd","privateMetadata":{"k":1e999}}`, InvalidEvent,
			`privateMetadata: expected a number within the range of a 64-bit float at byte offset 53 (the first is 0)`},
		{"invalid although dropped", map[string]string{"service_id": "drop"}, `{"feature":"ab","action":"cd","privateMetadata":{"k":1,"k":1}}`, InvalidEvent,
			`privateMetadata: duplicate key at byte offset 55 (the first is 0); expected it once`},
		{"empty private", map[string]string{"service_id": "reject"}, `{"feature":"ab","action":"cd","privateMetadata":{}}`, "", ``},
		{"null private", map[string]string{"service_id": "reject"}, `{"feature":"ab","action":"cd","privateMetadata":null}`, "", ``},
		{"dropped", map[string]string{"service_id": "drop"}, `{"feature":"ab","action":"cd","metadata":{"a":1},"privateMetadata":{"k":[1]},"metadataVersion":1}`, "", ``},
		{"listed", map[string]string{"service_id": "narrow", "service_environment": "prod", "whatever": "x"}, `{"feature":"sams","action":"cd"}`, "", ``},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := testMessage(test.data)
			m.Attributes = test.attributes
			_, rejection := d.Decode(m)
			var got Rejection
			if rejection != nil {
				got = *rejection
			}
			if got.Reason != test.reason || got.Detail != test.detail {
				t.Errorf("got %+v, want %s: %s", got, test.reason, test.detail)
			}
			compare(t, m)
		})
	}
}

func TestUnknownServicesAllowed(t *testing.T) {
	services, err := policy.NewSet(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	m := testMessage(typicalEvent)
	m.Attributes = map[string]string{"service_id": "anybody"}
	event, rejection := NewDecoder(services, "dev").Decode(m)
	if rejection != nil || event.Publisher != (Publisher{"anybody", "dev"}) {
		t.Errorf("%+v, %v", event.Publisher, rejection)
	}
	m.Attributes["service_id"] = "Anybody"
	if _, rejection := NewDecoder(services, "dev").Decode(m); rejection == nil || rejection.Reason != UnknownService {
		t.Errorf("malformed service: %v", rejection)
	}
}

// TestReplayKeepsID decodes the same event in a message and in its replays.
func TestReplayKeepsID(t *testing.T) {
	d := NewDecoder(testServices(t), "")
	const data = `{"feature":"ab","action":"cd"}`
	original, rejection := d.Decode(testMessage(data))
	if rejection != nil || string(original.ID()) != derivedID {
		t.Fatalf("%s, %v", original.ID(), rejection)
	}
	for _, test := range []struct {
		name, count, id, published string
		same                       bool
	}{
		{"replay", "1", "11122233344455", "2026-11-20T09:00:43.200999Z", true},
		{"another offset", "12", "11122233344455", "2026-11-20T10:00:43.200999+01:00", true},
		{"no count", "", "11122233344455", "2026-11-20T09:00:43.200999Z", false},
		{"bad count", "01", "11122233344455", "2026-11-20T09:00:43.200999Z", false},
		{"no id", "1", "", "2026-11-20T09:00:43.200999Z", false},
		{"no time", "1", "11122233344455", "", false},
		{"bad time", "1", "11122233344455", "2026-11-20 09:00:43Z", false},
	} {
		m := testMessage(data)
		m.ID, m.PublishTime = "99", m.PublishTime.Add(time.Hour)
		own, _ := d.Decode(m)
		m.Attributes = map[string]string{
			"service_id": "allow", "replay_count": test.count, "origin_message_id": test.id, "origin_publish_time": test.published,
		}
		event, rejection := d.Decode(m)
		want := own
		if test.same {
			want = original
		}
		if rejection != nil || string(event.ID()) != string(want.ID()) || string(event.Wire) != string(want.Wire) {
			t.Errorf("%s: id %s, want %s; %v", test.name, event.ID(), want.ID(), rejection)
		}
		compare(t, m)
	}
}

func TestPublishTimeOutOfRange(t *testing.T) {
	d := NewDecoder(testServices(t), "")
	m := testMessage(`{"feature":"ab","action":"cd"}`)
	m.PublishTime = time.Time{}
	if _, rejection := d.Decode(m); rejection != nil {
		t.Errorf("zero time: %v", rejection)
	}
	m.PublishTime = time.Time{}.Add(-1)
	if _, rejection := d.Decode(m); rejection == nil || rejection.Reason != InvalidEvent {
		t.Errorf("before year 1: %v", rejection)
	}
}

// TestPrivateStaysPrivate puts a secret wherever a publisher could, by mistake or on
// purpose, and looks for it in the details.
func TestPrivateStaysPrivate(t *testing.T) {
	const secret = "sEcReT"
	var inside []string // values of privateMetadata
	for _, value := range []string{
		`"sEcReT"`, `{"sEcReT":1}`, `["sEcReT"]`, `{"a":"sEcReT","a":"sEcReT"}`, `{"sEcReT":1,"sEcReT":2}`, `{"sEcReT":1,"sE\u0063ReT":2}`,
		`{"a":{"sEcReT":1e999}}`, `{"sEcReT":sEcReT}`, `{"sEcReT":"\xsEcReT"}`, `{"sEcReT":"sEcReT` + "\xff" + `"}`, `{"sEcReT" "sEcReT"}`,
		`{"sEcReT":"sEcReT`, `sEcReT`, `{"sEcReT":` + nest(`{"sEcReT":`, "1", "}", 120) + `}`, `{"sEcReT":"\ud800sEcReT"}`,
	} {
		inside = append(inside, `"privateMetadata":`+value)
	}
	const value = `"sEcReT"`
	for _, field := range topNames {
		switch field {
		case "feature", "action", "id", "timestamp", "privateMetadata":
		default:
			inside = append(inside, fmt.Sprintf("%q:%s", field, value), fmt.Sprintf("%q:[%s]", field, value), fmt.Sprintf("%q:[sEcReT]", field))
		}
	}
	for _, sh := range []*shape{userShape, clientShape, interactionShape, billingShape, marketingShape} {
		for _, f := range sh.fields {
			wrong := `{"x":` + value + `}`
			if f.integer {
				wrong = value
			}
			inside = append(inside, fmt.Sprintf("%q:{%q:%s}", sh.name, f.name, wrong), fmt.Sprintf("%q:{%q:[%s]}", sh.name, f.name, value))
		}
		inside = append(inside, fmt.Sprintf(`%q:{"unknown":%s}`, sh.name, value))
	}
	inside = append(inside,
		`"metadata":{"a":"sEcReT"}`, `"metadata":{"a":{"sEcReT":"sEcReT"}}`, `"featureFlags":{"a":["sEcReT"]}`,
		`"unknown":"sEcReT"`, `"PrivateMetadata":{"sEcReT":"sEcReT"}`, `"feature":["sEcReT"]`, `"id":{"sEcReT":1}`, `"timestamp":["sEcReT"]`)

	d := NewDecoder(testServices(t), "dev")
	for _, service := range []string{"allow", "drop", "reject", "narrow", "list-drop", "list-reject", "list-events", "list-all"} {
		for _, fields := range inside {
			for _, data := range []string{"{" + fields + "}", with(fields), `{` + fields + `,` + base + `}`, `{` + fields + `,` + fields + `,` + base + `}`} {
				m := testMessage(data)
				m.Attributes["service_id"] = service
				_, rejection := d.Decode(m)
				if rejection != nil && strings.Contains(strings.ToLower(rejection.Detail), strings.ToLower(secret)) {
					t.Errorf("%.300s: %s", data, rejection.Detail)
				}
			}
		}
	}
}

// TestDetailsAreShort uses the longest names and values.
func TestDetailsAreShort(t *testing.T) {
	long := strings.Repeat("\U0001F600", 2_000)
	services, err := policy.NewSet([]*policy.Service{{
		ID: strings.Repeat("s", 500), Environments: []string{long, long, long, long, long, long, long, long, long, long},
	}}, false)
	if err != nil {
		t.Fatal(err)
	}
	d := NewDecoder(services, long+"x")
	for _, data := range []string{
		`{"feature":"ab","action":"cd"}`, `{"feature":"` + long + `"}`, `{"` + long + `":1}`, `{"metadata":{"` + long + `":""}}`,
		`{"user":{"` + long + `":1}}`, `{"timestamp":"` + long + `"}`, `{"id":"` + long + `"}`, `{"featureFlags":{"` + long + `":"","` + long + `":""}}`,
	} {
		m := testMessage(data)
		m.Attributes["service_id"] = strings.Repeat("s", 500)
		_, rejection := d.Decode(m)
		if rejection == nil || len(rejection.Detail) > MaxDetail || len(rejection.Detail) < 20 {
			t.Errorf("%.100s: %+v", data, rejection)
		}
	}
	m := testMessage(`{}`)
	m.Attributes = map[string]string{"schema_version": long, "service_id": long}
	if _, rejection := d.Decode(m); rejection == nil || len(rejection.Detail) > MaxDetail {
		t.Errorf("%+v", rejection)
	}
}

// TestDuplicatesAmongMany covers both ways of finding a duplicate.
func TestDuplicatesAmongMany(t *testing.T) {
	d := NewDecoder(testServices(t), "")
	for _, n := range []int{2, fewKeys - 1, fewKeys, fewKeys + 1, fewKeys + 2, 100, 1000} {
		for _, object := range []string{"metadata", "privateMetadata"} {
			for twice := -1; twice < min(n, 20); twice++ {
				var b strings.Builder
				fmt.Fprintf(&b, `{%s,%q:{`, base, object)
				for i := range n {
					if i == n-1 && twice >= 0 && twice < n-1 {
						i = twice
					}
					key := fmt.Sprintf("key%d", i)
					if i%3 == 1 {
						key = fmt.Sprintf(`k\u0065y%d`, i)
					}
					fmt.Fprintf(&b, `"%s":%d,`, key, i)
				}
				data := strings.TrimSuffix(b.String(), ",") + "}}"
				_, rejection := d.Decode(testMessage(data))
				if want := twice >= 0 && twice < n-1; (rejection != nil) != want {
					t.Fatalf("%s of %d keys, key %d twice: %v", object, n, twice, rejection)
				}
			}
		}
	}
}

// TestHostileDocumentsTakeLinearTime has documents near Pub/Sub's limit of 10 MB for which
// any quadratic step would be slow.
func TestHostileDocumentsTakeLinearTime(t *testing.T) {
	if race.Enabled {
		t.Skip("slow with the race detector, and nothing in it is concurrent")
	}
	const size = 10_000_000
	var keys strings.Builder
	for i := 0; keys.Len() < size; i++ {
		fmt.Fprintf(&keys, `"%x":1,`, i)
	}
	manyKeys := strings.TrimSuffix(keys.String(), ",")
	for _, test := range []struct {
		name, data string
		reason     Reason
	}{
		{"deep", `{"x":` + strings.Repeat("[", size), MalformedPayload},
		{"deep objects", strings.Repeat(`{"x":`, size/5), MalformedPayload},
		{"many keys", with(`"privateMetadata":{` + manyKeys + `}`), Oversized},
		{"many metadata", with(`"metadata":{` + manyKeys + `}`), Oversized},
		{"many small numbers", with(`"privateMetadata":{"a":[` + strings.Repeat("1,", 1_000_000) + `1]}`), ""},
		{"many flags", with(`"featureFlags":{` + strings.ReplaceAll(manyKeys, ":1", `:""`) + `}`), Oversized},
		{"many unknown", `{` + manyKeys + `}`, InvalidEvent},
		{"many numbers", with(`"privateMetadata":{"a":[` + strings.Repeat("1,", size/2) + `1]}`), Oversized},
		{"long number", with(`"metadata":{"a":` + strings.Repeat("1", size) + `}`), InvalidEvent},
		{"long fraction", with(`"metadata":{"a":0.` + strings.Repeat("1", size) + `}`), ""},
		{"long value at the deepest level", with(`"privateMetadata":` + nest(`{"a":`, `"`+strings.Repeat("x", 4_000_000)+`"`, "}", 99)), ""},
		{"long value in arrays", with(`"privateMetadata":{"a":` + nest(`[`, `"`+strings.Repeat("x", 4_000_000)+`"`, "]", 98) + `}`), ""},
		{"long escapes", with(`"privateMetadata":{"a":"` + strings.Repeat(`\u0061`, size/6) + `"}`), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := NewDecoder(testServices(t), "")
			m := testMessage(test.data)
			start := time.Now()
			_, rejection := d.Decode(m)
			took := time.Since(start)
			t.Logf("%d bytes in %v", len(test.data), took)
			var reason Reason
			if rejection != nil {
				reason = rejection.Reason
			}
			if reason != test.reason {
				t.Errorf("%v, want %q", rejection, test.reason)
			}
			// Generous for a busy machine: a quadratic step would take hours.
			if took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestOversizedLimitIsExact finds the exact limits.
func TestOversizedLimitIsExact(t *testing.T) {
	if race.Enabled {
		t.Skip("slow with the race detector, and nothing in it is concurrent")
	}
	d := NewDecoder(testServices(t), "dev")
	decode := func(before, filler, after string, n int) (Event, *Rejection) {
		return d.Decode(testMessage(with(before + strings.Repeat(filler, n) + after)))
	}
	// An event of that size is accepted: one byte of JSON for one on the wire.
	t.Run("plain", func(t *testing.T) {
		const before, after = `"user":{"anonymousUserId":"`, `"}`
		event, _ := decode(before, "a", after, 9_000_000)
		n := 9_000_000 + maxJSON - 1 - jsonSize(event.Wire, event.Publisher)
		if event, rejection := decode(before, "a", after, n); rejection != nil {
			t.Fatalf("%d bytes: %v", len(event.Wire), rejection)
		}
		_, rejection := decode(before, "a", after, n+1)
		want := "the event is too large: expected less than 9900000 bytes when the gateway renders it as JSON with its metadata, got 9900000"
		if rejection == nil || *rejection != (Rejection{Oversized, want, testID}) {
			t.Fatal(rejection)
		}
	})
	// Six bytes of JSON for one on the wire.
	for _, test := range []struct{ name, filler string }{
		{"less than", "<"}, {"greater than", ">"}, {"ampersand", "&"}, {"control", `\u0001`},
	} {
		t.Run(test.name, func(t *testing.T) {
			const before, after = `"privateMetadata":{"k":"`, `"}`
			event, _ := decode(before, test.filler, after, 1_640_000)
			n := 1_640_000 + (maxJSON-jsonSize(event.Wire, event.Publisher)-1)/6
			if _, rejection := decode(before, test.filler, after, n); rejection != nil {
				t.Errorf("%d: %v", n, rejection)
			}
			_, rejection := decode(before, test.filler, after, n+1)
			if rejection == nil || rejection.Reason != Oversized || rejection.EventID != testID || !strings.Contains(rejection.Detail, "JSON") {
				t.Errorf("%d: %v", n+1, rejection)
			}
		})
	}
}

// TestJSONSize compares with encoding/json on protojson's output, as in the gateway.
func TestJSONSize(t *testing.T) {
	d := NewDecoder(testServices(t), "<dev>")
	var runes strings.Builder
	for r := range rune(0x3000) {
		fmt.Fprintf(&runes, `\u%04x`, r)
	}
	private := func(value string) string { return with(`"privateMetadata":{"a":` + value + `}`) }
	all := []string{
		typicalEvent, privateEvent, with(`"privateMetadata":{"<\u2028":"\u2029&>é\u0001\"\\"}`), private(`"` + runes.String() + `"`),
		private(`"\u2027\u202a\u00e2\u0080\u00a8"`), private(`{}`), private(`[]`), private(`[{},[],"",null,true,false]`), private(`[[[[{"":{"":[]}}]]]]`),
		with(`"metadata":{}`), with(`"metadata":{"<":1}`), with(`"metadata":{"a":1,"b":2,"c":-0.0}`), with(`"featureFlags":{}`), with(`"featureFlags":{"a":"","<":">"}`),
		with(`"user":{"userId":-9223372036854775808}`), with(`"metadataVersion":-0`), with(`"metadataVersion":2147483647`), with(`"interaction":{"countryCode":""}`), with(`"interaction":{"countryCode":"DE"}`),
		strings.Repeat(" ", 100) + with(`"client":{"version":""}`),
	}
	for _, nanos := range []string{"", ".1", ".12", ".123", ".1234", ".123456", ".1234567", ".123456789", ".000000001", ".100000001", ".000"} {
		all = append(all, `{"feature":"ab","action":"cd","timestamp":"2026-11-20T10:13:26`+nanos+`Z"}`)
	}
	for _, number := range []string{
		"0", "-0", "1", "-1", "0.5", "1e20", "1e21", "-1e21", "1e-5", "1e-6", "9.9e-7", "1e-7", "1e-9", "1e-10", "1e-100", "5e-324", "1.7976931348623157e308",
		"9007199254740991", "9007199254740992", "9007199254740993", "123456789012345680000", "0.1", "3.141592653589793", "1e-400",
	} {
		all = append(all, private(number), private("["+number+",-"+strings.TrimPrefix(number, "-")+"]"), with(`"metadata":{"a":`+number+`}`))
	}
	for _, data := range all {
		event, rejection := d.Decode(testMessage(data))
		if rejection != nil {
			t.Errorf("%.100s: %v", data, rejection)
			continue
		}
		want, err := refJSONSize(event.Wire, event.Publisher)
		if got := jsonSize(event.Wire, event.Publisher); err != nil || got != want {
			t.Errorf("%.100s: %d bytes, want %d, %v", data, got, want, err)
		}
	}
}

// TestJSONBound compares the bound with the size for values that grow most.
func TestJSONBound(t *testing.T) {
	d := NewDecoder(testServices(t), "dev")
	many := func(s string) string { return strings.TrimSuffix(strings.Repeat(s, 1000), ",") }
	var entries strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&entries, `,"%x":-1.7976931348623157e308`, i)
	}
	numbers := entries.String()[1:]
	for _, fields := range []string{
		`"metadataVersion":2147483647`, `"user":{"userId":1}`, `"user":{"userId":-9223372036854775808,"samsExternalId":"","anonymousUserId":""}`,
		`"metadata":{` + numbers + `}`, `"privateMetadata":{` + numbers + `}`,
		`"featureFlags":{` + strings.ReplaceAll(numbers, "-1.7976931348623157e308", `"\u0000"`) + `}`,
		`"privateMetadata":{"a":[` + many(`null,`) + `]}`, `"privateMetadata":{"a":[` + many(`false,`) + `]}`,
		`"privateMetadata":{"a":[` + many(`{},`) + `]}`, `"privateMetadata":{"a":[` + many(`[],`) + `]}`,
		`"privateMetadata":{"a":[` + many(`"",`) + `]}`, `"privateMetadata":{"a":[` + many(`"\u0000<\u2028\"",`) + `]}`,
		`"privateMetadata":{"a":[` + many(`-1.7976931348623157e308,`) + `]}`, `"privateMetadata":{"a":[` + many(`{"":{"":""}},`) + `]}`,
		`"metadata":{},"metadataVersion":2147483647,"privateMetadata":{},"billingMetadata":{"product":"\u0000","category":"\u0000"},"user":{"userId":1,"samsExternalId":"","anonymousUserId":""},"client":{"name":"\u0000","version":""},"interaction":{"traceId":"","interactionId":"","countryCode":""},"featureFlags":{},"marketingTracking":{"url":"","firstSourceUrl":"","cohortId":"","referrer":"","lastSourceUrl":"","deviceSessionId":"","sessionReferrer":"","sessionFirstUrl":""}`,
	} {
		event, rejection := d.Decode(testMessage(with(fields)))
		if rejection != nil {
			t.Errorf("%.100s: %v", fields, rejection)
			continue
		}
		size, bound := jsonSize(event.Wire, event.Publisher), jsonBound(event.Wire, event.Publisher)
		if size > bound {
			t.Errorf("%.100s: %d bytes of JSON, bound %d", fields, size, bound)
		}
		// The parts that do not grow must stay well below maxFixed.
		if fixed := size - maxGrowth*len(event.Wire); fixed > maxFixed/2 {
			t.Errorf("%.100s: %d bytes more than six times the wire", fields, fixed)
		}
	}
}

// TestAttributeKeys has keys of metadata that become attributes at the gateway.
func TestAttributeKeys(t *testing.T) {
	d := NewDecoder(testServices(t), "dev")
	long := func(n int) string { return attributePrefix + strings.Repeat("k", n-len(attributePrefix)) }
	many := func(n int, value string) string {
		var entries []string
		for i := range n {
			entries = append(entries, fmt.Sprintf("%q:%s", fmt.Sprintf("%sOf%d", attributePrefix, i), value))
		}
		return strings.Join(entries, ",")
	}
	tooLong := func(n int) string {
		return fmt.Sprintf("metadata[a key that begins with recordsPrivateMetadata]: expected a key of at most 250 bytes, got %d: the gateway makes an attribute of it", n)
	}
	const tooMany = "metadata: expected at most 96 keys that begin with recordsPrivateMetadata and have a value above 0, got 97: the gateway makes attributes of them"
	for _, test := range []struct{ name, metadata, detail string }{
		{"longest", fmt.Sprintf("%q:1", long(250)), ""},
		{"too long", fmt.Sprintf("%q:1", long(251)), tooLong(251)},
		{"too long in bytes", fmt.Sprintf("%q:0.5", attributePrefix+strings.Repeat("é", 115)), tooLong(252)},
		{"long, of no value", fmt.Sprintf("%q:0", long(251)), ""},
		{"long, of a value that is as good as none", fmt.Sprintf("%q:1e-400", long(251)), ""},
		{"long, below 0", fmt.Sprintf("%q:-1", long(251)), ""},
		{"long, of another name", fmt.Sprintf("%q:1", "r"+strings.Repeat("e", 300)), ""},
		{"most", many(96, "1"), ""},
		{"too many", many(97, "1"), tooMany},
		{"many of no value", many(200, "0"), ""},
		{"many and one that is too short", many(96, "1") + `,"recordsPrivateMetadataX":1,"recordsPrivateMetadata":1`, ""},
		{"a fault of another kind wins", `"x":"secret",` + many(97, "1"), "metadata.x: expected a number, got a string"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := testMessage(with(`"metadata":{` + test.metadata + `}`))
			_, rejection := d.Decode(m)
			var got Rejection
			if rejection != nil {
				got = *rejection
			}
			if got.Detail != test.detail || (test.detail != "" && got.Reason != InvalidEvent) {
				t.Errorf("got %+v, want %s", got, test.detail)
			}
			compare(t, m)
		})
	}
}
