package submit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

var (
	self      = event.Publisher{ServiceID: "telemetry-relay", Environment: "test"}
	publisher = event.Publisher{ServiceID: "cody-gateway", Environment: "prod"}
)

type fixture struct {
	*Client
	t       *testing.T
	sams    *samsserver.Server
	gateway *gatewayserver.Server

	mu      sync.Mutex
	streams []gatewayserver.StreamInfo // in the order of their metadata
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t}
	var err error
	if f.sams, err = samsserver.Start(t.Context(), samsserver.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.sams.Close() })
	if f.gateway, err = gatewayserver.Start(t.Context(), gatewayserver.Options{Introspector: f.sams}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.gateway.Close() })
	f.Client = f.client(f.gateway.URL(), 10*time.Second)
	f.onStream(func(gatewayserver.StreamInfo) error { return nil })
	return f
}

func (f *fixture) client(url string, timeout time.Duration) *Client {
	f.t.Helper()
	return f.clientOf(Options{URL: url, Timeout: timeout})
}

// clientOf returns a client with tokens and an identity.
func (f *fixture) clientOf(opts Options) *Client {
	f.t.Helper()
	tokens := newTokens(f.t, TokenOptions{
		URL: f.sams.URL() + "/oauth/token", ClientID: f.sams.ClientID(), ClientSecret: f.sams.ClientSecret(),
	})
	opts.Tokens, opts.Self = tokens, self
	c, err := NewClient(opts)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// onStream decides about streams by their metadata.
func (f *fixture) onStream(decide func(gatewayserver.StreamInfo) error) {
	f.gateway.SetOnStream(func(info gatewayserver.StreamInfo) gatewayserver.Fault {
		f.mu.Lock()
		f.streams = append(f.streams, info)
		f.mu.Unlock()
		return gatewayserver.Fault{Err: decide(info)}
	})
}

func (f *fixture) onPayload(fault gatewayserver.Fault) {
	f.gateway.SetOnPayload(func(gatewayserver.StreamInfo, []*gatewayserver.Event) gatewayserver.Fault { return fault })
}

// wantStreams compares the streams since the last call, by service.
func (f *fixture) wantStreams(want ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var got []string
	for _, s := range f.streams {
		got = append(got, s.Identity.ServiceID)
	}
	f.streams = nil
	if !slices.Equal(got, want) {
		f.t.Errorf("streams of %v, want %v", got, want)
	}
}

func batchOf(t *testing.T, n int) Batch {
	t.Helper()
	return Batch{RequestID: "request", Publisher: publisher, Events: encoded(t, gatewayEvents(n, 10))}
}

func (f *fixture) wantFailure(got Result, class Class, code codes.Code) {
	f.t.Helper()
	if got.Failure == nil || got.Failure.Class != class || got.Code() != code {
		f.t.Errorf("got %+v (%v), want %v and %v", got, got.Failure, class, code)
	}
}

func TestBatchIsRecorded(t *testing.T) {
	f := newFixture(t)
	all := gatewayEvents(1000, 100)
	b := Batch{RequestID: "request-1", Publisher: publisher, Events: encoded(t, all)}
	r := f.Submit(t.Context(), b)
	if r.Failure != nil || r.Code() != codes.OK || r.Took <= 0 || len(r.Listed) != 1000 || slices.Contains(r.Listed, false) {
		t.Fatalf("%+v", r)
	}
	records := f.gateway.Recorded()
	if len(records) != len(all) {
		t.Fatalf("%d records", len(records))
	}
	for i, r := range records {
		if r.Identity != (gatewayserver.Identity{ServiceID: "cody-gateway", Environment: "prod"}) || r.RequestID != "request-1" {
			t.Fatalf("recorded as %+v in %s", r.Identity, r.RequestID)
		}
		if diff := cmp.Diff(all[i], r.Event, protocmp.Transform()); diff != "" {
			t.Fatal(diff)
		}
	}
	if got := f.gateway.Stats(); got.Streams != 1 || got.Payloads != 1 {
		t.Errorf("%+v", got)
	}
	if got := f.sams.Stats().TokenRequests; got != 1 {
		t.Errorf("%d requests for a token", got)
	}

	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if r := f.Submit(t.Context(), batchOf(t, 10)); r.Failure != nil {
				t.Error(r.Failure)
			}
		})
	}
	wait.Wait()
}

