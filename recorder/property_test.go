package recorder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
	gateway "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// given has everything that can be recorded with an event.
type given struct {
	feature     Feature
	action      Action
	id          ID
	timestamp   time.Time
	metadata    Metadata
	version     MetadataVersion
	private     PrivateMetadata
	user        User
	client      Client
	interaction Interaction
	billing     Billing
	flags       FeatureFlags
	marketing   Marketing
}

func (g given) options() []Option {
	return []Option{
		g.id, Timestamp(g.timestamp), g.metadata, g.version, g.private, g.user, g.client, g.interaction, g.billing, g.flags, g.marketing,
	}
}

// naive encodes the event with encoding/json, as a service in another language would. It
// fails where JSON cannot represent a value, and replaces invalid UTF-8.
func (g given) naive() ([]byte, error) {
	tree := map[string]any{
		"feature": g.feature, "action": g.action, "id": g.id, "timestamp": g.timestamp.UTC().Format(time.RFC3339Nano),
		"metadataVersion": g.version, "user": g.user, "client": g.client, "interaction": g.interaction,
		"billingMetadata": g.billing, "marketingTracking": g.marketing,
		"metadata": g.metadata, "privateMetadata": g.private, "featureFlags": g.flags,
	}
	return json.Marshal(tree)
}

var (
	texts = rapid.OneOf(
		rapid.SampledFrom([]string{"", "web", "naïve – ✓", "\x00\n\"\\<&>\u2028", "\xff", "a\xc3"}),
		rapid.String())
	names = rapid.OneOf(
		rapid.StringMatching(`[a-z][a-zA-Z.-]{1,63}`), rapid.StringMatching(`[a-z][a-zA-Z.-]{1,63}`), rapid.StringMatching(`[a-z][a-zA-Z.-]{1,63}`),
		rapid.SampledFrom([]string{"", "a", "Cody", "cody_hover", "v2", "cody.hover\n", "a\xff"}))
	ids = rapid.OneOf(
		rapid.StringMatching(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`), rapid.StringMatching(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`),
		rapid.SampledFrom([]string{"", "0", "019a0000000070008000000000000001", "{019a0000-0000-7000-8000-000000000001}"}))
	numbers = rapid.OneOf(
		rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1, -7, 0.1, math.MaxFloat64, math.SmallestNonzeroFloat64, 1e21, 1e-7, math.NaN(), math.Inf(1)}),
		rapid.Float64Range(-1e9, 1e9), rapid.Float64Range(-1e9, 1e9))
	keys = rapid.OneOf(rapid.StringMatching(`[a-z]{1,8}`), rapid.StringMatching(`[a-z]{1,8}`), texts)
)

// values returns values of private metadata, of limited depth.
func values(depth int) *rapid.Generator[any] {
	scalars := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.Int().AsAny(), rapid.Int64().AsAny(), rapid.Uint64().AsAny(),
		rapid.Float64Range(-1e300, 1e300).AsAny(), texts.AsAny(),
		rapid.SampledFrom([]any{time.Unix(0, 0), []byte("bytes"), struct{ A, b int }{1, 2}, math.NaN(), func() {}, json.RawMessage(`{"a":1,"a":2}`), json.RawMessage(`1e999`)}),
	}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	return rapid.OneOf(append(scalars,
		rapid.SliceOfN(values(depth-1), 0, 3).AsAny(),
		rapid.MapOfN(keys, values(depth-1), 0, 3).AsAny())...)
}

func drawGiven(t *rapid.T) given {
	text := func(label string) string { return texts.Draw(t, label) }
	// Most events have few parts, so that not every one has a fault.
	maybe := func(label string) bool { return rapid.IntRange(0, 4).Draw(t, label+"?") == 0 }
	g := given{
		feature: Feature(names.Draw(t, "feature")), action: Action(names.Draw(t, "action")), id: ID(ids.Draw(t, "id")),
		timestamp: time.Unix(rapid.OneOf(rapid.Int64Range(0, 4e9), rapid.Int64Range(0, 4e9), rapid.Int64Range(-7e10, 3e11)).Draw(t, "seconds"),
			rapid.Int64Range(0, 999_999_999).Draw(t, "nanos")),
	}
	if maybe("metadata") {
		g.metadata = Metadata{}
		for key, number := range rapid.MapOfN(keys, numbers, 0, 4).Draw(t, "metadata") {
			g.metadata[DynamicKey(key)] = number
		}
	}
	if maybe("version") {
		g.version = MetadataVersion(rapid.Int32().Draw(t, "version"))
	}
	if maybe("private") || maybe("private again") {
		g.private = rapid.MapOfN(keys, values(3), 0, 4).Draw(t, "private")
	}
	if maybe("user") {
		g.user = User{SAMSExternalID: text("sams"), UserID: rapid.Int64().Draw(t, "user")}
	}
	if maybe("client") {
		g.client = Client{Name: text("client")}
	}
	if maybe("interaction") {
		g.interaction = Interaction{InteractionID: text("interaction"), CountryCode: "IN"}
	}
	if maybe("billing") {
		g.billing = Billing{Category: text("billing")}
	}
	if maybe("flags") {
		g.flags = rapid.MapOfN(keys, texts, 0, 4).Draw(t, "flags")
	}
	if maybe("marketing") {
		g.marketing = Marketing{URL: text("url")}
	}
	return g
}

