package gatewayserver

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

func TestRecordEvents(t *testing.T) {
	f := newFixture(t, Options{})
	all, err := f.exchange(f.ctx,
		&request{}, metadataRequest(managed("svc", "dev")), &request{},
		eventsRequest(events("1", "2")...), eventsRequest(), &request{}, eventsRequest(events("3", "1")...))
	must(t, err)
	if len(all) != 3 {
		t.Fatalf("%d responses", len(all))
	}
	wantIDs(t, "the first", all[0].GetSucceededEvents(), "1", "2")
	wantIDs(t, "the second", all[1].GetSucceededEvents())
	wantIDs(t, "the third", all[2].GetSucceededEvents(), "3", "1")
	wantIDs(t, "recorded", f.recordedIDs(), "1", "2", "3", "1")
	if r := f.Recorded()[2]; r.Identity != (Identity{"svc", "dev"}) || r.RequestID != "request" || r.StreamID != 1 {
		t.Errorf("%+v", r)
	}
	_, err = f.exchange(f.ctx, metadataRequest(managed("other", "")), eventsRequest(event("4")))
	must(t, err)
	stats := f.Stats()
	if want := (Counts{Streams: 2, Payloads: 4, Received: 5, Recorded: 5}); stats.Counts != want || stats.RPCs != 2 || stats.Open != 0 {
		t.Errorf("stats %+v", stats)
	}
	if want := (Counts{Streams: 1, Payloads: 1, Received: 1, Recorded: 1}); stats.ByIdentity[Identity{ServiceID: "other"}] != want {
		t.Errorf("stats %+v", stats)
	}
	f.Forget()
	if len(f.Recorded()) != 0 || f.Stats().Recorded != 5 {
		t.Error("forgets the wrong things")
	}
}

func TestAProbeRecordsNothing(t *testing.T) {
	f := newFixture(t, Options{})
	all, err := f.exchange(f.ctx, metadataRequest(managed("svc", "dev")))
	must(t, err)
	if len(all) != 0 || f.Stats().Streams != 1 {
		t.Errorf("%v, %+v", all, f.Stats())
	}
	_, err = f.exchange(f.ctx)
	must(t, err)
}

func TestMetadataComesFirst(t *testing.T) {
	f := newFixture(t, Options{})
	good := metadataRequest(managed("svc", "dev"))
	for name, requests := range map[string][]*request{
		"events first":      {eventsRequest(event("1")), good},
		"twice":             {good, eventsRequest(event("1")), good},
		"no service id":     {metadataRequest(managed("", "dev"))},
		"no identifier":     {metadataRequest(&header{})},
		"an empty one":      {metadataRequest(nil)},
		"a licensed client": {metadataRequest(&header{Identifier: &telemetrygatewayv1.Identifier{Identifier: &telemetrygatewayv1.Identifier_LicensedInstance{}}})},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.exchange(f.ctx, requests...)
			wantCode(t, err, codes.InvalidArgument)
		})
	}
}

func TestTokensAreChecked(t *testing.T) {
	f := newFixture(t, Options{})
	for authorization, want := range map[string]codes.Code{
		"Bearer good":       codes.OK,
		"Bearer narrow":     codes.PermissionDenied,
		"Bearer revoked":    codes.PermissionDenied,
		"Bearer unknown":    codes.PermissionDenied,
		"Bearer ":           codes.Unauthenticated,
		"Bearer":            codes.Unauthenticated,
		"Basic Z29vZDpnb29": codes.Unauthenticated,
		"good":              codes.Unauthenticated,
		"":                  codes.Unauthenticated,
	} {
		t.Run(authorization, func(t *testing.T) {
			ctx := withToken(f.ctx, authorization)
			_, err := f.exchange(ctx, metadataRequest(managed("svc", "dev")))
			wantCode(t, err, want)
			_, err = f.client.RecordEvent(ctx, &telemetrygatewayv1.RecordEventRequest{Metadata: managed("svc", "dev"), Event: event("1")})
			wantCode(t, err, want)
		})
	}
	without, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := f.exchange(without, metadataRequest(managed("svc", "dev")))
	wantCode(t, err, codes.Unauthenticated)
	twice := metadata.NewOutgoingContext(without, metadata.Pairs("authorization", "Bearer good", "authorization", "Bearer good"))
	_, err = f.exchange(twice, metadataRequest(managed("svc", "dev")))
	wantCode(t, err, codes.Unauthenticated)
	if got := f.Stats(); got.Streams != 2 || got.Refused != 18 {
		t.Errorf("%+v", got)
	}
}