func TestOmittedEventsAreNotListed(t *testing.T) {
	f := newFixture(t)
	b := batchOf(t, 5)
	f.onPayload(gatewayserver.Fault{Omit: []string{string(b.Events[0].ID()), string(b.Events[3].ID())}})
	if r := f.Submit(t.Context(), b); r.Failure != nil || !slices.Equal(r.Listed, []bool{false, true, true, false, true}) {
		t.Errorf("%+v", r)
	}
	f.onPayload(gatewayserver.Fault{OmitAll: true})
	if r := f.Submit(t.Context(), b); r.Failure != nil || !slices.Equal(r.Listed, make([]bool, 5)) {
		t.Errorf("%+v", r)
	}
}

func TestCutStreamKeepsAnswer(t *testing.T) {
	for phase, answered := range map[gatewayserver.Phase]bool{
		gatewayserver.BeforeRecording:  false,
		gatewayserver.BeforeResponding: false,
		gatewayserver.AfterResponding:  true,
	} {
		f := newFixture(t)
		f.onPayload(gatewayserver.Fault{Err: status.Error(codes.Unavailable, "cut"), Phase: phase})
		r := f.Submit(t.Context(), batchOf(t, 2))
		f.wantFailure(r, Transient, codes.Unavailable)
		if (r.Listed != nil) != answered || slices.Contains(r.Listed, false) {
			t.Errorf("phase %d: listed %v", phase, r.Listed)
		}
	}
}

func TestRefusedToken(t *testing.T) {
	t.Run("is replaced", func(t *testing.T) {
		f := newFixture(t)
		if err := f.Probe(t.Context(), "probe"); err != nil {
			t.Fatal(err)
		}
		f.sams.RevokeAll()
		if r := f.Submit(t.Context(), batchOf(t, 3)); r.Failure != nil {
			t.Error(r.Failure)
		}
		f.wantStreams("telemetry-relay", "cody-gateway", "cody-gateway")
		if got := f.sams.Stats().TokensIssued; got != 2 {
			t.Errorf("%d tokens", got)
		}
	})
	for _, code := range []codes.Code{codes.PermissionDenied, codes.Unauthenticated} {
		t.Run("only once: "+code.String(), func(t *testing.T) {
			f := newFixture(t)
			f.onStream(func(gatewayserver.StreamInfo) error { return status.Error(code, "no") })
			f.wantFailure(f.Submit(t.Context(), batchOf(t, 3)), Credentials, code)
			f.wantStreams("cody-gateway", "cody-gateway")
			if got := f.sams.Stats().TokensIssued; got != 2 {
				t.Errorf("%d tokens", got)
			}
		})
	}
	t.Run("not after an answer", func(t *testing.T) {
		f := newFixture(t)
		f.onPayload(gatewayserver.Fault{Err: status.Error(codes.PermissionDenied, "no"), Phase: gatewayserver.AfterResponding})
		r := f.Submit(t.Context(), batchOf(t, 2))
		f.wantFailure(r, Credentials, codes.PermissionDenied)
		if !slices.Equal(r.Listed, []bool{true, true}) || f.gateway.Stats().Recorded != 2 {
			t.Errorf("listed %v, %d recorded", r.Listed, f.gateway.Stats().Recorded)
		}
	})
	t.Run("by SAMS", func(t *testing.T) {
		f := newFixture(t)
		f.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
			return http.StatusUnauthorized, `{"error":"invalid_client"}`, 0, true
		})
		r := f.Submit(t.Context(), batchOf(t, 2))
		f.wantFailure(r, Credentials, codes.Unauthenticated)
		if _, ok := errors.AsType[*CredentialsError](r.Failure); !ok {
			t.Errorf("got %v", r.Failure)
		}
		f.wantStreams()
	})
	t.Run("SAMS is down", func(t *testing.T) {
		f := newFixture(t)
		f.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) { return http.StatusBadGateway, "", 0, true })
		f.wantFailure(f.Submit(t.Context(), batchOf(t, 2)), SAMS, codes.Unavailable)
		f.wantStreams()
	})
}

