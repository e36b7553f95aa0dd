package event

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// testServices has one service for every rule of services.yaml.
func testServices(tb testing.TB) *policy.Set {
	tb.Helper()
	set, err := policy.NewSet([]*policy.Service{
		{ID: "allow"},
		{ID: "drop", PrivateMetadata: policy.DropPrivate},
		{ID: "reject", PrivateMetadata: policy.RejectPrivate},
		{ID: "narrow", Environments: []string{"dev", "prod"}, Features: []string{"cody.*", "sams"}},
		{ID: "list-drop", PrivateMetadata: policy.DropPrivate, Catalogue: testCatalogue},
		{ID: "list-reject", PrivateMetadata: policy.RejectPrivate, Catalogue: testCatalogue},
		{ID: "list-events", Catalogue: testCatalogue, RejectUnlisted: true},
		{ID: "list-all", PrivateMetadata: policy.RejectPrivate, Catalogue: testCatalogue, RejectUnlisted: true},
	}, false)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// testCatalogue lists an event with fields, and one without any.
var testCatalogue = policy.Catalogue{
	{Feature: "ab", Action: "cd"}: {
		Metadata: map[string]bool{"a": true, "tier": true},
		Private:  map[string]bool{"a": true, "k": true, "x": true, "ü": true},
	},
	{Feature: "cody.chat", Action: "executed"}: {},
}

// compare compares the decoder with the reference for one message.
func compare(tb testing.TB, m Message) {
	tb.Helper()
	services := testServices(tb)
	d := NewDecoder(services, "default-env")
	data := bytes.Clone(m.Data)
	event, rejection := d.Decode(m)
	if !bytes.Equal(data, m.Data) {
		tb.Fatal("the data has been modified")
	}
	want := reference{services, "default-env"}.decode(m)
	if diff := refEqual(want, event, rejection); diff != "" {
		tb.Fatalf("%q %q: %s", m.Data, m.Attributes, diff)
	}

	// DecodeInto must give the same result, and not change the buffer's content.
	prefix := []byte("earlier")
	into, buf, again := d.DecodeInto(prefix, m)
	if diff := refEqual(want, into, again); diff != "" {
		tb.Fatalf("DecodeInto %q: %s", m.Data, diff)
	}
	if !bytes.Equal(buf, append(prefix, event.Wire...)) {
		tb.Fatalf("DecodeInto %q: buffer %q", m.Data, buf)
	}

	if rejection == nil {
		size := jsonSize(event.Wire, event.Publisher)
		if want, err := refJSONSize(event.Wire, event.Publisher); err != nil || size != want {
			tb.Fatalf("%q: JSON of %d bytes, want %d: %v", m.Data, size, want, err)
		}
		if bound := jsonBound(event.Wire, event.Publisher); size > bound {
			tb.Fatalf("%q: JSON of %d bytes exceeds the bound %d", m.Data, size, bound)
		}
		if _, err := protojson.Marshal(want.event); err != nil {
			tb.Fatalf("%q: the gateway cannot render it: %v", m.Data, err)
		}
	}
}

// fuzzMessage builds a message; attributes are lines of name=value.
func fuzzMessage(data []byte, attributes, messageID string, seconds, nanos int64) Message {
	m := Message{ID: messageID, PublishTime: time.Unix(seconds, nanos), Data: data, Attributes: map[string]string{}}
	for line := range strings.SplitSeq(attributes, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			m.Attributes[name] = value
		}
	}
	return m
}

const (
	testID    = "01A1f872-5b00-7578-ad5d-325956f1dfc7"
	testTrace = "1386b39c59355d4cc09710021d13be3c"
)

// FuzzDecode looks for messages for which decoder and reference differ.
func FuzzDecode(f *testing.F) {
	for _, data := range seeds() {
		for _, service := range []string{"allow", "drop", "reject", "narrow", "list-drop", "list-reject", "list-events", "list-all"} {
			f.Add([]byte(data), "service_id="+service, "11122233344455", int64(1795165243), int64(200999000))
		}
	}
	for _, attributes := range attributeSeeds {
		f.Add([]byte(`{"feature":"cody.chat","action":"executed"}`), attributes, "1", int64(1795165243), int64(0))
		f.Add([]byte(`{"feature":"ab","action":"cd","interaction":{}}`), attributes, "", int64(-62135596801), int64(999))
	}
	f.Fuzz(func(t *testing.T, data []byte, attributes, messageID string, seconds, nanos int64) {
		compare(t, fuzzMessage(data, attributes, messageID, seconds, nanos))
	})
}

var attributeSeeds = []string{
	"", "service_id=", "service_id=Allow", "service_id=nobody", "service_id=al low",
	"service_id=allow\nschema_version=1", "service_id=allow\nschema_version=", "service_id=allow\nschema_version=2",
	"service_id=allow\nservice_environment=\nservice_version=", "service_id=allow\nservice_environment=prod\nservice_version=1.2\xff",
	"service_id=narrow\nservice_environment=prod", "service_id=narrow\nservice_environment=test",
	"service_id=allow\ntraceparent=00-" + testTrace + "-0123456789abcdef-01",
	"service_id=allow\ntraceparent=00-" + testTrace + "-0123456789abcdef-01-more",
	"service_id=allow\ntraceparent=01-" + testTrace + "-0123456789abcdef-01-more",
	"service_id=allow\ntraceparent=ff-" + testTrace + "-0123456789abcdef-01",
	"service_id=allow\ntraceparent=bad\ngoogclient_traceparent=00-" + testTrace + "-0123456789abcdef-01",
	"service_id=allow\nreplay_count=1\norigin_message_id=7\norigin_publish_time=2026-11-20T09:00:43.2Z",
	"service_id=allow\nreplay_count=0\norigin_message_id=7\norigin_publish_time=2026-11-20T09:00:43.2Z",
	"service_id=allow\nreplay_count=99999999999999999999\norigin_message_id=7\norigin_publish_time=2026-11-20T09:00:43.2Z",
	"service_id=allow\nreplay_count=1\norigin_message_id=\norigin_publish_time=2026-11-20T09:00:43.2Z",
	"service_id=allow\nreplay_count=1\norigin_message_id=7\norigin_publish_time=2026-11-20",
}

// FuzzTimestamp compares with time.Parse where that is strict.
func FuzzTimestamp(f *testing.F) {
	for _, test := range timestampTests {
		f.Add(test.text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseInstant([]byte(s))
		want, wantOK := refParseTime(s)
		if ok != wantOK || ok && (got.seconds != want.Unix() || int(got.nanos) != want.Nanosecond()) {
			t.Fatalf("parseInstant(%q) = %v, %v; want %v, %v", s, got, ok, want, wantOK)
		}
	})
}
