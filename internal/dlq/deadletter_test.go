package dlq

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/race"
)

var (
	published  = time.Date(2026, 11, 20, 9, 0, 0, 123456789, time.UTC)
	rejectedAt = time.Date(2026, 11, 20, 10, 0, 0, 0, time.FixedZone("CET", 3600))
	origin     = Origin{Subscription: "projects/p/subscriptions/telemetry-events-relay", WorkerVersion: "1.2.3"}
)

func deadLetter(data string, attributes map[string]string) *DeadLetter {
	return &DeadLetter{
		MessageID: "4711", PublishTime: published, Data: []byte(data), Attributes: attributes,
		Rejection:  event.Rejection{Reason: event.InvalidEvent, Detail: "feature: expected a name"},
		RejectedAt: rejectedAt,
	}
}

func mustBuild(t testing.TB, l *DeadLetter) *pubsubpb.PubsubMessage {
	t.Helper()
	m, err := build(l, origin)
	if err != nil {
		t.Fatal(err)
	}
	checkLimits(t, m)
	return m
}

// checkLimits applies Pub/Sub's limits.
func checkLimits(t testing.TB, m *pubsubpb.PubsubMessage) {
	t.Helper()
	if n := len(m.GetAttributes()); n > 100 {
		t.Errorf("%d attributes", n)
	}
	for k, v := range m.GetAttributes() {
		if k == "" || len(k) > 256 || len(v) > 1024 || !utf8.ValidString(k) || !utf8.ValidString(v) ||
			(strings.HasPrefix(k, "goog") && !strings.HasPrefix(k, "googclient_")) {
			t.Errorf("attribute %.300q has the value %.2000q", k, v)
		}
	}
	if n := proto.Size(m); n > 10<<20 {
		t.Errorf("%d bytes", n)
	}
	if m.GetOrderingKey() != "" {
		t.Error("a dead-lettered message is not ordered")
	}
}

func gunzip(t testing.TB, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// restore reads the original message from a dead-lettered message. It follows the
// documentation and uses no code of the package.
func restore(t testing.TB, m *pubsubpb.PubsubMessage) ndjson.Message {
	t.Helper()
	data := m.GetData()
	switch encoding := m.GetAttributes()[AttrEncoding]; encoding {
	case EncodingEnvelope:
		out, err := ndjson.Parse(gunzip(t, data))
		if err != nil {
			t.Fatal(err)
		}
		return out
	case EncodingGzip:
		data = gunzip(t, data)
	case "":
	default:
		t.Fatalf("unknown encoding %q", encoding)
	}
	out := ndjson.Message{Data: data, Attributes: map[string]string{}, OrderingKey: m.GetAttributes()[AttrOrderingKey]}
	for k, v := range m.GetAttributes() {
		if !strings.HasPrefix(k, "dlq_") {
			out.Attributes[k] = v
		}
	}
	return out
}

func checkRestored(t testing.TB, l *DeadLetter, m *pubsubpb.PubsubMessage) {
	t.Helper()
	want := ndjson.Message{Attributes: l.Attributes, Data: l.Data, OrderingKey: l.OrderingKey}
	got := restore(t, m)
	if !bytes.Equal(want.Data, got.Data) {
		t.Errorf("restored %d bytes that are not the original %d", len(got.Data), len(want.Data))
	}
	want.Data, got.Data = nil, nil
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("restored is another message: %s", diff)
	}
}