func TestCodesHaveClasses(t *testing.T) {
	want := map[codes.Code]Class{
		codes.Unauthenticated: Credentials, codes.PermissionDenied: Credentials,
		codes.InvalidArgument: BatchRefused, codes.FailedPrecondition: BatchRefused, codes.OutOfRange: BatchRefused,
		codes.Unimplemented: Fatal,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		f := classify(status.Error(code, "text"))
		if f.Class != want[code] || f.Code != code || f.RetryAfter != 0 || f.Error() != code.String() || !strings.Contains(f.Unwrap().Error(), "text") {
			t.Errorf("%v: got %+v, want %v", code, f, want[code])
		}
	}
	if f := classify(errors.New("text")); f.Class != Transient || f.Code != codes.Unknown {
		t.Errorf("got %+v", f)
	}
	for _, code := range []codes.Code{17, 1002, 1 << 31} {
		if f := classify(status.Error(code, "text")); f.Class != Transient || f.Code != codes.Unknown || f.Error() != "Unknown" {
			t.Errorf("%v: got %+v", code, f)
		}
	}
	for delay, want := range map[time.Duration]time.Duration{7 * time.Second: 7 * time.Second, -time.Second: 0, 24 * time.Hour: 5 * time.Minute} {
		f := classify(gatewayserver.RetryAfter(codes.ResourceExhausted, "later", delay))
		if f.Class != Transient || f.RetryAfter != want {
			t.Errorf("%v: got %+v", delay, f)
		}
	}
	for class := Transient; class <= Fatal; class++ {
		if class.String() == "" {
			t.Errorf("%d has no name", class)
		}
	}
}

