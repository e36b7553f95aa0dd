package submit

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestTokenAnswers reads answers that OAuth servers are known to send, and worse ones.
func TestTokenAnswers(t *testing.T) {
	const good = `"access_token":"sams_at_x"`
	for _, c := range []struct {
		body string
		want string // what the error says; empty: it is taken
		life time.Duration
	}{
		{`{` + good + `}`, "", 0},
		{`{` + good + `,"expires_in":null}`, "", 0},
		{`{` + good + `,"expires_in":0}`, "", 0},
		{`{` + good + `,"expires_in":3600}`, "", time.Hour},
		{`{` + good + `,"expires_in":3600.0}`, "", time.Hour},
		{`{` + good + `,"expires_in":3.6e3}`, "", time.Hour},
		{`{` + good + `,"expires_in":"3600"}`, "", time.Hour},
		{`{` + good + `,"expires_in":59.5}`, "", time.Minute},
		{`{` + good + `,"expires_in":1e300}`, "", 1<<31*time.Second - time.Second},
		{`{` + good + `,"token_type":"bearer"}`, "", 0},
		{`{` + good + `,"expires_in":"abc"}`, "expires_in is not a number of seconds", 0},
		{`{` + good + `,"expires_in":[3600]}`, "expires_in is not a number of seconds", 0},
		{`{` + good + `,"expires_in":-1}`, "expires_in is not a number of seconds", 0},
		{`{` + good + `,"expires_in":"NaN"}`, "expires_in is not a number of seconds", 0},
		{`{` + good + `,"token_type":"mac"}`, "the token_type is not Bearer", 0},
		{`{"access_token":"sams_at_x\n"}`, "characters that no HTTP header can have", 0},
		{`{"access_token":" sams_at_x"}`, "characters that no HTTP header can have", 0},
		{`{"access_token":"sams at x"}`, "characters that no HTTP header can have", 0},
		{`{"access_token":"sams_at_\u0000"}`, "characters that no HTTP header can have", 0},
		{`{"access_token":"sams_at_\u007f"}`, "characters that no HTTP header can have", 0},
		{`{"access_token":"sams_at_é"}`, "characters that no HTTP header can have", 0},
		{`{"access_token":"sams_at_` + strings.Repeat("x", 8<<10) + `"}`, "longer than an HTTP header may be", 0},
		{`{"access_token":""}`, "no access_token", 0},
		{`{"access_token":7}`, "not a JSON object", 0},
		{`[]`, "not a JSON object", 0},
		{``, "not a JSON object", 0},
		{`{` + good + `} trailing`, "not a JSON object", 0},
	} {
		sams := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain") // x/oauth2 would look for a form in it
			_, _ = io.WriteString(w, c.body)
		}))
		tokens := newTokens(t, TokenOptions{URL: sams.URL})
		grant, err := tokens.Grant(t.Context())
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%.80s: %v", c.body, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "fetch a token from SAMS: ") || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%.80s: got %v, want %q", c.body, err, c.want)
		case c.want == "" && c.life == 0 && !grant.Expires.IsZero():
			t.Errorf("%.80s: expires %v", c.body, grant.Expires)
		case c.life > 0 && (time.Until(grant.Expires) > c.life || time.Until(grant.Expires) < c.life-time.Minute/2):
			t.Errorf("%.80s: good for %v", c.body, time.Until(grant.Expires))
		}
		if err != nil && (strings.Contains(err.Error(), "abc") || strings.Contains(err.Error(), "sams_at")) {
			t.Errorf("%.80s is quoted: %v", c.body, err)
		}
		sams.Close()
	}
}

// TestBadTokenIsNotKept requires that the next call fetches another.
func TestBadTokenIsNotKept(t *testing.T) {
	n := 0
	sams := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, []string{`{"access_token":"sams_at_x\n"}`, `{"access_token":"sams_at_y"}`}[min(n, 2)-1])
	}))
	defer sams.Close()
	tokens := newTokens(t, TokenOptions{URL: sams.URL})
	if _, err := tokens.Token(t.Context()); err == nil || !tokens.Missing() {
		t.Errorf("got %v", err)
	}
	mustToken(t, tokens, "sams_at_y")
	if tokens.Missing() {
		t.Error("the token is missing")
	}
}

// TestOnlyWellFormedScopesAreShown has an answer with scopes of other forms.
func TestOnlyWellFormedScopesAreShown(t *testing.T) {
	sams := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"access_token":"x","scope":"openid `+Scope+` s3cret <b>"}`)
	}))
	defer sams.Close()
	grant, err := newTokens(t, TokenOptions{URL: sams.URL}).Grant(t.Context())
	if got, want := strings.Join(grant.Scopes, " "), "openid "+Scope+" (another) (another)"; err != nil || got != want || !grant.Has(Scope) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		header, date string
		want         time.Duration
	}{
		{"", "", 0},
		{"7", "", 7 * time.Second},
		{"0", "", 0},
		{"-7", "", 0},
		{"7.5", "", 0},
		{"soon", "", 0},
		{"86400", "", maxRetryAfter},
		{"18446744073709551615", "", maxRetryAfter},
		{date(30 * time.Second), "", 30 * time.Second},
		{date(-30 * time.Second), "", 0},
		{date(24 * time.Hour), "", maxRetryAfter},
		// The clock of SAMS is an hour ahead: its own Date counts.
		{date(time.Hour + 30*time.Second), date(time.Hour), 30 * time.Second},
	} {
		h := http.Header{}
		h.Set("Retry-After", c.header)
		h.Set("Date", c.date)
		if got := retryAfter(h, now); got != c.want {
			t.Errorf("%q at %q: got %v, want %v", c.header, c.date, got, c.want)
		}
	}
}

// busy is a SAMS that asks for a pause.
type busy struct {
	issuer
	status int
}

func (b *busy) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.status == 0 {
		return b.issuer.RoundTrip(r)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests++
	return &http.Response{StatusCode: b.status, Request: r, Body: io.NopCloser(strings.NewReader("{}")), Header: http.Header{"Retry-After": {"40"}}}, nil
}

// TestRetryAfterIsHonoured has many callers: SAMS gets no request for as long as it asked.
func TestRetryAfterIsHonoured(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sams := &busy{status: status}
				tokens := NewTokens(TokenOptions{URL: "https://sams.test/oauth/token", ClientID: "id", ClientSecret: secret})
				tokens.client.Transport = tokenAnswers{sams}
				defer tokens.Close()
				client := NewClientOver(nil, Options{Tokens: tokens, Timeout: time.Minute})
				for range 39 {
					f := client.Submit(context.Background(), Batch{}).Failure
					if f == nil || f.Class != SAMS || f.RetryAfter <= 0 || f.RetryAfter > 40*time.Second || !strings.Contains(f.Error(), fmt.Sprint("HTTP ", status)) {
						t.Errorf("got %+v", f)
					}
					time.Sleep(time.Second)
				}
				if n := sams.count(); n != 1 {
					t.Errorf("%d requests within 40 s", n)
				}
				sams.status = 0
				time.Sleep(time.Second)
				mustToken(t, tokens, "token2")
			})
		})
	}
}