func TestAnyTokenWithoutIntrospector(t *testing.T) {
	f := newFixture(t, Options{})
	f.opts.Introspector = nil
	_, err := f.exchange(withToken(f.ctx, "Bearer whatever"), metadataRequest(managed("svc", "dev")))
	must(t, err)
	_, err = f.exchange(withToken(f.ctx, "whatever"), metadataRequest(managed("svc", "dev")))
	wantCode(t, err, codes.Unauthenticated)
}

func TestNamesAreChecked(t *testing.T) {
	for name, want := range map[string]bool{
		"cody.chat-question": true, "validFeature.foobar": true, "ab": true, "a.": true, "a-": true, strings.Repeat("a", 64): true,
		"": false, "a": false, "Invalid": false, "with_underscore": false, "v2": false, "a b": false, "aé": false, "a\n": false,
		".a": false, "-a": false, strings.Repeat("a", 65): false,
	} {
		if validName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func withPrivate(id string, v *structpb.Value) *Event {
	e := event(id)
	e.Parameters = &telemetrygatewayv1.EventParameters{PrivateMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{
		"k": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"k": v}})}}),
	}}}
	return e
}

func TestPermanentCauses(t *testing.T) {
	f := newFixture(t, Options{})
	change := func(id string, change func(*Event)) *Event {
		e := event(id)
		change(e)
		return e
	}
	infinite := event("infinite metadata")
	infinite.Parameters = &telemetrygatewayv1.EventParameters{Metadata: map[string]float64{"n": math.Inf(1)}}
	all := []*Event{
		event(""),
		change("feature", func(e *Event) { e.Feature = "Invalid" }),
		change("action", func(e *Event) { e.Action = "a" }),
		change("no timestamp", func(e *Event) { e.Timestamp = nil }),
		change("late", func(e *Event) { e.Timestamp = &timestamppb.Timestamp{Seconds: 253402300800} }),
		change("nanos", func(e *Event) { e.Timestamp = &timestamppb.Timestamp{Nanos: -1} }),
		withPrivate("not a number", structpb.NewNumberValue(math.NaN())),
		withPrivate("infinite", structpb.NewNumberValue(math.Inf(-1))),
		withPrivate("no kind", &structpb.Value{}),
		infinite, // protojson has a text for it
		withPrivate("null", structpb.NewNullValue()),
		event("plain"),
	}
	got, err := f.record(all...)
	must(t, err)
	wantIDs(t, "succeeded", got, "infinite metadata", "null", "plain")
	wantIDs(t, "recorded", f.recordedIDs(), "infinite metadata", "null", "plain")
	if got := f.Stats(); got.Invalid != 9 {
		t.Errorf("%+v", got)
	}
	// The quick judgement is the same as that of rendering.
	for _, e := range all[4:] {
		if _, err := renderedSize(e, json.RawMessage("{}")); (err == nil) != marshallable(e) {
			t.Errorf("%s: %v", e.GetId(), err)
		}
	}
	// Nothing recorded is no error, and the stream goes on.
	responses, err := f.exchange(f.ctx, metadataRequest(managed("svc", "dev")), eventsRequest(all[:9]...), eventsRequest(event("x")))
	must(t, err)
	if len(responses) != 2 || len(responses[0].GetSucceededEvents()) != 0 || len(responses[1].GetSucceededEvents()) != 1 {
		t.Errorf("%v", responses)
	}
}

