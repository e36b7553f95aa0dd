package submit

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
)

// TestWordsOfTheGateway has a gateway that quotes an event and the token in every refusal.
// Its text is shown until it has been sent an event, and never afterwards, not even for
// streams without events.
func TestWordsOfTheGateway(t *testing.T) {
	const quoted = "alice@example.com"
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			f := newFixture(t)
			token, err := f.tokens.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			refusal := status.Error(code, "cannot take "+quoted+"\n\x1b[31m with Bearer "+token)
			f.onStream(func(gatewayserver.StreamInfo) error { return refusal })
			before := f.Probe(t.Context(), "before")
			if before == nil || !strings.Contains(before.Error(), "cannot take "+quoted+" [31m with Bearer [secret]") {
				t.Errorf("before any event: %v", before)
			}
			f.onStream(func(gatewayserver.StreamInfo) error { return nil })
			f.onPayload(gatewayserver.Fault{Err: refusal})
			b := batchOf(t, 1)
			b.Canary = true
			if got := f.Submit(t.Context(), b).Failure; got == nil || strings.Contains(got.Error()+got.Detail(), quoted) {
				t.Errorf("a stream with events: %v", got)
			}
			f.onStream(func(gatewayserver.StreamInfo) error { return refusal })
			if got := f.Probe(t.Context(), "after"); got == nil || got.Error() != code.String() {
				t.Errorf("after an event: %v", got)
			}
		})
	}
}

// TestWordsOfAPage has another server than a gateway answer, with a page that quotes the
// request.
func TestWordsOfAPage(t *testing.T) {
	for code, want := range map[int]string{
		http.StatusNotFound:            "Unimplemented",
		http.StatusForbidden:           "PermissionDenied",
		http.StatusPermanentRedirect:   "Unknown",
		http.StatusInternalServerError: "Unknown",
	} {
		page := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(code)
			_, _ = w.Write([]byte("<html>alice@example.com " + r.Header.Get("Authorization") + "</html>"))
		}))
		page.Config.Protocols = new(http.Protocols)
		page.Config.Protocols.SetUnencryptedHTTP2(true)
		page.Start()
		f := newFixture(t)
		c := f.client(page.URL, 10*time.Second)
		for _, events := range []int{0, 1, 0} {
			b := Batch{Publisher: self}
			if events > 0 {
				b = batchOf(t, events)
			}
			got := c.Submit(t.Context(), b).Failure
			if got == nil || !strings.HasPrefix(got.Error(), want) || strings.Contains(got.Error(), "alice") ||
				strings.Contains(got.Error(), "sams_at") || !strings.Contains(got.Error(), http.StatusText(code)) && !strings.Contains(got.Error(), "(HTTP ") {
				t.Errorf("HTTP %d, %d events: %v", code, events, got)
			}
			if strings.Contains(got.Error(), "redirects are not followed") != (code/100 == 3) {
				t.Errorf("HTTP %d: %v", code, got)
			}
		}
		page.Close()
	}
}

// TestWordsOfThisMachine requires that a refused connection is reported also after events
// were sent.
func TestWordsOfThisMachine(t *testing.T) {
	f := newFixture(t)
	f.gateway.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := f.Submit(ctx, batchOf(t, 1)).Failure
	if got == nil || !strings.Contains(got.Error(), "connection refused") {
		t.Errorf("got %v", got)
	}
}

// TestWordsOfSAMS has answers that quote the client's secret.
func TestWordsOfSAMS(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("id:" + secret))
	for _, answer := range []string{
		"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + `{"error":"` + basic + `"}`,
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + `{"access_token":"t","expires_in":"` + basic + `"}`,
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + basic,
		"HTTP/1.1 " + basic + "\r\n\r\n",
		basic + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\n" + basic + "\r\n\r\n",
	} {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write([]byte(answer))
				_ = conn.Close()
			}
		}()
		c := NewClientOver(nil, Options{Tokens: newTokens(t, TokenOptions{URL: "http://" + listener.Addr().String()}), Timeout: time.Minute})
		got := c.Submit(t.Context(), Batch{}).Failure
		if got == nil || strings.Contains(got.Error(), basic[:8]) || !strings.Contains(got.Error(), "SAMS") {
			t.Errorf("%q: %v", answer, got)
		}
		if refused, ok := errors.AsType[*CredentialsError](error(got)); ok && refused.Code != "" {
			t.Errorf("%q: code %q", answer, refused.Code)
		}
		_ = listener.Close()
	}
}
