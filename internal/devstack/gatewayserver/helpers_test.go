package gatewayserver

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	request  = telemetrygatewayv1.RecordEventsRequest
	response = telemetrygatewayv1.RecordEventsResponse
	header   = telemetrygatewayv1.RecordEventsRequestMetadata
	stream   = telemetrygatewayv1.TelemeteryGatewayService_RecordEventsClient
)

// tokens is an Introspector of fixed tokens and their scopes; nil scopes are
// those of an inactive token.
type tokens map[string][]string

func (t tokens) Introspect(token string) (bool, []string, string) {
	return t[token] != nil, t[token], "client"
}

var testTokens = tokens{"good": {"a::b::read", RequiredScope}, "narrow": {"a::b::read"}, "revoked": nil}

// fixture is a server and a client with the token "good".
type fixture struct {
	*Server
	t      testing.TB
	ctx    context.Context
	client telemetrygatewayv1.TelemeteryGatewayServiceClient
}

func newFixture(t testing.TB, opts Options) *fixture {
	t.Helper()
	return newFixtureWith(t, opts, insecure.NewCredentials())
}

func newFixtureWith(t testing.TB, opts Options, creds credentials.TransportCredentials) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	if opts.Introspector == nil {
		opts.Introspector = testTokens
	}
	s, err := Start(ctx, opts)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(creds))
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	return &fixture{
		Server: s, t: t, ctx: withToken(ctx, "Bearer good"),
		client: telemetrygatewayv1.NewTelemeteryGatewayServiceClient(conn),
	}
}

func withToken(ctx context.Context, authorization string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", authorization))
}

func managed(service, environment string) *header {
	return &header{RequestId: "request", Identifier: &telemetrygatewayv1.Identifier{
		Identifier: &telemetrygatewayv1.Identifier_ManagedService{
			ManagedService: &telemetrygatewayv1.Identifier_ManagedServiceIdentifier{ServiceId: service, ServiceEnvironment: &environment},
		},
	}}
}

func metadataRequest(h *header) *request {
	return &request{Payload: &telemetrygatewayv1.RecordEventsRequest_Metadata{Metadata: h}}
}

func eventsRequest(events ...*Event) *request {
	return &request{Payload: &telemetrygatewayv1.RecordEventsRequest_Events{
		Events: &telemetrygatewayv1.RecordEventsRequest_EventsPayload{Events: events},
	}}
}

func event(id string) *Event {
	return &Event{Id: id, Feature: "cody.chat", Action: "open", Timestamp: timestamppb.Now()}
}

func events(ids ...string) []*Event {
	es := make([]*Event, len(ids))
	for i, id := range ids {
		es[i] = event(id)
	}
	return es
}

// open opens a stream and sends the requests.
func (f *fixture) open(ctx context.Context, requests ...*request) stream {
	f.t.Helper()
	s, err := f.tryOpen(ctx, requests...)
	must(f.t, err)
	return s
}

// tryOpen is open where the server may be unavailable: a client that already knows it
// fails here, another only when it receives.
func (f *fixture) tryOpen(ctx context.Context, requests ...*request) (stream, error) {
	f.t.Helper()
	s, err := f.client.RecordEvents(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range requests {
		// EOF says that the server has ended the stream; receiving says why.
		if err := s.Send(r); err != nil && !errors.Is(err, io.EOF) {
			f.t.Fatal(err)
		}
	}
	return s, nil
}

// exchange sends the requests and returns all responses and the stream's end,
// nil being OK.
func (f *fixture) exchange(ctx context.Context, requests ...*request) ([]*response, error) {
	f.t.Helper()
	s, err := f.tryOpen(ctx, requests...)
	if err != nil {
		return nil, err
	}
	must(f.t, s.CloseSend())
	var all []*response
	for {
		resp, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, resp)
	}
}

// record sends one payload as one service and returns what was reported.
func (f *fixture) record(es ...*Event) ([]string, error) {
	f.t.Helper()
	all, err := f.exchange(f.ctx, metadataRequest(managed("svc", "dev")), eventsRequest(es...))
	if len(all) == 0 {
		return nil, err
	}
	return all[0].GetSucceededEvents(), err
}

func (f *fixture) recordedIDs() []string {
	var ids []string
	for _, r := range f.Recorded() {
		ids = append(ids, r.Event.GetId())
	}
	return ids
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("code %v (%v), want %v", got, err, want)
	}
}

func wantIDs(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