func TestRefusalIsAttributed(t *testing.T) {
	refuse := status.Error(codes.InvalidArgument, "no")
	down := status.Error(codes.Unavailable, "down")
	by := func(errs map[string]error) func(gatewayserver.StreamInfo) error {
		return func(info gatewayserver.StreamInfo) error { return errs[info.Identity.ServiceID] }
	}
	t.Run("the events are refused", func(t *testing.T) {
		f := newFixture(t)
		f.onPayload(gatewayserver.Fault{Err: refuse})
		f.wantFailure(f.Submit(t.Context(), batchOf(t, 2)), BatchRefused, codes.InvalidArgument)
		f.wantStreams("cody-gateway", "cody-gateway")
	})
	t.Run("the identity is refused", func(t *testing.T) {
		f := newFixture(t)
		f.onStream(by(map[string]error{"cody-gateway": refuse}))
		f.wantFailure(f.Submit(t.Context(), batchOf(t, 2)), IdentityRefused, codes.InvalidArgument)
		f.wantStreams("cody-gateway", "cody-gateway", "telemetry-relay")
	})
	t.Run("the identity is refused without events", func(t *testing.T) {
		f := newFixture(t)
		f.onStream(by(map[string]error{"cody-gateway": refuse}))
		f.wantFailure(f.Submit(t.Context(), Batch{Publisher: publisher}), IdentityRefused, codes.InvalidArgument)
		f.wantStreams("cody-gateway", "telemetry-relay")
	})
	t.Run("every identity is refused", func(t *testing.T) {
		f := newFixture(t)
		f.onStream(func(gatewayserver.StreamInfo) error { return refuse })
		f.wantFailure(f.Submit(t.Context(), batchOf(t, 2)), Fatal, codes.InvalidArgument)
		f.wantStreams("cody-gateway", "cody-gateway", "telemetry-relay")
		var failure *Failure
		if err := f.Probe(t.Context(), "probe"); !errors.As(err, &failure) || failure.Class != Fatal {
			t.Errorf("a probe: %v", err)
		}
		f.wantStreams("telemetry-relay")
	})
	t.Run("no verdict while the canary fails", func(t *testing.T) {
		f := newFixture(t)
		f.onPayload(gatewayserver.Fault{Err: refuse})
		first := true
		f.onStream(func(gatewayserver.StreamInfo) error {
			if first {
				first = false
				return nil
			}
			return down
		})
		f.wantFailure(f.Submit(t.Context(), batchOf(t, 2)), Transient, codes.InvalidArgument)
	})
	t.Run("no verdict while the other identity fails", func(t *testing.T) {
		f := newFixture(t)
		f.onStream(by(map[string]error{"cody-gateway": refuse, "telemetry-relay": down}))
		f.wantFailure(f.Submit(t.Context(), batchOf(t, 2)), Transient, codes.InvalidArgument)
	})
	t.Run("a passing fault", func(t *testing.T) {
		f := newFixture(t)
		f.onPayload(gatewayserver.Fault{Err: gatewayserver.RetryAfter(codes.Unavailable, "down", 3*time.Second)})
		b := batchOf(t, 2)
		r := f.Submit(t.Context(), b)
		f.wantFailure(r, Transient, codes.Unavailable)
		if r.Failure.Canary != NoCanary || r.Failure.RetryAfter != 3*time.Second {
			t.Errorf("%+v", r.Failure)
		}
		f.wantStreams("cody-gateway")
		b.Canary = true
		r = f.Submit(t.Context(), b)
		f.wantFailure(r, Transient, codes.Unavailable)
		if r.Failure.Canary != CanaryPassed {
			t.Errorf("%+v", r.Failure)
		}
		f.wantStreams("cody-gateway", "cody-gateway")
		f.gateway.SetDown(true)
		if r = f.Submit(t.Context(), b); r.Failure == nil || r.Failure.Canary != CanaryFailed {
			t.Errorf("%+v", r.Failure)
		}
	})
	t.Run("none when all is well", func(t *testing.T) {
		f := newFixture(t)
		b := batchOf(t, 2)
		b.Canary = true
		if r := f.Submit(t.Context(), b); r.Failure != nil {
			t.Error(r.Failure)
		}
		f.wantStreams("cody-gateway")
	})
}

func TestStreamTimesOut(t *testing.T) {
	f := newFixture(t)
	f.onPayload(gatewayserver.Fault{Hang: true})
	c := f.client(f.gateway.URL(), 50*time.Millisecond)
	f.wantFailure(c.Submit(t.Context(), batchOf(t, 2)), Transient, codes.DeadlineExceeded)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	f.wantFailure(f.Submit(ctx, batchOf(t, 2)), Transient, codes.Canceled)
}

