package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// outside is a SAMS, a gateway, and how the worker is set to reach them.
type outside struct {
	sams    *samsserver.Server
	gateway *gatewayserver.Server
	tokens  submit.TokenOptions
	url     string
}

func newOutside(t *testing.T, sams samsserver.Options, gateway gatewayserver.Options) *outside {
	t.Helper()
	s, err := samsserver.Start(t.Context(), sams)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	gateway.Introspector = s
	g, err := gatewayserver.Start(t.Context(), gateway)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return &outside{
		sams: s, gateway: g, url: g.URL(),
		tokens: submit.TokenOptions{URL: s.URL() + "/oauth/token", ClientID: s.ClientID(), ClientSecret: s.ClientSecret()},
	}
}

func (o *outside) check(t *testing.T, patience time.Duration) []Finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tokens := submit.NewTokens(o.tokens)
	defer tokens.Close()
	gateway, err := submit.NewClient(submit.Options{URL: o.url, Timeout: 30 * time.Second, Tokens: tokens, Self: event.Publisher{ServiceID: "telemetry-relay", Environment: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	return Dependencies(ctx, tokens, gateway, Addresses{SAMS: o.tokens.URL, Gateway: o.url})
}

const (
	plainText = "skipped gateway TLS: plain text, as WORKER_INSECURE_DEV allows"
	enough    = 30 * time.Second // for what answers at once
	soon      = 3 * time.Second  // for what never answers; the rest must have by then
)

func TestCheckOutside(t *testing.T) {
	t.Parallel()
	o := newOutside(t, samsserver.Options{}, gatewayserver.Options{})
	wantFindings(t, o.check(t, enough), plainText)
	if n := len(o.gateway.Recorded()); n != 0 {
		t.Errorf("%d events were recorded", n)
	}
}

func TestCheckSAMS(t *testing.T) {
	t.Parallel()
	const noToken = "skipped gateway: there is no token"
	o := newOutside(t, samsserver.Options{}, gatewayserver.Options{})
	o.tokens.ClientSecret = "very-wrong-secret"
	got := o.check(t, enough)
	wantFindings(t, got, "failure SAMS token: SAMS refuses the client (HTTP 401, invalid_client)", "skipped SAMS scope: there is no token", plainText, noToken)
	for _, f := range got {
		if strings.Contains(f.Detail+f.Do, "very-wrong-secret") {
			t.Errorf("the secret is shown: %+v", f)
		}
	}

	o = newOutside(t, samsserver.Options{Scopes: []string{"other::thing::read"}}, gatewayserver.Options{})
	wantFindings(t, o.check(t, enough), "skipped SAMS token: none without the scope", "failure SAMS scope: SAMS refuses the scope telemetry_gateway::events::write", plainText, noToken)

	o = newOutside(t, samsserver.Options{TokenTTL: 20 * time.Second}, gatewayserver.Options{})
	wantFindings(t, o.check(t, enough), "warning SAMS token: received, good for", plainText)

	o = newOutside(t, samsserver.Options{}, gatewayserver.Options{})
	o.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) { return http.StatusBadGateway, "down", 0, true })
	wantFindings(t, o.check(t, soon), "failure SAMS token: none: fetch a token from SAMS: HTTP 502", "skipped SAMS scope: there is no token", plainText, noToken)

	// A grant of less than was asked for.
	o = newOutside(t, samsserver.Options{}, gatewayserver.Options{})
	o.sams.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
		return http.StatusOK, `{"access_token":"sams_at_x","token_type":"Bearer","expires_in":3600,"scope":"other::thing::read"}`, 0, true
	})
	wantFindings(t, o.check(t, enough), `failure SAMS scope: the token has "other::thing::read"`, plainText, "failure gateway: refuses the token")
}

