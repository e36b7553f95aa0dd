package submit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/samsserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "s3cret/+&=:%"

// issuer is a SAMS for bubbles of fake time, without a network.
type issuer struct {
	mu       sync.Mutex
	requests int
	ttl      int // seconds; 0: not said
	delay    time.Duration
	err      error
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.requests++
	n, ttl, delay, err := i.requests, i.ttl, i.delay, i.err
	i.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	body := fmt.Sprintf(`{"access_token":"token%d","token_type":"Bearer"`, n)
	if ttl != 0 {
		body += fmt.Sprintf(`,"expires_in":%d`, ttl)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, Body: io.NopCloser(strings.NewReader(body + "}")),
		Header: http.Header{"Content-Type": {"application/json"}},
	}, nil
}

func (i *issuer) set(ttl int, delay time.Duration, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ttl, i.delay, i.err = ttl, delay, err
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests
}

func (i *issuer) tokens() *Tokens {
	t := NewTokens(TokenOptions{URL: "https://sams.test/oauth/token", ClientID: "id", ClientSecret: secret})
	t.client.Transport = tokenAnswers{i}
	return t
}

func mustToken(t *testing.T, tokens *Tokens, want string) {
	t.Helper()
	got, err := tokens.Token(t.Context())
	if err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestOneFetchForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: 3600, delay: time.Second}
		tokens := i.tokens()
		var wait sync.WaitGroup
		for range 100 {
			wait.Go(func() { mustToken(t, tokens, "token1") })
		}
		wait.Wait()
		mustToken(t, tokens, "token1")
		if n := i.count(); n != 1 {
			t.Errorf("%d requests", n)
		}
		tokens.Close()
	})
}

func TestWaitersHonourTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: 3600, delay: 5 * time.Second}
		tokens := i.tokens()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := tokens.Token(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		// The fetch goes on for the next caller.
		mustToken(t, tokens, "token1")
		if time.Since(began) != 5*time.Second || i.count() != 1 {
			t.Errorf("%d requests after %v", i.count(), time.Since(began))
		}
		tokens.Close()
	})
}

func TestTokenIsRenewedEarly(t *testing.T) {
	for _, c := range []struct {
		ttl   int
		renew time.Duration
	}{
		{3600, 59 * time.Minute},
		{300, 240 * time.Second},
		{100, 80 * time.Second},
		{3, 2400 * time.Millisecond},
		{0, time.Hour}, // SAMS does not say
	} {
		t.Run(fmt.Sprint(c.ttl, " s"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &issuer{ttl: c.ttl}
				tokens := i.tokens()
				mustToken(t, tokens, "token1")
				i.set(c.ttl, 100*time.Millisecond, nil)
				time.Sleep(c.renew - 1)
				mustToken(t, tokens, "token1")
				synctest.Wait()
				if n := i.count(); n != 1 {
					t.Errorf("renewed too early: %d requests", n)
				}
				time.Sleep(time.Nanosecond)
				began := time.Now()
				mustToken(t, tokens, "token1")
				mustToken(t, tokens, "token1")
				if time.Since(began) != 0 {
					t.Error("waited for the renewal of a token that is still good")
				}
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
				mustToken(t, tokens, "token2")
				if n := i.count(); n != 2 {
					t.Errorf("%d requests", n)
				}
				tokens.Close()
			})
		})
	}
}

func TestRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: 3600}
		tokens := i.tokens()
		mustToken(t, tokens, "token1")
		i.set(3600, 0, errors.New("connection refused"))
		time.Sleep(59 * time.Minute)
		for range 600 {
			mustToken(t, tokens, "token1")
			time.Sleep(time.Minute / 600)
		}
		if n := i.count(); n < 10 || n > 32 {
			t.Errorf("%d requests in a minute of failing renewals", n)
		}
		if _, err := tokens.Token(t.Context()); err == nil {
			t.Error("the token has expired and is still given")
		}
		// Without a token the next call asks SAMS at once.
		i.set(3600, 0, nil)
		if got, err := tokens.Token(t.Context()); err != nil || got == "token1" {
			t.Errorf("got %q, %v", got, err)
		}
		tokens.Close()
	})
}

func TestInvalidatedTokenIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{ttl: 3600}
		tokens := i.tokens()
		mustToken(t, tokens, "token1")
		tokens.Invalidate("token1")
		mustToken(t, tokens, "token2")
		tokens.Invalidate("token1") // refused late: it was replaced already
		tokens.Invalidate("")
		mustToken(t, tokens, "token2")
		if n := i.count(); n != 2 {
			t.Errorf("%d requests", n)
		}
		tokens.Close()
	})
}

func TestFetchTakesTenSecondsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{delay: time.Hour}
		tokens := i.tokens()
		began := time.Now()
		_, err := tokens.Token(t.Context())
		var refused *CredentialsError
		if err == nil || errors.As(err, &refused) || time.Since(began) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		tokens.Close()
	})
}

func TestCloseEndsTheFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{delay: time.Hour}
		tokens := i.tokens()
		failed := make(chan error, 1)
		go func() { _, err := tokens.Token(t.Context()); failed <- err }()
		synctest.Wait()
		began := time.Now()
		tokens.Close()
		if err := <-failed; err == nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// requests is a token endpoint that records the style of each request.
type requests struct {
	mu     sync.Mutex
	styles []string
}

func (q *requests) note(r *http.Request) (style string) {
	style = "params"
	if _, _, ok := r.BasicAuth(); ok {
		style = "basic"
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.styles = append(q.styles, style)
	return style
}

func (q *requests) String() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return strings.Join(q.styles, " ")
}

func newTokens(t *testing.T, opts TokenOptions) *Tokens {
	t.Helper()
	if opts.ClientID == "" {
		opts.ClientID, opts.ClientSecret = "id", secret
	}
	tokens := NewTokens(opts)
	t.Cleanup(tokens.Close)
	return tokens
}

func TestAuthStyle(t *testing.T) {
	var q requests
	n := 0
	sams := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if q.note(r) == "basic" || r.FormValue("client_secret") != secret || r.FormValue("scope") != Scope {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
			return
		}
		n++
		_, _ = fmt.Fprintf(w, `{"access_token":"token%d","expires_in":3600}`, n)
	}))
	defer sams.Close()
	tokens := newTokens(t, TokenOptions{URL: sams.URL})
	mustToken(t, tokens, "token1")
	tokens.Invalidate("token1")
	mustToken(t, tokens, "token2")
	if got, want := q.String(), "basic params params"; got != want {
		t.Errorf("asked in the styles %s, want %s", got, want)
	}
}