func TestProbeRecordsNothing(t *testing.T) {
	f := newFixture(t)
	if err := f.Probe(t.Context(), "probe-1"); err != nil {
		t.Error(err)
	}
	if got := f.gateway.Stats(); got.Streams != 1 || got.Payloads != 0 || got.Recorded != 0 {
		t.Errorf("%+v", got)
	}
	if s := f.streams[0]; s.RequestID != "probe-1" || s.Identity != (gatewayserver.Identity{ServiceID: "telemetry-relay", Environment: "test"}) {
		t.Errorf("%+v", s)
	}
	f.gateway.SetDown(true)
	var failure *Failure
	if err := f.Probe(t.Context(), "probe-2"); !errors.As(err, &failure) || failure.Class != Transient || failure.Code != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestLargeEventsAreSubmitted(t *testing.T) {
	f := newFixture(t)
	b := Batch{Publisher: publisher, Events: encoded(t, gatewayEvents(1, 9<<20))}
	if r := f.Submit(t.Context(), b); r.Failure != nil || !slices.Equal(r.Listed, []bool{true}) {
		t.Errorf("%+v", r)
	}
	b.Events = encoded(t, gatewayEvents(1, 90<<20))
	f.wantFailure(f.Submit(t.Context(), b), Transient, codes.ResourceExhausted)
}

func TestGatewayReturns(t *testing.T) {
	f := newFixture(t)
	if err := f.Probe(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	f.gateway.Stop()
	f.wantFailure(f.Submit(t.Context(), batchOf(t, 1)), Transient, codes.Unavailable)
	if err := f.gateway.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(reconnectDelay + 3*time.Second)
	for f.Submit(t.Context(), batchOf(t, 1)).Failure != nil {
		if time.Now().After(deadline) {
			t.Fatal("the gateway is back and was not found")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// scripted is a gateway that breaks the contract.
type scripted struct {
	telemetrygatewayv1.UnimplementedTelemeteryGatewayServiceServer
	serve func(telemetrygatewayv1.TelemeteryGatewayService_RecordEventsServer) error
}

func (s scripted) RecordEvents(stream telemetrygatewayv1.TelemeteryGatewayService_RecordEventsServer) error {
	return s.serve(stream)
}

func (f *fixture) scripted(serve func(telemetrygatewayv1.TelemeteryGatewayService_RecordEventsServer) error) *Client {
	f.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	server := grpc.NewServer()
	telemetrygatewayv1.RegisterTelemeteryGatewayServiceServer(server, scripted{serve: serve})
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(listener) })
	f.t.Cleanup(func() { server.Stop(); done.Wait() })
	return f.client("http://"+listener.Addr().String(), 10*time.Second)
}

func TestExchangeFollowsProtocol(t *testing.T) {
	f := newFixture(t)
	t.Run("exactly metadata, payload, end", func(t *testing.T) {
		var requests []*telemetrygatewayv1.RecordEventsRequest
		var headers metadata.MD
		c := f.scripted(func(s telemetrygatewayv1.TelemeteryGatewayService_RecordEventsServer) error {
			headers, _ = metadata.FromIncomingContext(s.Context())
			for {
				r, err := s.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				requests = append(requests, r)
				if events := r.GetEvents().GetEvents(); events != nil {
					err = s.Send(&telemetrygatewayv1.RecordEventsResponse{SucceededEvents: []string{events[1].GetId()}})
				}
				if err != nil {
					return err
				}
			}
		})
		all := gatewayEvents(2, 5)
		r := c.Submit(t.Context(), Batch{RequestID: "r", Publisher: publisher, Events: encoded(t, all)})
		if r.Failure != nil || !slices.Equal(r.Listed, []bool{false, true}) {
			t.Fatalf("%+v", r)
		}
		environment := "prod"
		want := []*telemetrygatewayv1.RecordEventsRequest{
			{Payload: &telemetrygatewayv1.RecordEventsRequest_Metadata{Metadata: &telemetrygatewayv1.RecordEventsRequestMetadata{
				RequestId: "r",
				Identifier: &telemetrygatewayv1.Identifier{Identifier: &telemetrygatewayv1.Identifier_ManagedService{
					ManagedService: &telemetrygatewayv1.Identifier_ManagedServiceIdentifier{
						ServiceId: "cody-gateway", ServiceEnvironment: &environment,
					},
				}},
			}}},
			{Payload: &telemetrygatewayv1.RecordEventsRequest_Events{
				Events: &telemetrygatewayv1.RecordEventsRequest_EventsPayload{Events: all},
			}},
		}
		if diff := cmp.Diff(want, requests, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if got := headers.Get("authorization"); len(got) != 1 || !strings.HasPrefix(got[0], "Bearer sams_at_") {
			t.Errorf("authorization %v", got)
		}
		if got := headers.Get("content-type"); !slices.Contains([]string{"application/grpc", "application/grpc+proto"}, fmt.Sprint(got[0])) {
			t.Errorf("content-type %v", got)
		}
	})
	t.Run("an end without an answer", func(t *testing.T) {
		c := f.scripted(func(s telemetrygatewayv1.TelemeteryGatewayService_RecordEventsServer) error {
			for {
				if _, err := s.Recv(); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
			}
		})
		r := c.Submit(t.Context(), batchOf(t, 1))
		f.wantFailure(r, Transient, codes.Internal)
		if r.Listed != nil {
			t.Errorf("listed %v", r.Listed)
		}
		if err := c.Probe(t.Context(), ""); err != nil {
			t.Errorf("a probe has no answer: %v", err)
		}
	})
	t.Run("an end before anything is read", func(t *testing.T) {
		c := f.scripted(func(telemetrygatewayv1.TelemeteryGatewayService_RecordEventsServer) error { return nil })
		b := Batch{Publisher: publisher, Events: encoded(t, gatewayEvents(3, 1<<20))} // more than a window
		f.wantFailure(c.Submit(t.Context(), b), Transient, codes.Internal)
	})
	t.Run("a reason before anything is read", func(t *testing.T) {
		c := f.scripted(func(telemetrygatewayv1.TelemeteryGatewayService_RecordEventsServer) error {
			return status.Error(codes.ResourceExhausted, "too much")
		})
		b := Batch{Publisher: publisher, Events: encoded(t, gatewayEvents(3, 1<<20))}
		f.wantFailure(c.Submit(t.Context(), b), Transient, codes.ResourceExhausted)
	})
	t.Run("an unknown method", func(t *testing.T) {
		c := f.scripted(func(telemetrygatewayv1.TelemeteryGatewayService_RecordEventsServer) error {
			return status.Error(codes.Unimplemented, "unknown method")
		})
		f.wantFailure(c.Submit(t.Context(), batchOf(t, 1)), Fatal, codes.Unimplemented)
	})
}

func TestTLS(t *testing.T) {
	selfSigned := httptest.NewTLSServer(http.NotFoundHandler())
	config := selfSigned.TLS.Clone()
	selfSigned.Close()
	gateway, err := gatewayserver.Start(t.Context(), gatewayserver.Options{TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gateway.Close() }()
	f := newFixture(t)
	r := f.client(gateway.URL(), 10*time.Second).Submit(t.Context(), batchOf(t, 1))
	f.wantFailure(r, Transient, codes.Unavailable)
	if !strings.Contains(r.Failure.Error(), "certificate") {
		t.Errorf("got %v", r.Failure)
	}
	// Plain text where TLS is expected.
	r = f.client(strings.Replace(f.gateway.URL(), "http:", "https:", 1), 10*time.Second).Submit(t.Context(), batchOf(t, 1))
	f.wantFailure(r, Transient, codes.Unavailable)
	if got := gateway.Stats().RPCs + f.gateway.Stats().RPCs; got != 0 {
		t.Errorf("%d streams in spite of it", got)
	}
}

func TestNewClient(t *testing.T) {
	if _, err := NewClient(Options{URL: "https://bad host"}); err == nil {
		t.Error("takes any URL")
	}
	for url, want := range map[string]string{
		"https://gateway.test":      "dns:///gateway.test:443",
		"https://gateway.test:8443": "dns:///gateway.test:8443",
		"http://localhost":          "dns:///localhost:80",
		"http://[::1]:9":            "dns:///[::1]:9",
	} {
		c, err := dial(url)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.conn.Target(); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
		_ = c.Close()
	}
}

// TestBatchSelectsConnection sends batches over different connections.
func TestBatchSelectsConnection(t *testing.T) {
	f := newFixture(t)
	var mu sync.Mutex
	peers := map[string]bool{}
	f.gateway.SetOnPayload(func(info gatewayserver.StreamInfo, _ []*gatewayserver.Event) gatewayserver.Fault {
		mu.Lock()
		defer mu.Unlock()
		peers[info.Peer] = true
		return gatewayserver.Fault{}
	})
	for streams, want := range map[int]int{8: 3, 512: 11} {
		client := f.clientOf(Options{URL: f.gateway.URL(), Timeout: 10 * time.Second, Streams: streams})
		clear(peers)
		for i := range 2 * want {
			b := Batch{Publisher: publisher, Events: encoded(t, gatewayEvents(1, 10)), Connection: i}
			if r := client.Submit(t.Context(), b); r.Failure != nil {
				t.Fatal(r.Failure)
			}
		}
		if len(peers) != want {
			t.Errorf("%d streams: %d connections, want %d", streams, len(peers), want)
		}
	}
}
