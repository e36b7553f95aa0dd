package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// expectation is the record that the gateway must have of a message. It is derived from the
// JSON in the simplest way, independently of the worker's decoder.
type expectation struct {
	identity gatewayserver.Identity
	event    *telemetrygatewayv1.Event
}

func expect(t *testing.T, m *pubsubpb.PubsubMessage) expectation {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(m.GetData()))
	d.UseNumber()
	var doc object
	if err := d.Decode(&doc); err != nil {
		t.Fatalf("message %s: %v", m.GetMessageId(), err)
	}
	attributes := m.GetAttributes()
	originID, published := m.GetMessageId(), m.GetPublishTime().AsTime()
	if regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(attributes["replay_count"]) {
		originID = attributes["origin_message_id"]
		published = parseTime(t, attributes["origin_publish_time"])
	}

	e := &telemetrygatewayv1.Event{
		Id:        derivedID(originID, published),
		Timestamp: timestamppb.New(published),
		Feature:   doc.str("feature"),
		Action:    doc.str("action"),
		Source:    &telemetrygatewayv1.EventSource{Server: &telemetrygatewayv1.EventSource_Server{Version: attributes["service_version"]}},
		Parameters: &telemetrygatewayv1.EventParameters{
			Version: int32(doc.integer(t, "metadataVersion")),
		},
	}
	if id := doc.str("id"); id != "" {
		e.Id = id
	}
	if at := doc.str("timestamp"); at != "" {
		e.Timestamp = timestamppb.New(parseTime(t, at))
	}
	for key, value := range doc.object("metadata") {
		if e.Parameters.Metadata == nil {
			e.Parameters.Metadata = map[string]float64{}
		}
		e.Parameters.Metadata[key] = number(t, value)
	}
	// Policies drop it, or accept it only if it is empty.
	withheld := attributes["service_id"] == "dropper" || attributes["service_id"] == "strict"
	if private := doc.object("privateMetadata"); private != nil && !withheld {
		s, err := structpb.NewStruct(floats(t, map[string]any(private)).(map[string]any))
		if err != nil {
			t.Fatal(err)
		}
		e.Parameters.PrivateMetadata = s
	}
	if billing := doc.object("billingMetadata"); billing != nil {
		e.Parameters.BillingMetadata = &telemetrygatewayv1.EventBillingMetadata{Product: billing.str("product"), Category: billing.str("category")}
	}
	if user := doc.object("user"); user != nil {
		e.User = &telemetrygatewayv1.EventUser{SamsExternalId: user.opt("samsExternalId"), AnonymousUserId: user.opt("anonymousUserId")}
		if user["userId"] != nil {
			e.User.UserId = new(user.integer(t, "userId"))
		}
	}
	if client := doc.object("client"); client != nil {
		e.Source.Client = &telemetrygatewayv1.EventSource_Client{Name: client.str("name"), Version: client.opt("version")}
	}
	if flags := doc.object("featureFlags"); flags != nil {
		e.FeatureFlags = &telemetrygatewayv1.EventFeatureFlags{Flags: map[string]string{}}
		for key := range flags {
			e.FeatureFlags.Flags[key] = flags.str(key)
		}
	}
	if m := doc.object("marketingTracking"); m != nil {
		e.MarketingTracking = &telemetrygatewayv1.EventMarketingTracking{
			Url: m.opt("url"), FirstSourceUrl: m.opt("firstSourceUrl"), CohortId: m.opt("cohortId"), Referrer: m.opt("referrer"),
			LastSourceUrl: m.opt("lastSourceUrl"), DeviceSessionId: m.opt("deviceSessionId"),
			SessionReferrer: m.opt("sessionReferrer"), SessionFirstUrl: m.opt("sessionFirstUrl"),
		}
	}
	e.Interaction = interaction(doc.object("interaction"), attributes)

	identity := gatewayserver.Identity{ServiceID: attributes["service_id"], Environment: attributes["service_environment"]}
	if identity.Environment == "" {
		identity.Environment = "dev" // the worker's ENVIRONMENT_ID
	}
	return expectation{identity: identity, event: e}
}

func interaction(given object, attributes map[string]string) *telemetrygatewayv1.EventInteraction {
	traceID := given.opt("traceId")
	for _, name := range []string{"traceparent", "googclient_traceparent"} {
		if parts := strings.Split(attributes[name], "-"); traceID == nil && len(parts) == 4 {
			traceID = &parts[1]
		}
	}
	if given == nil && traceID == nil {
		return nil
	}
	i := &telemetrygatewayv1.EventInteraction{TraceId: traceID, InteractionId: given.opt("interactionId")}
	if country := given.opt("countryCode"); country != nil {
		i.Geolocation = &telemetrygatewayv1.EventInteraction_Geolocation{CountryCode: *country}
	}
	return i
}

// derivedID is the UUIDv7 of an event without an id.
func derivedID(messageID string, published time.Time) string {
	var id uuid.UUID
	var milli [8]byte
	binary.BigEndian.PutUint64(milli[:], uint64(published.UnixMilli()))
	copy(id[:6], milli[2:])
	sum := sha256.Sum256([]byte(messageID))
	copy(id[6:], sum[:10])
	id[6] = 0x70 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	return id.String()
}

// object is a JSON object; one that is absent or null is nil.
type object map[string]any

