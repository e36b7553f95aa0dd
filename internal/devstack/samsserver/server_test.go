package samsserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a server and gives a client that keeps no connections.
func start(t *testing.T, opts Options) (*Server, context.Context) {
	t.Helper()
	s, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return s, context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: transport})
}

func config(s *Server, scopes ...string) clientcredentials.Config {
	return clientcredentials.Config{
		ClientID: s.ClientID(), ClientSecret: s.ClientSecret(), TokenURL: s.URL() + "/oauth/token", Scopes: scopes,
	}
}

func TestTokenIsIssued(t *testing.T) {
	for name, style := range map[string]oauth2.AuthStyle{
		"basic": oauth2.AuthStyleInHeader, "form": oauth2.AuthStyleInParams, "probing": oauth2.AuthStyleAutoDetect,
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := start(t, Options{ClientID: "the id/+ %", ClientSecret: "a:secret&=%20", Scopes: []string{"a::b::read", ScopeRecordEvents}})
			c := config(s, ScopeRecordEvents, "a::b::read")
			c.AuthStyle = style
			token, err := c.Token(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(token.AccessToken, "sams_at_") || token.Type() != "Bearer" {
				t.Errorf("token %+v", token)
			}
			if ttl := time.Until(token.Expiry); ttl < 59*time.Minute || ttl > time.Hour {
				t.Errorf("expires in %v", ttl)
			}
			active, scopes, id := s.Introspect(token.AccessToken)
			if !active || !slices.Equal(scopes, c.Scopes) || id != c.ClientID {
				t.Errorf("introspected: %v %v %s", active, scopes, id)
			}
			again, err := c.Token(ctx)
			if err != nil || again.AccessToken == token.AccessToken {
				t.Errorf("again: %v, %v", again, err)
			}
			s.Revoke(token.AccessToken)
			if active, _, _ := s.Introspect(token.AccessToken); active {
				t.Error("active after it was revoked")
			}
			if active, _, _ := s.Introspect(again.AccessToken); !active {
				t.Error("the other is inactive")
			}
			s.RevokeAll()
			if active, _, _ := s.Introspect(again.AccessToken); active {
				t.Error("active after all were revoked")
			}
			if got, want := s.Stats(), (Stats{TokenRequests: 2, TokensIssued: 2, Introspections: 4}); got != want {
				t.Errorf("stats %+v, want %+v", got, want)
			}
		})
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	s, ctx := start(t, Options{})
	good := url.Values{"grant_type": {"client_credentials"}, "client_id": {s.ClientID()}, "client_secret": {s.ClientSecret()}, "scope": {ScopeRecordEvents}}
	for name, test := range map[string]struct {
		method string
		change func(url.Values)
		code   int
		error  string
	}{
		"wrong id":      {change: func(v url.Values) { v.Set("client_id", "x") }, code: 401, error: "invalid_client"},
		"wrong secret":  {change: func(v url.Values) { v.Set("client_secret", "x") }, code: 401, error: "invalid_client"},
		"no client":     {change: func(v url.Values) { v.Del("client_id"); v.Del("client_secret") }, code: 401, error: "invalid_client"},
		"another scope": {change: func(v url.Values) { v.Set("scope", ScopeRecordEvents+" a::b::read") }, code: 400, error: "invalid_scope"},
		"another grant": {change: func(v url.Values) { v.Set("grant_type", "password") }, code: 400, error: "unsupported_grant_type"},
		"no grant":      {change: func(v url.Values) { v.Del("grant_type") }, code: 400, error: "unsupported_grant_type"},
		"a GET":         {method: http.MethodGet, code: 405},
		"nothing wrong": {code: 200},
	} {
		t.Run(name, func(t *testing.T) {
			form := url.Values{}
			maps.Copy(form, good)
			if test.change != nil {
				test.change(form)
			}
			if test.method == "" {
				test.method = http.MethodPost
			}
			code, body := request(ctx, t, test.method, s.URL()+"/oauth/token", form)
			if code != test.code {
				t.Errorf("%d %s", code, body)
			}
			var got struct{ Error string }
			if test.error != "" && (json.Unmarshal(body, &got) != nil || got.Error != test.error) {
				t.Errorf("body %s", body)
			}
		})
	}
	if got := s.Stats().TokenRequests; got != 8 {
		t.Errorf("%d token requests", got)
	}
}

func request(ctx context.Context, t *testing.T, method, url string, form url.Values) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client, _ := ctx.Value(oauth2.HTTPClient).(*http.Client)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

func TestTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{opts: Options{TokenTTL: time.Minute}.withDefaults(), tokens: tokenStore{active: map[string]grant{}}}
		token := s.IssueToken(ScopeRecordEvents)
		time.Sleep(time.Minute - time.Nanosecond)
		if active, _, _ := s.Introspect(token); !active {
			t.Error("inactive before its time")
		}
		time.Sleep(time.Nanosecond)
		if active, _, _ := s.Introspect(token); active {
			t.Error("active after its time")
		}
		s.IssueToken()
		if n := len(s.tokens.active); n != 1 {
			t.Errorf("%d tokens kept", n)
		}
	})
}

func TestFaultsAreInjected(t *testing.T) {
	s, ctx := start(t, Options{})
	c := config(s, ScopeRecordEvents)
	c.AuthStyle = oauth2.AuthStyleInParams
	s.SetFault(func(r *http.Request) (int, string, time.Duration, bool) {
		return 503, `{"error":"temporarily_unavailable"}`, 0, r.URL.Path == "/oauth/token"
	})
	_, err := c.Token(ctx)
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); !ok || refused.Response.StatusCode != http.StatusServiceUnavailable || refused.ErrorCode != "temporarily_unavailable" {
		t.Errorf("error %v", err)
	}
	s.SetFault(func(*http.Request) (int, string, time.Duration, bool) { return 0, "", time.Millisecond, true })
	if _, err := c.Token(ctx); err != nil {
		t.Errorf("after a delay: %v", err)
	}
	s.SetFault(nil)
	if _, err := c.Token(ctx); err != nil {
		t.Errorf("without a fault: %v", err)
	}
}

func TestCloseEndsDelays(t *testing.T) {
	s, ctx := start(t, Options{})
	arrived := make(chan struct{})
	s.SetFault(func(*http.Request) (int, string, time.Duration, bool) {
		close(arrived)
		return 200, "", time.Hour, true
	})
	done := make(chan error)
	c := config(s)
	c.AuthStyle = oauth2.AuthStyleInParams
	go func() {
		_, err := c.Token(ctx)
		done <- err
	}()
	<-arrived
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err == nil {
		t.Error("a token from a closed server")
	}
}