func TestCheckGateway(t *testing.T) {
	t.Parallel()
	o := newOutside(t, samsserver.Options{}, gatewayserver.Options{})
	for code, want := range map[codes.Code]string{
		codes.PermissionDenied: "failure gateway: refuses the token: PermissionDenied: the reason",
		codes.InvalidArgument:  "failure gateway: refuses a stream without events: InvalidArgument",
		codes.Unimplemented:    "failure gateway: is no Telemetry Gateway",
	} {
		o.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
			return gatewayserver.Fault{Err: status.Error(code, "the reason")}
		})
		wantFindings(t, o.check(t, enough), plainText, want)
	}
	o.gateway.SetOnStream(func(gatewayserver.StreamInfo) gatewayserver.Fault {
		return gatewayserver.Fault{Err: status.Error(codes.Unavailable, "the reason")}
	})
	wantFindings(t, o.check(t, soon), plainText, "failure gateway: does not answer: Unavailable: the reason")
	o.url = "https://127.0.0.1:1"
	wantFindings(t, o.check(t, soon), "failure gateway TLS: cannot be connected to: dial tcp 127.0.0.1:1: connect: connection refused", "failure gateway: does not answer")
	o.gateway.SetOnStream(nil)
	o.url = o.sams.URL() // answers, but speaks no gRPC
	wantFindings(t, o.check(t, soon), plainText, "failure gateway: ")
}

// TestCheckTLS has a certificate that this machine does not trust, and one that
// it does.
func TestCheckTLS(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	o := newOutside(t, samsserver.Options{}, gatewayserver.Options{TLS: &tls.Config{Certificates: web.TLS.Certificates, MinVersion: tls.VersionTLS12}})
	wantFindings(t, o.check(t, soon), "failure gateway TLS: tls: failed to verify certificate", "failure gateway: does not answer")

	trusted := &tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{web.Certificate()}}
	got := Dependencies(t.Context(), granted{}, secured{trusted}, Addresses{SAMS: "https://sams", Gateway: "https://gateway"})
	wantFindings(t, got)
	if want := "TLS 1.3, certificate good until " + web.Certificate().NotAfter.UTC().Format(time.DateOnly); got[2].Detail != want {
		t.Errorf("got %q, want %q", got[2].Detail, want)
	}
	got = Dependencies(t.Context(), granted{}, secured{nil}, Addresses{SAMS: "https://sams", Gateway: "https://gateway"})
	wantFindings(t, got, "failure gateway TLS: cannot be connected to")
}

type granted struct{}

func (granted) Grant(context.Context) (submit.Grant, error) { return submit.Grant{}, nil }

// secured is a gateway at the end of a connection.
type secured struct{ state *tls.ConnectionState }

func (secured) Probe(context.Context, string) error  { return nil }
func (secured) Connect(context.Context) error        { return nil }
func (s secured) TLS() (*tls.ConnectionState, error) { return s.state, nil }

func TestCheckConfiguration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		vars string
		want []string
	}{
		{"", nil},
		{"PORT=8080|DIAGNOSTICS_SECRET=x", nil},
		{"PORT=8080", []string{"warning configuration endpoints: DIAGNOSTICS_SECRET is not set"}},
		{"MSP=true|ENVIRONMENT_ID=prod", nil},
		{"MSP=true", []string{"warning configuration environment: ENVIRONMENT_ID is not set"}},
		{"MSP=true|ENVIRONMENT_ID=prod|PUBSUB_EMULATOR_HOST=localhost:1", []string{"failure configuration emulator: PUBSUB_EMULATOR_HOST is set"}},
	} {
		vars := append(strings.Split(c.vars, "|"), "GOOGLE_CLOUD_PROJECT=my-project", "SAMS_CLIENT_ID=a", "SAMS_CLIENT_SECRET=b")
		cfg, err := config.Load(vars, config.ForRun)
		if err != nil {
			t.Fatal(err)
		}
		wantFindings(t, Configuration(cfg), c.want...)
	}
}

// TestLastErrorSurvivesDeadline has a time that is over for the last call a little before it is for
// the context.
func TestLastErrorSurvivesDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	down, late := &submit.Failure{Code: codes.Unavailable}, &submit.Failure{Code: codes.DeadlineExceeded}
	calls := 0
	_, err := again(ctx, func() (struct{}, error) {
		if calls++; calls == 1 {
			return struct{}{}, down
		}
		time.AfterFunc(time.Millisecond, cancel)
		return struct{}{}, late
	}, func(error) bool { return false })
	if !errors.Is(err, down) {
		t.Errorf("got %v, want what was wrong before", err)
	}
}