func (o object) object(key string) object {
	m, _ := o[key].(map[string]any)
	return m
}

func (o object) str(key string) string {
	s, _ := o[key].(string)
	return s
}

func (o object) opt(key string) *string {
	s, ok := o[key].(string)
	if !ok {
		return nil
	}
	return &s
}

func (o object) integer(t *testing.T, key string) int64 {
	t.Helper()
	if o[key] == nil {
		return 0
	}
	n, err := o[key].(json.Number).Int64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func number(t *testing.T, v any) float64 {
	t.Helper()
	f, err := v.(json.Number).Float64()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// floats replaces the numbers of a document with doubles.
func floats(t *testing.T, v any) any {
	t.Helper()
	switch v := v.(type) {
	case json.Number:
		return number(t, v)
	case map[string]any:
		all := map[string]any{}
		for key, value := range v {
			all[key] = floats(t, value)
		}
		return all
	case []any:
		all := make([]any, len(v))
		for i, value := range v {
			all[i] = floats(t, value)
		}
		return all
	}
	return v
}

func parseTime(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// recordedExactly requires that the gateway has recorded the messages' events, each once,
// as expected, and nothing else.
func (h *env) recordedExactly(messages []*pubsubpb.PubsubMessage) {
	h.t.Helper()
	type key struct {
		identity gatewayserver.Identity
		id       string
	}
	got := map[key]*telemetrygatewayv1.Event{}
	for _, r := range h.gateway.Recorded() {
		k := key{r.Identity, r.Event.GetId()}
		if got[k] != nil {
			h.t.Errorf("event %s of %v was recorded again", k.id, k.identity)
		}
		got[k] = r.Event
	}
	for _, m := range messages {
		want := expect(h.t, m)
		k := key{want.identity, want.event.GetId()}
		e := got[k]
		delete(got, k)
		switch {
		case e == nil:
			h.t.Errorf("event %s of %v was not recorded: %s", k.id, k.identity, clip(string(m.GetData())))
		case !proto.Equal(want.event, e):
			h.t.Errorf("event %s differs (-want +got):\n%s", k.id, cmp.Diff(want.event, e, protocmp.Transform()))
		}
	}
	for k := range got {
		h.t.Errorf("event %s of %v was recorded, and must not be", k.id, k.identity)
	}
}

// deadLetter is a dead-lettered message, restored.
type deadLetter struct{ testenv.DeadLetter }

// readDeadLetter restores the original message and checks the attributes that every
// dead-lettered message has.
func (h *env) readDeadLetter(m *pubsubpb.PubsubMessage) deadLetter {
	t := h.t
	t.Helper()
	for key, value := range m.GetAttributes() {
		if len(value) > 1024 || !utf8.ValidString(value) {
			t.Errorf("attribute %s cannot be stored by Pub/Sub: %d bytes", key, len(value))
		}
	}
	if n := len(m.GetAttributes()); n > 100 {
		t.Errorf("%d attributes are more than Pub/Sub takes", n)
	}
	read, err := testenv.ReadDeadLetter(m.GetData(), m.GetAttributes())
	h.must(err)
	l := deadLetter{read}

	if at := parseTime(t, l.DLQ["dlq_rejected_at"]); time.Since(at) > 5*time.Minute || time.Until(at) > time.Minute {
		t.Errorf("dlq_rejected_at is %v", at)
	}
	if l.DLQ["dlq_detail"] == "" {
		t.Error("dlq_detail is missing")
	}
	if got := l.DLQ["dlq_subscription"]; got != h.subscription(subID) {
		t.Errorf("dlq_subscription is %q", got)
	}
	if got := l.DLQ["dlq_worker_version"]; got != buildVersion {
		t.Errorf("dlq_worker_version is %q", got)
	}
	return l
}

// matches requires that the dead-lettered message has the published one in it.
func (l deadLetter) matches(t *testing.T, m *pubsubpb.PubsubMessage) {
	t.Helper()
	if !bytes.Equal(l.Data, m.GetData()) {
		t.Errorf("the data is not the original: %d bytes, want %d", len(l.Data), len(m.GetData()))
	}
	if !maps.Equal(l.Attributes, m.GetAttributes()) {
		t.Errorf("the attributes are not the original ones (-want +got):\n%s", cmp.Diff(m.GetAttributes(), l.Attributes))
	}
	if at := parseTime(t, l.DLQ["dlq_publish_time"]); !at.Equal(m.GetPublishTime().AsTime()) {
		t.Errorf("dlq_publish_time is %v, want %v", at, m.GetPublishTime().AsTime())
	}
	if got := l.DLQ["dlq_ordering_key"]; got != m.GetOrderingKey() {
		t.Errorf("dlq_ordering_key is %q, want %q", got, m.GetOrderingKey())
	}
}

// deadLetters takes this many dead-lettered messages, by the original message's id.
func (h *env) deadLetters(want int) map[string]deadLetter {
	h.t.Helper()
	all := make(map[string]deadLetter, want)
	for _, m := range h.take(dlqSubID, want) {
		l := h.readDeadLetter(m)
		id := l.DLQ["dlq_message_id"]
		if _, twice := all[id]; twice {
			h.t.Errorf("message %s was dead-lettered twice", id)
		}
		all[id] = l
	}
	return all
}
