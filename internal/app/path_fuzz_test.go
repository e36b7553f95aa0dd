package app_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// hostile is a message as a publisher may send it.
type hostile struct {
	data        []byte
	attributes  map[string]string
	orderingKey string
}

// pathServices has one service of each policy.
func pathServices(tb testing.TB) *policy.Set {
	tb.Helper()
	set, err := policy.NewSet([]*policy.Service{
		{ID: "allow"},
		{ID: "drop", PrivateMetadata: policy.DropPrivate},
		{ID: "reject", PrivateMetadata: policy.RejectPrivate},
	}, false)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// fakeTopic accepts the messages that Pub/Sub accepts.
type fakeTopic struct {
	tb       testing.TB
	messages []*pubsubpb.PubsubMessage
}

func (f *fakeTopic) Publish(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
	for _, m := range messages {
		if n := len(m.GetAttributes()); n > 100 {
			f.tb.Errorf("a dead message has %d attributes", n)
		}
		for key, value := range m.GetAttributes() {
			reserved := strings.HasPrefix(key, "goog") && !strings.HasPrefix(key, "googclient_")
			if key == "" || len(key) > 256 || len(value) > 1024 || reserved || !utf8.ValidString(key) || !utf8.ValidString(value) {
				f.tb.Errorf("Pub/Sub does not take the attribute %.300q=%.1100q", key, value)
			}
		}
		if n := proto.Size(m); n > 10<<20 {
			f.tb.Errorf("a dead message has %d bytes", n)
		}
	}
	f.messages = append(f.messages, messages...)
	return nil
}

// relayed takes a message along the path. It ends as an event that the gateway can decode,
// or as a dead-lettered message from which the original can be restored exactly. If it fits
// into neither, the writer must report that.
func relayed(tb testing.TB, m hostile) (reason event.Reason) {
	tb.Helper()
	published := time.Date(2026, 11, 20, 9, 0, 43, 200, time.UTC)
	original := hostile{bytes.Clone(m.data), maps.Clone(m.attributes), m.orderingKey}
	decoder := event.NewDecoder(pathServices(tb), "dev")
	e, rejection := decoder.Decode(event.Message{ID: "11122233344455", PublishTime: published, Data: m.data, Attributes: m.attributes})
	if rejection == nil {
		var decoded telemetrygatewayv1.Event
		if err := proto.Unmarshal(e.Wire, &decoded); err != nil {
			tb.Fatalf("the gateway cannot decode the event of %.300q: %v", m.data, err)
		}
		if decoded.GetId() != string(e.ID()) || len(e.ID()) == 0 || decoded.GetFeature() == "" || decoded.GetAction() == "" || decoded.GetTimestamp() == nil {
			tb.Fatalf("the event %v is not complete", &decoded)
		}
		if len(decoded.ProtoReflect().GetUnknown()) > 0 {
			tb.Fatalf("the event %v has unknown fields", &decoded)
		}
		// It may still be refused by the gateway.
		rejection = &event.Rejection{Reason: event.GatewayRefused, Detail: "no", EventID: string(e.ID())}
	} else {
		reason = rejection.Reason
		if !slices.Contains(event.Reasons, reason) || rejection.Detail == "" || len(rejection.Detail) > event.MaxDetail || !utf8.ValidString(rejection.Detail) {
			tb.Fatalf("the rejection is %+v", rejection)
		}
	}

	topic := &fakeTopic{tb: tb}
	w := dlq.NewWriter(topic, dlq.Origin{Subscription: "projects/p/subscriptions/s", WorkerVersion: "v"})
	err := w.Write(tb.Context(), []*dlq.DeadLetter{{
		MessageID: "11122233344455", PublishTime: published, Data: m.data, Attributes: m.attributes, OrderingKey: m.orderingKey,
		Rejection: *rejection, RejectedAt: published.Add(time.Second), Attempts: 3,
	}})[0]
	if !bytes.Equal(m.data, original.data) || !maps.Equal(m.attributes, original.attributes) {
		tb.Fatal("the message was changed on the way")
	}
	if err != nil {
		if len(m.data) < 5_000_000 {
			tb.Fatalf("a message of %d bytes has no dead message: %v", len(m.data), err)
		}
		if len(topic.messages) > 0 {
			tb.Fatalf("it was published and failed: %v", err)
		}
		return "too_large"
	}
	if len(topic.messages) != 1 {
		tb.Fatalf("%d dead letters", len(topic.messages))
	}
	message := topic.messages[0]
	a := message.GetAttributes()
	if a["dlq_reason"] != string(rejection.Reason) || a["dlq_message_id"] != "11122233344455" || a["dlq_attempts"] != "3" {
		tb.Fatalf("the dead message says %v", a)
	}
	got, err := restore(message)
	if err != nil {
		tb.Fatalf("the dead message cannot be restored: %v: %v", err, a)
	}
	if !bytes.Equal(got.data, original.data) {
		tb.Fatalf("the data is restored as %.300q, want %.300q", got.data, original.data)
	}
	if !maps.Equal(got.attributes, original.attributes) {
		tb.Fatalf("the attributes are restored as %q, want %q", got.attributes, original.attributes)
	}
	if got.orderingKey != original.orderingKey {
		tb.Fatalf("the ordering key is restored as %q, want %q", got.orderingKey, original.orderingKey)
	}
	return reason
}

// restore restores the original message by the documented encodings.
func restore(message *pubsubpb.PubsubMessage) (hostile, error) {
	a := message.GetAttributes()
	plain := message.GetData()
	if encoding := a["dlq_encoding"]; encoding != "" {
		r, err := gzip.NewReader(bytes.NewReader(plain))
		if err != nil {
			return hostile{}, err
		}
		if plain, err = io.ReadAll(r); err != nil {
			return hostile{}, err
		}
		if encoding == "envelope+gzip" {
			return restoreLine(plain)
		}
		if encoding != "gzip" {
			return hostile{}, fmt.Errorf("the encoding %q", encoding)
		}
	}
	m := hostile{data: plain, attributes: map[string]string{}, orderingKey: a["dlq_ordering_key"]}
	for key, value := range a {
		if !strings.HasPrefix(key, "dlq_") {
			m.attributes[key] = value
		}
	}
	return m, nil
}

// restoreLine reads an export line. The data is cut out by hand, since a decoder
// might change it.
func restoreLine(text []byte) (hostile, error) {
	var head struct {
		Attributes  map[string]string
		DataBase64  string
		OrderingKey string
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return hostile{}, err
	}
	m := hostile{attributes: head.Attributes, orderingKey: head.OrderingKey}
	if head.DataBase64 != "" {
		var err error
		m.data, err = base64.StdEncoding.DecodeString(head.DataBase64)
		return m, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil { // {
		return m, err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return m, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return m, err
		}
		if key == "data" {
			m.data = value
		}
	}
	return m, nil
}

// parseAttributes reads lines of name=value; a line without a sign is many.
func parseAttributes(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(line, "=")
		switch {
		case ok:
			// Attributes are strings of protobuf's, which are UTF-8.
			all[strings.ToValidUTF8(name, "?")] = strings.ToValidUTF8(value, "?")
		case strings.HasPrefix(line, "many "):
			for i := range min(len(line)*4, 200) {
				all[fmt.Sprintf("%s-%d", strings.ToValidUTF8(line[5:min(len(line), 20)], "?"), i)] = "v"
			}
		}
	}
	return all
}

