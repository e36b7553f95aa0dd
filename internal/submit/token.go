package submit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/sourcegraph/telemetry-relay/internal/secrets"
)

// Scope is the scope that recording events requires.
const Scope = "telemetry_gateway::events::write"

// OtherScope replaces a scope that does not have the form of SAMS' scopes, because its text
// could be anything.
const OtherScope = "(another)"

// scopeForm matches SAMS' form service::permission::action, and the scopes of OpenID.
var scopeForm = regexp.MustCompile(`^([a-z_]{1,30}::[a-z_.]{1,215}::(read|write|delete)|openid|profile|email|offline_access)$`)

const (
	// fetchTimeout bounds one fetch from SAMS.
	fetchTimeout = 10 * time.Second
	// A token is renewed before it expires, earlier by renewMargin or by 1/renewShare of
	// its lifetime, whichever is shorter.
	renewMargin = time.Minute
	renewShare  = 5
	// renewPause is the pause after a renewal that failed.
	renewPause = 2 * time.Second
)

// TokenOptions are the options of Tokens.
type TokenOptions struct {
	URL          string // of the token endpoint
	ClientID     string
	ClientSecret string
	// OnFetch, if set, is called with the result of each fetch.
	OnFetch func(err error)
	// Fetch, if set, replaces the request to SAMS.
	Fetch func(context.Context) (*oauth2.Token, error)
}

// Tokens keeps one access token and renews it before it expires. All streams share one
// fetch. Tokens is safe for concurrent use.
type Tokens struct {
	// styles are the ways in which SAMS may accept the client's secret. The one that worked
	// last comes first. Only the running fetch uses them.
	styles  []*clientcredentials.Config
	client  *http.Client
	onFetch func(error)
	fetch   func(context.Context) (*oauth2.Token, error)
	ctx     context.Context // canceled by Close
	own     []string        // the client's secret, as texts that must be masked; immutable
	stop    context.CancelFunc

	mu       sync.Mutex
	token    string // empty if there is none
	renew    time.Time
	expires  time.Time // zero if SAMS did not say
	scopes   []string  // nil if SAMS did not say
	fetching *fetch    // nil if none is running
	fetches  sync.WaitGroup
	// SAMS asked for no request before pause. refusal is the error with which it did so.
	pause   time.Time
	refusal error
}

type fetch struct {
	done  chan struct{}
	token string
	err   error
}

// NewTokens returns an empty cache. Nothing is fetched yet.
func NewTokens(opts TokenOptions) *Tokens {
	ctx, stop := context.WithCancel(context.Background())
	t := &Tokens{
		client: &http.Client{
			Timeout:   fetchTimeout,
			Transport: tokenAnswers{http.DefaultTransport.(*http.Transport).Clone()},
			// A redirect could send the secret to another address.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		onFetch: opts.OnFetch,
		fetch:   opts.Fetch,
		own:     []string{opts.ClientSecret, secrets.Basic(opts.ClientID, opts.ClientSecret)},
		ctx:     ctx,
		stop:    stop,
	}
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		t.styles = append(t.styles, &clientcredentials.Config{
			ClientID:     opts.ClientID,
			ClientSecret: opts.ClientSecret,
			TokenURL:     opts.URL,
			Scopes:       []string{Scope},
			AuthStyle:    style,
		})
	}
	if t.fetch == nil {
		t.fetch = t.retrieve
	}
	return t
}

// Close cancels a running fetch and waits for its end.
func (t *Tokens) Close() {
	t.stop()
	t.fetches.Wait()
	t.client.CloseIdleConnections()
}

// Token returns a token that has not expired, as far as the worker knows. The error is a
// *CredentialsError if SAMS refuses the client.
func (t *Tokens) Token(ctx context.Context) (string, error) {
	t.mu.Lock()
	now := time.Now()
	if t.token != "" && now.Before(t.renew) {
		token := t.token
		t.mu.Unlock()
		return token, nil
	}
	var f *fetch
	if now.Before(t.pause) {
		f = pausedFetch(t.refusal)
	} else {
		f = t.startFetch()
	}
	if t.token != "" && (t.expires.IsZero() || now.Before(t.expires)) {
		// The token is still good, so the caller need not wait for the renewal.
		token := t.token
		t.mu.Unlock()
		return token, nil
	}
	t.mu.Unlock()

	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return "", fmt.Errorf("wait for a token from SAMS: %w", ctx.Err())
	}
}