func TestSmallMessageIsWrittenPlain(t *testing.T) {
	l := deadLetter(`{"feature":"Bad"}`, map[string]string{"service_id": "sams", "googclient_traceparent": "x", "empty": ""})
	m := mustBuild(t, l)
	want := &pubsubpb.PubsubMessage{Data: l.Data, Attributes: map[string]string{
		"service_id": "sams", "googclient_traceparent": "x", "empty": "",
		"dlq_reason":         "invalid_event",
		"dlq_detail":         "feature: expected a name",
		"dlq_rejected_at":    "2026-11-20T09:00:00Z",
		"dlq_attempts":       "0",
		"dlq_message_id":     "4711",
		"dlq_publish_time":   "2026-11-20T09:00:00.123456789Z",
		"dlq_subscription":   "projects/p/subscriptions/telemetry-events-relay",
		"dlq_worker_version": "1.2.3",
	}}
	if diff := cmp.Diff(want.GetAttributes(), m.GetAttributes()); diff != "" {
		t.Error(diff)
	}
	checkRestored(t, l, m)

	l.Attempts, l.OrderingKey, l.Rejection.EventID = 5, "user-1", "019a0000-0000-7000-8000-000000000001"
	l.Rejection.Reason = event.GatewayRejected
	m = mustBuild(t, l)
	for k, v := range map[string]string{
		"dlq_attempts": "5", "dlq_ordering_key": "user-1", "dlq_event_id": "019a0000-0000-7000-8000-000000000001",
		"dlq_reason": "gateway_rejected",
	} {
		if got := m.GetAttributes()[k]; got != v {
			t.Errorf("%s: got %q, want %q", k, got, v)
		}
	}
	checkRestored(t, l, m)
	if len(l.Attributes) != 3 {
		t.Errorf("the original attributes were changed: %v", l.Attributes)
	}
}

func TestEveryReasonHasARow(t *testing.T) {
	for _, reason := range event.Reasons {
		l := deadLetter(`{}`, nil)
		l.Rejection.Reason = reason
		if got := mustBuild(t, l).GetAttributes()["dlq_reason"]; got != string(reason) {
			t.Errorf("got %q, want %q", got, reason)
		}
	}
}

func TestAttributeValuesAreCutToTheLimit(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{strings.Repeat("x", 1024), strings.Repeat("x", 1024)},
		{strings.Repeat("x", 1025), strings.Repeat("x", 1024)},
		{strings.Repeat("x", 1023) + "é", strings.Repeat("x", 1023)},
		{strings.Repeat("x", 1022) + "é", strings.Repeat("x", 1022) + "é"},
		{strings.Repeat("€", 400), strings.Repeat("€", 341)},
		{"bad \xff byte", "bad \uFFFD byte"},
		{strings.Repeat("\xff", 2000), "\uFFFD"},
	} {
		l := deadLetter(`{}`, nil)
		l.Rejection.Detail, l.Rejection.EventID, l.MessageID = c.in, c.in, c.in
		m := mustBuild(t, l)
		for _, k := range []string{"dlq_detail", "dlq_event_id", "dlq_message_id"} {
			if got := m.GetAttributes()[k]; got != c.want {
				t.Errorf("%s: got %d bytes %.40q…, want %d", k, len(got), got, len(c.want))
			}
		}
	}
}

// big skips a test that takes too long with the race detector and has no concurrency.
func big(t *testing.T) {
	t.Helper()
	if race.Enabled {
		t.Skip("compresses megabytes")
	}
}

func random(n int) string {
	return incompressible()[:n]
}

