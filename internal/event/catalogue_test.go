package event

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/race"
	gateway "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

var offsets = regexp.MustCompile(`offset \d+ \(`)

// TestCatalogueDecidesWhateverTheOrder: the decoder judges an event by the catalogue of
// its service, with feature and action before or after the other fields.
func TestCatalogueDecidesWhateverTheOrder(t *testing.T) {
	const names = `"feature":"ab","action":"cd"`
	d := NewDecoder(testServices(t), "dev")
	for _, c := range []struct {
		name, service, fields string // the fields stand before and behind the names
		private               string // of the event, as JSON
		detail                string // without byte offsets
	}{
		{"drop: all listed", "list-drop", `"privateMetadata":{"a":1,"k":[{"secret":1}]}`, `{"a":1,"k":[{"secret":1}]}`, ""},
		{"drop: some listed", "list-drop", `"privateMetadata":{"secret":{"a":1},"a":"x","other":[1,2]}`, `{"a":"x"}`, ""},
		{"drop: none listed", "list-drop", `"privateMetadata":{"secret":1}`, `null`, ""},
		{"drop: empty", "list-drop", `"privateMetadata":{}`, `null`, ""},
		{"drop: null", "list-drop", `"privateMetadata":null`, `null`, ""},
		{"drop: none", "list-drop", `"metadata":{"any":1}`, `null`, ""},
		{"drop: a listed field is null", "list-drop", `"privateMetadata":{"a":null,"b":null}`, `{"a":null}`, ""},
		{"drop: escaped keys", "list-drop", `"privateMetadata":{"\u0061":1,"\u00fc":2,"\u0062":3}`, `{"a":1,"ü":2}`, ""},
		{"drop: an unlisted key with the value of a listed one", "list-drop", `"privateMetadata":{"b":"a","a":"b"}`, `{"a":"b"}`, ""},
		{"drop: metadata is not checked", "list-drop", `"metadata":{"teir":1}`, `null`, ""},
		{"drop: what is dropped must be valid", "list-drop", `"privateMetadata":{"secret":1,"secret":2}`, "", `privateMetadata: duplicate key at byte offset N (the first is 0); expected it once`},
		{"reject: all listed", "list-reject", `"privateMetadata":{"a":1,"x":{"secret":true}}`, `{"a":1,"x":{"secret":true}}`, ""},
		{"reject: one not listed", "list-reject", `"privateMetadata":{"a":1,"secret":2}`, "", `privateMetadata: the field at byte offset N (the first is 0) is not listed; the catalogue allows "a", "k", "x", "\u00fc"`},
		{"reject: null counts", "list-reject", `"privateMetadata":{"secret":null}`, "", `privateMetadata: the field at byte offset N (the first is 0) is not listed; the catalogue allows "a", "k", "x", "\u00fc"`},
		{"reject: empty", "list-reject", `"privateMetadata":{}`, `null`, ""},
		{"reject: metadata is not checked", "list-reject", `"metadata":{"teir":1}`, `null`, ""},
		{"events: private metadata is not checked", "list-events", `"metadata":{"tier":1},"privateMetadata":{"secret":1}`, `{"secret":1}`, ""},
		{"events: a key", "list-events", `"metadata":{"tier":1,"teir":1}`, "", `metadata.teir: the catalogue allows "a", "tier"`},
		{"events: an escaped key", "list-events", `"metadata":{"ti\u0065r":1}`, `null`, ""},
		{"events: a key that may be personal", "list-events", `"metadata":{"a@b.c":1}`, "", `metadata[a key of 5 bytes]: the catalogue allows "a", "tier"`},
		{"events: the recorder's own key", "list-events", `"metadata":{"telemetry.error":1}`, `null`, ""},
		{"all: a key before a private field", "list-all", `"privateMetadata":{"secret":1},"metadata":{"teir":1}`, "", `metadata.teir: the catalogue allows "a", "tier"`},
		{"all: as listed", "list-all", `"privateMetadata":{"a":1},"metadata":{"tier":1}`, `{"a":1}`, ""},
		{"invalid wins over policy", "list-all", `"privateMetadata":{"secret":1},"metadata":{"tier":"1"}`, "", `metadata.tier: expected a number, got a string`},
	} {
		for _, data := range []string{"{" + names + "," + c.fields + "}", "{" + c.fields + "," + names + "}"} {
			check(t, d, c.name, c.service, data, c.private, c.detail)
		}
	}
	for _, c := range []struct{ name, service, data, private, detail string }{
		{"drop: another event", "list-drop", `{"feature":"ab","action":"ef","privateMetadata":{"a":1}}`, `null`, ""},
		{"reject: another event", "list-reject", `{"feature":"cd","action":"ab","privateMetadata":{"a":1}}`, "", `privateMetadata: the field at byte offset N (the first is 0) is not listed; the catalogue allows none`},
		{"reject: another event without private metadata", "list-reject", `{"feature":"cd","action":"ab","metadata":{"b":1}}`, `null`, ""},
		{"events: another event", "list-events", `{"feature":"ab","action":"dc"}`, "", `action: the catalogue does not list "dc" of "ab"`},
		{"events: no keys listed", "list-events", `{"feature":"cody.chat","action":"executed","metadata":{"a":1}}`, "", `metadata.a: the catalogue allows none`},
		{"events: nothing", "list-events", `{"feature":"cody.chat","action":"executed"}`, `null`, ""},
	} {
		check(t, d, c.name, c.service, c.data, c.private, c.detail)
	}
}