// worker returns a decoder like the worker's.
func worker(t testing.TB) *event.Decoder {
	t.Helper()
	services, err := policy.NewSet(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return event.NewDecoder(services, "prod")
}

// TestSameAsWorker proves both directions. The worker accepts each event that the recorder
// accepts, with the given content. And if the recorder refuses an event, the worker would
// reject every encoding of it, or JSON cannot represent it.
func TestSameAsWorker(t *testing.T) {
	decoder := worker(t)
	var data []byte
	k := newTaken(t)
	let, refused, strips := 0, 0, uint64(0)
	rapid.Check(t, func(t *rapid.T) {
		g := drawGiven(t)
		k.data = nil
		err := k.Record(context.Background(), DynamicFeature(string(g.feature)), DynamicAction(string(g.action)), g.options()...)
		if len(k.data) > 0 {
			data = k.data[0]
		}
		if (err == nil) != (len(k.data) == 1) {
			t.Fatalf("%v, and %d were recorded", err, len(k.data))
		}
		other, jsonErr := g.naive()
		if now := k.Stats().Stripped; now != strips {
			// Only the private metadata is at fault.
			strips = now
			if jsonErr == nil {
				if _, rejection := decoder.Decode(event.Message{Data: other, Attributes: k.validator.attributes}); rejection == nil {
					t.Fatalf("left out private metadata, and the worker takes %s", other)
				}
			}
			g.private = nil
			g.metadata = maps.Clone(g.metadata)
			if g.metadata == nil {
				g.metadata = Metadata{}
			}
			g.metadata[policy.ErrorKey] = 1
			other, jsonErr = g.naive()
		}
		if err != nil {
			refused++
			if _, ok := errors.AsType[*InvalidError](err); !ok {
				t.Fatalf("an error of another kind: %v", err)
			}
			if jsonErr == nil {
				if _, rejection := decoder.Decode(event.Message{Data: other, Attributes: k.validator.attributes}); rejection == nil {
					t.Fatalf("refused (%v), and the worker takes %s", err, other)
				}
			}
			return
		}
		let++
		got, rejection := decoder.Decode(event.Message{Data: data, Attributes: k.validator.attributes})
		if rejection != nil {
			t.Fatalf("let through, and the worker rejects %s: %v", data, rejection)
		}
		if jsonErr != nil {
			t.Fatalf("let through what JSON cannot say: %v", jsonErr)
		}
		g.compare(t, got.Wire)
	})
	if let < 20 || refused < 20 || strips < 3 {
		t.Errorf("let through %d, refused %d, left out private metadata of %d: not much of a test", let, refused, strips)
	}
}

// compare compares the event that the gateway gets with the given one.
func (g given) compare(t *rapid.T, wire []byte) {
	var got gateway.Event
	if err := proto.Unmarshal(wire, &got); err != nil {
		t.Fatal(err)
	}
	optional := func(s string) *string {
		if s == "" {
			return nil
		}
		s = validUTF8(s)
		return &s
	}
	metadata, flags := map[string]float64{}, map[string]string{}
	for key, number := range g.metadata {
		metadata[validUTF8(string(key))] = number
	}
	for key, value := range g.flags {
		flags[validUTF8(key)] = validUTF8(value)
	}
	want := &gateway.Event{
		Id: string(g.id), Timestamp: timestamppb.New(g.timestamp), Feature: string(g.feature), Action: string(g.action),
		Source:     &gateway.EventSource{Server: &gateway.EventSource_Server{Version: "1.2.3"}},
		Parameters: &gateway.EventParameters{Version: int32(g.version), Metadata: metadata},
	}
	if g.private != nil {
		var tree map[string]any
		text, err := json.Marshal(g.private)
		if err == nil {
			err = json.Unmarshal(text, &tree)
		}
		if err != nil {
			t.Fatal(err)
		}
		if want.Parameters.PrivateMetadata, err = structpb.NewStruct(tree); err != nil {
			t.Fatal(err)
		}
	}
	if g.user != (User{}) {
		want.User = &gateway.EventUser{SamsExternalId: optional(g.user.SAMSExternalID)}
		if g.user.UserID != 0 {
			want.User.UserId = &g.user.UserID
		}
	}
	if g.client != (Client{}) {
		want.Source.Client = &gateway.EventSource_Client{Name: validUTF8(g.client.Name)}
	}
	if g.interaction != (Interaction{}) {
		want.Interaction = &gateway.EventInteraction{
			InteractionId: optional(g.interaction.InteractionID),
			Geolocation:   &gateway.EventInteraction_Geolocation{CountryCode: g.interaction.CountryCode},
		}
	}
	if g.billing != (Billing{}) {
		want.Parameters.BillingMetadata = &gateway.EventBillingMetadata{Category: validUTF8(g.billing.Category)}
	}
	if g.flags != nil {
		want.FeatureFlags = &gateway.EventFeatureFlags{Flags: flags}
	}
	if g.marketing != (Marketing{}) {
		want.MarketingTracking = &gateway.EventMarketingTracking{Url: optional(g.marketing.URL)}
	}
	if !proto.Equal(want, &got) {
		t.Fatalf("the gateway gets another event:\n%s", cmp.Diff(want.String(), got.String()))
	}
}

// TestStringsRenderLikeEncodingJSON compares the encoding of strings with encoding/json.
func TestStringsRenderLikeEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(texts, rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "s")
		d := &draft{}
		d.text(s)
		if !utf8.Valid(d.buf) {
			t.Fatalf("%q became %q", s, d.buf)
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var got, want string
		if err := errors.Join(json.Unmarshal(d.buf, &got), json.Unmarshal(text, &want)); err != nil || got != want {
			t.Fatalf("%q became %s: %v", s, d.buf, err)
		}
		if bytes.ContainsAny(d.buf, "\n\r") {
			t.Fatalf("%q has a line break", d.buf)
		}
	})
}