var incompressible = sync.OnceValue(func() string {
	b := make([]byte, 11_000_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return string(b)
})

// many makes n attributes.
func many(n int) map[string]string {
	all := make(map[string]string, n)
	for i := range n {
		all[fmt.Sprintf("attribute_%d", i)] = "value"
	}
	return all
}

func replayed(attributes map[string]string) map[string]string {
	all := map[string]string{
		"replay_count": "2", "origin_message_id": "1", "origin_publish_time": "2026-11-19T09:00:00Z", "service_id": "sams",
	}
	maps.Copy(all, attributes)
	return all
}

func TestEncodingFollowsSizeAndNames(t *testing.T) {
	attributes := func(pairs ...string) map[string]string {
		all := map[string]string{"service_id": "sams", "service_environment": "prod", "service_version": "7"}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i]] = pairs[i+1]
		}
		return all
	}
	const event = `{"feature":"a.b","action":"c"}`
	for _, c := range []struct {
		name       string
		data       string
		attributes map[string]string
		ordering   string
		want       string
	}{
		{"nothing", "", nil, "", ""},
		{"ordinary", event, attributes(), "key", ""},
		{"not UTF-8", "\xff\x00\n\r", attributes(), "", ""},
		{"an ordering key at its limit", event, attributes(), strings.Repeat("k", 1024), ""},
		{"an ordering key over its limit", event, attributes(), strings.Repeat("k", 1025), EncodingEnvelope},
		{"9.9 MB", strings.Repeat("a", 9_900_000), attributes(), "", ""},
		{"10 MB", strings.Repeat("a", 10_000_000), attributes(), "key", EncodingGzip},
		{"15 MB", strings.Repeat("a", 15_000_000), attributes(), "key", EncodingGzip},
		{"more than 10 MB that hardly compress", strings.Repeat("a", 1_000_000) + random(9_200_000), attributes(), "", EncodingGzip},
		{"10 MB that do not compress", random(10_000_000), attributes(), "", ""}, // between 10 MB and 10 MiB
		{"dlq_ of its own", event, attributes("dlq_reason", "mine"), "", EncodingEnvelope},
		{"dlq_ of its own, unknown", event, attributes("dlq_", "mine"), "key", EncodingEnvelope},
		{"dlq_encoding of its own", "not gzip", attributes("dlq_encoding", "gzip"), "", EncodingEnvelope},
		{"origin_ of its own", event, attributes("origin_message_id", "mine"), "", EncodingEnvelope},
		{"origin_ of its own, unknown", event, attributes("origin_country", "DE"), "", EncodingEnvelope},
		{"replay_count of its own, valid", event, attributes("replay_count", "3"), "", EncodingEnvelope},
		{"replay_count of its own, not valid", event, attributes("replay_count", "many"), "", EncodingEnvelope},
		{"replay_count of zero", event, replayed(map[string]string{"replay_count": "0"}), "", EncodingEnvelope},
		{"like ours, but not", event, attributes("DLQ_reason", "x", "dlqreason", "x", "origin", "x", "replay_counter", "x"), "", ""},
		{"replayed", event, replayed(nil), "key", ""},
		{"replayed, with dlq_ of its own", event, replayed(map[string]string{"dlq_x": "y"}), "", EncodingEnvelope},
		{"replayed, with origin_ of its own", event, replayed(map[string]string{"origin_x": "y"}), "", EncodingEnvelope},
		{"replayed, 10 MB", strings.Repeat("a", 10_000_000), replayed(nil), "key", EncodingGzip},
		{"91 attributes", event, many(91), "", ""},
		{"92 attributes", event, many(92), "", EncodingEnvelope},
		{"90 attributes with an ordering key", event, many(90), "key", ""},
		{"91 attributes with an ordering key", event, many(91), "key", EncodingEnvelope},
		{"100 attributes", event, many(100), "key", EncodingEnvelope},
		{"91 attributes and 10 MB", strings.Repeat("a", 10_000_000), many(91), "", EncodingGzip},
		{"150 attributes", event, many(150), "key", EncodingEnvelope},
		{"a value at its limit", event, attributes("a", strings.Repeat("é", 512)), "", ""},
		{"a value over its limit", event, attributes("a", strings.Repeat("é", 512)+"x"), "", EncodingEnvelope},
		{"a key at its limit", event, attributes(strings.Repeat("k", 256), "a"), "", ""},
		{"a key over its limit", event, attributes(strings.Repeat("k", 257), "a"), "", EncodingEnvelope},
		{"an empty key", event, attributes("", "a"), "", EncodingEnvelope},
		{"a key of Google's", event, attributes("google_x", "a"), "", EncodingEnvelope},
		{"a service over the limit in an envelope", event, map[string]string{"service_id": strings.Repeat("s", 2000)}, "", EncodingEnvelope},
		{"not JSON, in an envelope", "\xff\x00\n\r", attributes("dlq_x", "<&>\u2028\"\\\x01"), "key", EncodingEnvelope},
		{"no data, in an envelope", "", attributes("dlq_x", "y"), "key", EncodingEnvelope},
		{"nested to the limit of JSON, in an envelope", strings.Repeat(`{"a":`, 9_999) + "{}" + strings.Repeat("}", 9_999), attributes("dlq_x", "y"), "", EncodingEnvelope},
		{"8 MB that do not compress, in an envelope", random(8_000_000), attributes("dlq_x", "y"), "", EncodingEnvelope},
	} {
		t.Run(c.name, func(t *testing.T) {
			if len(c.data) > 1<<20 {
				big(t)
			}
			l := deadLetter(c.data, c.attributes)
			l.OrderingKey = c.ordering
			m := mustBuild(t, l)
			if got := m.GetAttributes()["dlq_encoding"]; got != c.want {
				t.Errorf("encoding %q, want %q", got, c.want)
			}
			checkRestored(t, l, m)
			// The attributes by which on-call filters stay outside, whatever the encoding.
			for _, k := range []string{"service_id", "service_environment", "service_version"} {
				if v := c.attributes[k]; len(v) <= 1024 && m.GetAttributes()[k] != v {
					t.Errorf("%s is %q, want %q", k, m.GetAttributes()[k], v)
				}
			}
			for k, v := range map[string]string{"dlq_reason": "invalid_event", "dlq_message_id": "4711"} {
				if got := m.GetAttributes()[k]; got != v {
					t.Errorf("%s is %q, want %q", k, got, v)
				}
			}
			if got := m.GetAttributes()["dlq_ordering_key"]; len(c.ordering) <= 1024 && got != c.ordering {
				t.Errorf("dlq_ordering_key is %q", got)
			}
		})
	}
}