func TestFetchErrors(t *testing.T) {
	const page = `<html>` + secret + `</html>`
	for _, c := range []struct {
		name   string
		status int
		body   string
		styles string
		want   string // what the error says
		refuse bool   // a *CredentialsError
	}{
		{"invalid client", 401, `{"error":"invalid_client","error_description":"` + secret + `"}`, "basic params", "check SAMS_CLIENT_ID and SAMS_CLIENT_SECRET", true},
		{"unauthorized client", 400, `{"error":"unauthorized_client"}`, "basic", "SAMS refuses the client (HTTP 400, unauthorized_client)", true},
		{"invalid scope", 400, `{"error":"invalid_scope"}`, "basic", "refuses the scope telemetry_gateway::events::write", true},
		{"another code of OAuth", 400, `{"error":"invalid_grant"}`, "basic", "SAMS refuses to give a token (HTTP 400)", true},
		{"unknown code", 400, `{"error":"` + secret + `"}`, "basic", "SAMS refuses to give a token (HTTP 400)", true},
		{"forbidden, in HTML", 403, page, "basic", "SAMS refuses to give a token (HTTP 403): check SAMS_URL", true},
		{"unauthorized, in HTML", 401, page, "basic params", "SAMS refuses to give a token (HTTP 401)", true},
		{"no such page", 404, page, "basic", "HTTP 404", true},
		{"request timeout", 408, page, "basic", "HTTP 408", false},
		{"too many requests", 429, `{"error":"invalid_client"}`, "basic", "HTTP 429", false},
		{"internal error", 500, page, "basic", "HTTP 500", false},
		{"bad gateway", 502, page, "basic", "HTTP 502", false},
		{"unavailable", 503, `{"error":"invalid_client"}`, "basic", "HTTP 503", false},
		{"no JSON", 200, page, "basic", "fetch a token from SAMS", false},
		{"no token", 200, `{}`, "basic", "fetch a token from SAMS", false},
		{"an error in disguise", 200, `{"error":"invalid_client"}`, "basic", "HTTP 200", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var q requests
			sams := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				q.note(r)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer sams.Close()
			var fetched atomic.Pointer[error]
			tokens := newTokens(t, TokenOptions{URL: sams.URL, OnFetch: func(err error) { fetched.Store(&err) }})
			_, err := tokens.Token(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			var refused *CredentialsError
			if errors.As(err, &refused) != c.refuse {
				t.Errorf("refused: %v, want %v", !c.refuse, c.refuse)
			}
			if got := q.String(); got != c.styles {
				t.Errorf("asked in the styles %s, want %s", got, c.styles)
			}
			if e := fetched.Load(); e == nil || *e != err {
				t.Errorf("told of %v", e)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		sams := httptest.NewServer(http.NotFoundHandler())
		sams.Close()
		_, err := newTokens(t, TokenOptions{URL: sams.URL}).Token(t.Context())
		var refused *CredentialsError
		if err == nil || errors.As(err, &refused) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("redirected", func(t *testing.T) {
		asked := false
		elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
		defer elsewhere.Close()
		sams := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
		defer sams.Close()
		_, err := newTokens(t, TokenOptions{URL: sams.URL}).Token(t.Context())
		if err == nil || asked || !strings.Contains(err.Error(), "HTTP 307") || !strings.Contains(err.Error(), "redirects are not followed") {
			t.Errorf("%v; the secret went elsewhere: %v", err, asked)
		}
	})
	t.Run("the second style fails in passing", func(t *testing.T) {
		var q requests
		sams := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if q.note(r) == "basic" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		defer sams.Close()
		_, err := newTokens(t, TokenOptions{URL: sams.URL}).Token(t.Context())
		var refused *CredentialsError
		if err == nil || errors.As(err, &refused) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSAMS(t *testing.T) {
	sams, err := samsserver.Start(t.Context(), samsserver.Options{ClientID: "id", ClientSecret: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sams.Close() }()
	url := sams.URL() + "/oauth/token"
	token, err := newTokens(t, TokenOptions{URL: url}).Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if active, scopes, client := sams.Introspect(token); !active || len(scopes) != 1 || scopes[0] != Scope || client != "id" {
		t.Errorf("%v, %v, %v", active, scopes, client)
	}
	if got := sams.Stats(); got.TokenRequests != 1 {
		t.Errorf("%+v", got)
	}
	_, err = newTokens(t, TokenOptions{URL: url, ClientID: "id", ClientSecret: "wrong-secret"}).Token(t.Context())
	var refused *CredentialsError
	if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized || refused.Code != "invalid_client" ||
		strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("got %v", err)
	}

	other, err := samsserver.Start(t.Context(), samsserver.Options{ClientID: "id", ClientSecret: secret, Scopes: []string{"other::x::read"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	_, err = newTokens(t, TokenOptions{URL: other.URL() + "/oauth/token"}).Token(t.Context())
	if !errors.As(err, &refused) || refused.Code != "invalid_scope" {
		t.Errorf("got %v", err)
	}
}