// Grant is what SAMS says about a token.
type Grant struct {
	// Scopes are the granted scopes; none if SAMS does not say.
	Scopes []string
	// Expires is when the token expires; zero if SAMS does not say.
	Expires time.Time
}

// Has reports whether SAMS says that it granted a scope.
func (g Grant) Has(scope string) bool { return slices.Contains(g.Scopes, scope) }

// Grant returns what SAMS says about the token, and fetches one if there is none. The error
// is that of Token.
func (t *Tokens) Grant(ctx context.Context) (Grant, error) {
	if _, err := t.Token(ctx); err != nil {
		return Grant{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return Grant{Scopes: t.scopes, Expires: t.expires}, nil
}

// Invalidate discards a token that was refused, if it is still the current one.
func (t *Tokens) Invalidate(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == token {
		t.token = ""
	}
}

// pausedFetch returns the result of a fetch that was not made because SAMS asked for a
// pause.
func pausedFetch(refusal error) *fetch {
	f := &fetch{done: make(chan struct{}), err: refusal}
	close(f.done)
	return f
}

// Missing reports whether there is no token.
func (t *Tokens) Missing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token == ""
}

// PauseLeft returns how long SAMS asked for no request, from now on; 0 if it accepts
// requests.
func (t *Tokens) PauseLeft() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(0, time.Until(t.pause))
}

// secrets returns the texts that must not be shown: the client's secret in the forms in
// which it travels, and the token.
func (t *Tokens) secrets() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(t.own, t.token)
}

// startFetch returns the running fetch, or starts one. The caller has locked mu.
func (t *Tokens) startFetch() *fetch {
	if t.fetching != nil {
		return t.fetching
	}
	f := &fetch{done: make(chan struct{})}
	t.fetching = f
	t.fetches.Go(func() {
		ctx, cancel := context.WithTimeout(t.ctx, fetchTimeout)
		token, err := t.fetch(ctx)
		cancel()
		if t.onFetch != nil {
			t.onFetch(err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.fetching = nil
		if err == nil {
			t.keep(token)
			f.token = token.AccessToken
		} else {
			// Without a token the caller decides when to ask again. A renewal without a
			// pause would be repeated for every stream.
			t.renew = time.Now().Add(renewPause)
			if wait := retryAfterOf(err); wait > 0 {
				t.pause, t.refusal = time.Now().Add(wait), err
				t.renew = t.pause
			}
			if !t.expires.IsZero() && t.renew.After(t.expires) {
				t.renew = t.expires
			}
		}
		f.err = err
		close(f.done)
	})
	return f
}

// keep makes a token the current one. The caller has locked mu.
func (t *Tokens) keep(token *oauth2.Token) {
	now := time.Now()
	t.token, t.expires = token.AccessToken, token.Expiry
	granted, _ := token.Extra("scope").(string)
	t.scopes = strings.Fields(granted)
	for i, scope := range t.scopes {
		if !scopeForm.MatchString(scope) {
			t.scopes[i] = OtherScope
		}
	}
	if t.expires.IsZero() {
		// SAMS did not say when the token expires. The gateway refuses it then.
		t.renew = now.Add(time.Hour)
		return
	}
	t.renew = t.expires.Add(-min(renewMargin, t.expires.Sub(now)/renewShare))
}

func (t *Tokens) retrieve(ctx context.Context) (*oauth2.Token, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, t.client)
	var first error
	for i, config := range t.styles {
		token, err := config.Token(ctx)
		if err == nil {
			t.styles[0], t.styles[i] = t.styles[i], t.styles[0]
			return token, nil
		}
		err = retrieveError(err)
		if first == nil {
			first = err
		}
		// The other style can help only if SAMS does not recognise the client.
		var refused *CredentialsError
		if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
			return nil, err
		}
	}
	return nil, first
}