const validData = `{"feature":"cody.chat","action":"sent","metadata":{"n":1}}`

var hostileData = []string{
	validData, "", "null", "[]", "{", "{}", "\xff\xfe", "{\"feature\":\"a\xff\"}", validData + validData, "\ufeff" + validData,
	`{"feature":"cody.chat","action":"sent","privateMetadata":{"a":[1,null,{"b":"c"}]}}`,
	`{"feature":"cody.chat","action":"sent","metadata":{"n":1e400}}`,
	`{"feature":"cody.chat","action":"sent","metadata":{"n":-0,"m":1e-400,"o":179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587207096330286416692887910946555547851940402630657488671505820681908902000708383676273854845817711531764475730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880}}`,
	`{"feature":"cody.chat","action":"sent","metadataVersion":2147483648}`,
	`{"feature":"cody.chat","action":"sent","user":{"userId":-9223372036854775808}}`,
	`{"feature":"cody.chat","action":"sent","timestamp":"0000-01-01T00:00:00Z"}`,
	`{"feature":"cody.chat","action":"sent","timestamp":"9999-12-31T23:59:59.999999999-23:59"}`,
	`{"feature":"cody.chat","action":"sent","timestamp":"2026-02-30T25:61:61Z"}`,
	`{"feature":"cody.chat","action":"sent","id":"00000000-0000-0000-0000-000000000000"}`,
	`{"feature":"cody.chat","action":"sent","id":"\u0000"}`,
	`{"feature":"\ud800","action":"\ud83d\ude00"}`,
	"{\"a\":\"\u2028<>&\",\n\"b\" : 1.50}",
	`{"dlq_reason":"x","data":{"dataBase64":"e30="}}`,
}