func check(t *testing.T, d *Decoder, name, service, data, private, detail string) {
	t.Helper()
	m := testMessage(data)
	m.Attributes = map[string]string{"service_id": service}
	compare(t, m)
	event, rejection := d.Decode(m)
	if detail != "" {
		got := ""
		if rejection != nil {
			got = offsets.ReplaceAllString(rejection.Detail, "offset N (")
		}
		if got != detail || strings.Contains(got, "secret") {
			t.Errorf("%s: %s: got %q, want %q", name, data, got, detail)
		}
		return
	}
	var decoded gateway.Event
	if rejection != nil || proto.Unmarshal(event.Wire, &decoded) != nil {
		t.Errorf("%s: %s: %+v", name, data, rejection)
		return
	}
	var got any
	if s := decoded.GetParameters().GetPrivateMetadata(); s != nil {
		got = s.AsMap()
	}
	if text, err := json.Marshal(got); err != nil || string(text) != private {
		t.Errorf("%s: %s: the private metadata is %s, want %s", name, data, text, private)
	}
}

// TestDroppedFieldsDoNotCountForSize: a field that is dropped does not count for the size
// of its event, and a field that is relayed does.
func TestDroppedFieldsDoNotCountForSize(t *testing.T) {
	big := func(key string) string {
		return (`{"feature":"ab","action":"cd","privateMetadata":{"` + key + `":"` + strings.Repeat("<", 2_000_000) + `"}}`)
	}
	d := NewDecoder(testServices(t), "dev")
	for key, want := range map[string]Reason{"a": Oversized, "b": ""} {
		m := testMessage(big(key))
		m.Attributes["service_id"] = "list-drop"
		_, rejection := d.Decode(m)
		var got Reason
		if rejection != nil {
			got = rejection.Reason
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

// TestCatalogueDoesNotAllocate: decoding with a catalogue allocates no more than without.
func TestCatalogueDoesNotAllocate(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector empties sync.Pool at random")
	}
	catalogue := policy.Catalogue{{Feature: "cody.chat-question", Action: "executed"}: {
		Metadata: map[string]bool{"tier": true, "durationMs": true, "charCount": true, "recordsPrivateMetadataTranscript": true},
		Private:  map[string]bool{"promptText": true, "languages": true, "editor": true, "repository": true},
	}}
	for _, private := range []policy.PrivateMetadata{policy.DropPrivate, policy.RejectPrivate} {
		services, err := policy.NewSet([]*policy.Service{{ID: "cody-gateway", PrivateMetadata: private, Catalogue: catalogue, RejectUnlisted: true}}, false)
		if err != nil {
			t.Fatal(err)
		}
		d := NewDecoder(services, "dev")
		m := benchMessage(privateEvent)
		var buf []byte
		var rejection *Rejection
		if n := testing.AllocsPerRun(200, func() { _, buf, rejection = d.DecodeInto(buf[:0], m) }); n > 1 || rejection != nil {
			t.Errorf("decoding allocates %v times: %v", n, rejection)
		}
	}
}