func TestReplayCountIsWritten(t *testing.T) {
	for _, c := range []struct {
		count string
		want  string
	}{{"1", "1"}, {"12", "12"}, {"0", ""}, {"-1", ""}, {"x", ""}, {"", ""}} {
		l := deadLetter(`{}`, replayed(map[string]string{"replay_count": c.count}))
		if got, ok := mustBuild(t, l).GetAttributes()["dlq_replays"]; got != c.want || ok != (c.want != "") {
			t.Errorf("%q: got %q, want %q", c.count, got, c.want)
		}
	}
}

func TestMessageThatNeverFitsIsRefused(t *testing.T) {
	big(t)
	for name, l := range map[string]*DeadLetter{
		"10.5 MB that do not compress":             deadLetter(random(10_500_000), nil),
		"10 MiB that do not compress":              deadLetter(random(10<<20), nil),
		"10.5 MB in an envelope":                   deadLetter(random(10_500_000), map[string]string{"dlq_x": "y"}),
		"10.5 MB in an envelope, not its encoding": deadLetter(random(10_500_000), many(100)),
	} {
		if m, err := build(l, origin); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v, %d bytes", name, err, proto.Size(m))
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"feature":"a.b"}`), "service_id", "sams", "other", "x", "key", 3, false)
	f.Add([]byte("\xff"), "dlq_reason", "mine", "replay_count", "1", "", 0, true)
	f.Add([]byte(""), "origin_message_id", "1", "replay_count", "1", "", 97, true)
	f.Add([]byte(`{"a":"<\u2028>"}`), "dlq_encoding", "gzip", "googclient_x", "y", strings.Repeat("k", 2000), 100, false)
	f.Fuzz(func(t *testing.T, data []byte, k1, v1, k2, v2, ordering string, n int, replay bool) {
		attributes := many(min(max(0, n), 200))
		if replay {
			attributes = replayed(attributes)
		}
		valid := func(s string) string { return strings.ToValidUTF8(s, "?") } // Pub/Sub has no other
		attributes[valid(k1)], attributes[valid(k2)] = valid(v1), valid(v2)
		l := deadLetter(string(data), attributes)
		l.OrderingKey = valid(ordering)
		checkRestored(t, l, mustBuild(t, l))
	})
}

func BenchmarkBuild(b *testing.B) {
	l := deadLetter(strings.Repeat("x", 350), map[string]string{"service_id": "svc", "service_environment": "prod", "service_version": "1.2.3"})
	b.ReportAllocs()
	for b.Loop() {
		mustBuild(b, l)
	}
}