func TestSilentLoss(t *testing.T) {
	f := newFixture(t, Options{})
	m, err := renderMetadata(managed("svc", "dev"))
	must(t, err)
	// Each "<" is one byte on the wire and six in JSON; an "a" is one in both.
	sized := func(id string, size int) *Event {
		e := withPrivate(id, structpb.NewStringValue(""))
		n, err := renderedSize(e, m)
		must(t, err)
		text := strings.Repeat("<", (size-n)/6) + strings.Repeat("a", (size-n)%6)
		e = proto.CloneOf(e)
		e.Parameters = withPrivate(id, structpb.NewStringValue(text)).GetParameters()
		if got, err := renderedSize(e, m); err != nil || got != size {
			t.Fatalf("rendered %d bytes, %v, want %d", got, err, size)
		}
		return e
	}
	// One protobuf timestamp for all: its text has a varying length.
	for _, test := range []struct {
		id        string
		size      int
		succeeded []string
	}{
		{"fits", MaxPublishedBytes - 1, []string{"fits"}},
		{"refused", MaxPublishedBytes, nil},
		{"refused", MaxRenderedBytes - 1, nil},
		{"lost", MaxRenderedBytes, []string{"lost"}},
	} {
		got, err := f.record(sized(test.id, test.size))
		must(t, err)
		wantIDs(t, "succeeded", got, test.succeeded...)
	}
	wantIDs(t, "recorded", f.recordedIDs(), "fits")
	if f.SilentlyLost() != 1 {
		t.Errorf("%d lost", f.SilentlyLost())
	}
}

// TestQuickSizeIsAnUpperBound: no event may be rendered larger than the estimate
// that spares the rendering.
func TestQuickSizeIsAnUpperBound(t *testing.T) {
	nested := structpb.NewNullValue()
	for range 500 {
		nested = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{nested, structpb.NewBoolValue(false), structpb.NewListValue(nil)}})
	}
	rich := withPrivate("\u2028<>&\x00", nested)
	rich.Feature, rich.Action = strings.Repeat("a", 64), strings.Repeat("b", 64)
	rich.Parameters.Version = math.MinInt32
	rich.Parameters.Metadata = map[string]float64{"": -math.MaxFloat64, "<": 1e-300, "n": math.Inf(-1)}
	rich.Parameters.BillingMetadata = &telemetrygatewayv1.EventBillingMetadata{}
	rich.Source = &telemetrygatewayv1.EventSource{Server: &telemetrygatewayv1.EventSource_Server{}, Client: &telemetrygatewayv1.EventSource_Client{}}
	rich.User = &telemetrygatewayv1.EventUser{UserId: new(int64(-1)), AnonymousUserId: new(""), SamsExternalId: new("")}
	rich.FeatureFlags = &telemetrygatewayv1.EventFeatureFlags{Flags: map[string]string{"": "", "<": ">"}}
	empty := new("")
	rich.MarketingTracking = &telemetrygatewayv1.EventMarketingTracking{
		Url: empty, FirstSourceUrl: empty, CohortId: empty, Referrer: empty, LastSourceUrl: empty, DeviceSessionId: empty, SessionReferrer: empty, SessionFirstUrl: empty,
	}
	rich.Interaction = &telemetrygatewayv1.EventInteraction{TraceId: empty, InteractionId: empty, Geolocation: &telemetrygatewayv1.EventInteraction_Geolocation{}}
	numbers := make([]*structpb.Value, 1000)
	for i := range numbers {
		numbers[i] = structpb.NewNumberValue(-1.2345678901234567e-300)
	}
	for _, e := range []*Event{
		event("x"), rich,
		withPrivate("x", structpb.NewListValue(&structpb.ListValue{Values: numbers})),
		withPrivate("x", structpb.NewStringValue(strings.Repeat("\u0001", 1000))),
		withPrivate("x", structpb.NewListValue(&structpb.ListValue{Values: slices.Repeat([]*structpb.Value{structpb.NewNullValue()}, 1000)})),
		withPrivate("x", structpb.NewListValue(&structpb.ListValue{Values: slices.Repeat([]*structpb.Value{structpb.NewBoolValue(false)}, 1000)})),
	} {
		size, err := renderedSize(e, json.RawMessage("{}"))
		must(t, err)
		if bound := 6*proto.Size(e) + renderSlack; size > bound {
			t.Errorf("rendered %d bytes, bound %d", size, bound)
		}
	}
}

func TestRequestSizes(t *testing.T) {
	f := newFixture(t, Options{})
	_, err := f.record(withPrivate("x", structpb.NewStringValue(strings.Repeat("x", MaxRequestBytes-200))))
	must(t, err)
	_, err = f.record(withPrivate("x", structpb.NewStringValue(strings.Repeat("x", MaxRequestBytes))))
	wantCode(t, err, codes.ResourceExhausted)
}