var hostileAttributes = []string{
	"service_id=allow", "service_id=drop", "service_id=reject", "", "service_id=", "service_id=nobody", "service_id=Ä\u0000",
	"service_id=allow\ndlq_reason=mine\ndlq_encoding=gzip\ndlq_ordering_key=k",
	"service_id=allow\norigin_message_id=1\norigin_publish_time=2026-01-01T00:00:00Z\nreplay_count=2",
	"service_id=allow\nreplay_count=-1", "service_id=allow\nreplay_count=99999999999999999999\norigin_message_id=",
	"service_id=allow\norigin_of_species=1", "service_id=allow\nDLQ_reason=x\ndlq_=y\ndlq=z", "service_id=allow\ngoogclient_x=1\ngoogle=2",
	"service_id=allow\nmany attributes of all kinds", "many", "=empty name\nservice_id=allow",
	"service_id=allow\nschema_version=1\nservice_version=v\ntraceparent=00-1386b39c59355d4cc09710021d13be3c-0123456789abcdef-01",
	"service_id=allow\nlong=" + strings.Repeat("é", 600), "service_id=allow\n" + strings.Repeat("k", 300) + "=v",
	"service_id=allow\nservice_version=" + strings.Repeat("v", 1025),
}

// FuzzMessagePath looks for messages that are lost on their way, or change.
func FuzzMessagePath(f *testing.F) {
	for _, data := range hostileData {
		for _, attributes := range hostileAttributes[:5] {
			f.Add([]byte(data), attributes, "")
		}
	}
	for _, attributes := range hostileAttributes {
		f.Add([]byte(validData), attributes, "key")
		f.Add([]byte(`{"feature":`), attributes, strings.Repeat("k", 1025))
	}
	for _, depth := range []int{99, 100, 101} {
		f.Add(nested(depth), "service_id=allow", "")
		f.Add(nested(depth), "service_id=allow\ndlq_reason=mine", "")
	}
	f.Fuzz(func(t *testing.T, data []byte, attributes, orderingKey string) {
		relayed(t, hostile{data, parseAttributes(attributes), strings.ToValidUTF8(orderingKey, "?")})
	})
}

func nested(depth int) []byte {
	return []byte(`{"feature":"cody.chat","action":"sent","privateMetadata":{"a":` +
		strings.Repeat("[", depth-2) + strings.Repeat("]", depth-2) + `}}`)
}

// TestHostileMessages has messages that are too large for a fuzzer.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 10_485_700)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(noise) // it never fails
	many := func(n, size int) map[string]string {
		all := map[string]string{"service_id": "allow"}
		for i := range n - 1 {
			all[fmt.Sprintf("attribute-%d", i)] = strings.Repeat("é", size/2)
		}
		return all
	}
	allow := map[string]string{"service_id": "allow"}
	collide := map[string]string{"service_id": "allow", "dlq_reason": "mine", "replay_count": "x", "origin_message_id": "1"}
	text := func(n int) []byte { // valid, and n bytes of private metadata
		return slices.Concat([]byte(`{"feature":"cody.chat","action":"sent","privateMetadata":{"note":"`), bytes.Repeat([]byte("<"), n), []byte(`"}}`))
	}
	for _, c := range []struct {
		name string
		m    hostile
		want event.Reason
	}{
		{"100 attributes of 1 KB", hostile{[]byte(validData), many(100, 1024), "key"}, ""},
		{"100 attributes of 1 KB, malformed", hostile{[]byte("["), many(100, 1024), ""}, event.MalformedPayload},
		{"88 attributes", hostile{[]byte("["), many(88, 10), ""}, event.MalformedPayload},
		{"91 attributes", hostile{[]byte("["), many(91, 10), "key"}, event.MalformedPayload},
		{"no attributes", hostile{[]byte(validData), map[string]string{}, ""}, event.UnknownService},
		{"no data", hostile{nil, allow, ""}, event.MalformedPayload},
		{"1 MB that fits", hostile{text(1_000_000), allow, ""}, ""},
		{"2 MB that become 12", hostile{text(2_000_000), allow, ""}, event.Oversized},
		{"10 MB of text", hostile{text(9_999_000), allow, "key"}, event.Oversized},
		{"10 MiB of text", hostile{text(10_485_000), allow, "key"}, event.Oversized},
		{"10 MiB of text with colliding names", hostile{text(10_485_000), collide, "key"}, event.Oversized},
		{"7 MB of noise with colliding names", hostile{noise[:7_000_000], collide, "key"}, event.MalformedPayload},
		{"9.9 MB of noise", hostile{noise[:9_900_000], allow, "key"}, event.MalformedPayload},
		{"9.99 MB of noise with 1 KB attributes", hostile{noise[:9_990_000], many(50, 1024), ""}, event.MalformedPayload},
		{"10 MiB of noise", hostile{noise, many(60, 1024), ""}, "too_large"},
		{"10 MB of brackets", hostile{bytes.Repeat([]byte("["), 9_900_000), allow, ""}, event.MalformedPayload},
		{"10 MB of digits", hostile{slices.Concat([]byte(`{"metadata":{"n":`), bytes.Repeat([]byte("9"), 9_900_000), []byte("}}")), allow, ""}, event.InvalidEvent},
		{"10 MB of keys", hostile{manyKeys(700_000), allow, ""}, event.InvalidEvent},
		{"nested to JSON's limit", hostile{nested(9_999), allow, ""}, event.MalformedPayload},
		{"nested to JSON's limit with colliding names", hostile{nested(9_999), collide, ""}, event.MalformedPayload},
		{"nested beyond JSON's limit with colliding names", hostile{nested(10_001), collide, ""}, event.MalformedPayload},
		{"a long ordering key", hostile{[]byte("["), allow, strings.Repeat("k", 1025)}, event.MalformedPayload},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && len(c.m.data) > 1<<20 {
				t.Skip("It is large, and there is nothing concurrent in it.")
			}
			began := time.Now()
			if got := relayed(t, c.m); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// manyKeys is an object of n fields that nobody knows.
func manyKeys(n int) []byte {
	data := []byte(`{"feature":"cody.chat","action":"sent"`)
	for i := range n {
		data = fmt.Appendf(data, `,"k%d":%d`, i, i)
	}
	return append(data, '}')
}