func TestRecordEvent(t *testing.T) {
	f := newFixture(t, Options{})
	record := func(h *header, e *Event) error {
		_, err := f.client.RecordEvent(f.ctx, &telemetrygatewayv1.RecordEventRequest{Metadata: h, Event: e})
		return err
	}
	must(t, record(managed("svc", "dev"), event("1")))
	wantCode(t, record(managed("", "dev"), event("2")), codes.InvalidArgument)
	wantCode(t, record(nil, event("2")), codes.InvalidArgument)
	wantCode(t, record(managed("svc", "dev"), nil), codes.InvalidArgument)
	wantCode(t, record(managed("svc", "dev"), event("")), codes.Internal)
	f.SetOnPayload(func(info StreamInfo, es []*Event) Fault {
		return Fault{OmitAll: info.Method == "RecordEvent" && len(es) == 1}
	})
	wantCode(t, record(managed("svc", "dev"), event("2")), codes.Internal)
	wantIDs(t, "recorded", f.recordedIDs(), "1")
}

func TestDiscardAndOnRecord(t *testing.T) {
	var seen []string
	f := newFixture(t, Options{Discard: true, OnRecord: func(r Record) { seen = append(seen, r.Event.GetId()) }})
	_, err := f.record(events("1", "2")...)
	must(t, err)
	must(t, f.Close())
	wantIDs(t, "seen", seen, "1", "2")
	if len(f.Recorded()) != 0 || f.Stats().Recorded != 2 {
		t.Errorf("%+v", f.Stats())
	}
}

func TestOtherContentTypesAreRefused(t *testing.T) {
	f := newFixture(t, Options{})
	_, err := f.client.RecordEvent(f.ctx, &telemetrygatewayv1.RecordEventRequest{
		Metadata: managed("svc", "dev"), Event: event("1"),
	}, grpc.CallContentSubtype("proto"))
	wantCode(t, err, codes.Unimplemented)
	if got := f.Stats(); got.RPCs != 0 {
		t.Errorf("stats %+v", got)
	}
}

// TestPublishLimits has events whose message Pub/Sub refuses, with everything that
// travels in its request.
func TestPublishLimits(t *testing.T) {
	with := func(id string, keys int, bytes int, value float64) *Event {
		e := event(id)
		e.Parameters = &telemetrygatewayv1.EventParameters{Metadata: map[string]float64{}}
		for i := range keys {
			key := fmt.Sprintf("%s%02d", AttributePrefix, i)
			e.Parameters.Metadata[key+strings.Repeat("k", max(0, bytes-len(key)))] = value
		}
		return e
	}
	for name, test := range map[string]struct {
		bad       *Event
		succeeded []string
	}{
		"longest key":     {with("2", 1, 250, 1), []string{"1", "2", "3"}},
		"too long":        {with("2", 1, 251, 1), nil},
		"too long, but 0": {with("2", 1, 251, 0), []string{"1", "2", "3"}},
		"most keys":       {with("2", 96, 0, 1), []string{"1", "2", "3"}},
		"too many":        {with("2", 97, 0, 1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Options{})
			got, err := f.record(event("1"), test.bad, event("3"))
			must(t, err)
			wantIDs(t, "succeeded", got, test.succeeded...)
			wantIDs(t, "recorded", f.recordedIDs(), test.succeeded...)
			if got := f.Stats(); got.Unpublished != 3-len(test.succeeded) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestBundlesMixStreams has an event that Pub/Sub refuses in one stream, and a
// healthy one in another, at the same time.
func TestBundlesMixStreams(t *testing.T) {
	f := newFixture(t, Options{})
	together := make(chan []string, 2)
	f.SetLose(func(ids []string) bool {
		together <- ids
		return false
	})
	bad := event("bad")
	bad.Parameters = &telemetrygatewayv1.EventParameters{Metadata: map[string]float64{AttributePrefix + strings.Repeat("k", 250): 1}}
	for range 20 { // until they meet
		var streams sync.WaitGroup
		var got []string
		streams.Go(func() { _, _ = f.record(bad) })
		streams.Go(func() { got, _ = f.record(event("healthy")) })
		streams.Wait()
		if len(<-together) == 2 {
			if len(got) != 0 {
				t.Errorf("recorded %v", got)
			}
			return
		}
		<-together
	}
	t.Error("they never met")
}
