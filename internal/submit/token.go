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

// Scope is what SAMS must grant for events to be recorded.
const Scope = "telemetry_gateway::events::write"

// OtherScope stands for a scope that is not of the form of SAMS' scopes: its text
// could be anything.
const OtherScope = "(another)"

// scopeForm is SAMS' form service::permission::action, and the scopes of OpenID.
var scopeForm = regexp.MustCompile(`^([a-z_]{1,30}::[a-z_.]{1,215}::(read|write|delete)|openid|profile|email|offline_access)$`)

const (
	// fetchTimeout bounds one fetch from SAMS.
	fetchTimeout = 10 * time.Second
	// A token is renewed this long before its end: the smaller of renewMargin
	// and renewShare of its lifetime.
	renewMargin = time.Minute
	renewShare  = 5
	// renewPause is the time from a renewal that failed to the next.
	renewPause = 2 * time.Second
)

// TokenOptions say where tokens come from.
type TokenOptions struct {
	URL          string // of the token endpoint
	ClientID     string
	ClientSecret string
	// OnFetch, if set, is told the result of each fetch.
	OnFetch func(err error)
	// Fetch, if set, replaces the request to SAMS.
	Fetch func(context.Context) (*oauth2.Token, error)
}

// Tokens keeps one access token and renews it before it expires. However many
// streams want one, there is one fetch at a time. It is safe for concurrent use.
type Tokens struct {
	// The styles in which SAMS may want the client's secret; the one that worked
	// last comes first. Used by the one fetch only.
	styles  []*clientcredentials.Config
	client  *http.Client
	onFetch func(error)
	fetch   func(context.Context) (*oauth2.Token, error)
	ctx     context.Context // ends with Close
	own     []string        // secrets; immutable
	stop    context.CancelFunc

	mu       sync.Mutex
	token    string // empty: none
	renew    time.Time
	expires  time.Time // zero: never
	scopes   []string  // as SAMS tells them; nil: it did not
	fetching *fetch    // nil: none
	fetches  sync.WaitGroup
	// Until pause SAMS wants no request; refusal is what it said.
	pause   time.Time
	refusal error
}

type fetch struct {
	done  chan struct{}
	token string
	err   error
}

// NewTokens returns an empty cache; nothing is fetched yet.
func NewTokens(opts TokenOptions) *Tokens {
	ctx, stop := context.WithCancel(context.Background())
	t := &Tokens{
		client: &http.Client{
			Timeout:   fetchTimeout,
			Transport: tokenAnswers{http.DefaultTransport.(*http.Transport).Clone()},
			// The secret goes nowhere but to the configured address.
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

// Close ends a fetch that is under way and waits for it.
func (t *Tokens) Close() {
	t.stop()
	t.fetches.Wait()
	t.client.CloseIdleConnections()
}

// Token returns a token that is good for a while as far as is known. The error
// is a *CredentialsError when SAMS refuses the client.
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
		// Still good: nobody waits for its renewal.
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

// Grant is what a token is good for.
type Grant struct {
	// Scopes are those that SAMS tells; none when it does not tell.
	Scopes []string
	// Expires is when the token ends; zero when SAMS does not tell.
	Expires time.Time
}

// Has reports whether a scope is among those that SAMS tells.
func (g Grant) Has(scope string) bool { return slices.Contains(g.Scopes, scope) }

// Grant fetches a token if there is none, and says what it is good for. The error
// is as Token's.
func (t *Tokens) Grant(ctx context.Context) (Grant, error) {
	if _, err := t.Token(ctx); err != nil {
		return Grant{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return Grant{Scopes: t.scopes, Expires: t.expires}, nil
}

// Invalidate forgets a token that was refused, if it is still the current one.
func (t *Tokens) Invalidate(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == token {
		t.token = ""
	}
}

// pausedFetch is a fetch that is not made, since SAMS asked for a pause.
func pausedFetch(refusal error) *fetch {
	f := &fetch{done: make(chan struct{}), err: refusal}
	close(f.done)
	return f
}

// Missing reports whether there is no token, so that streams wait for SAMS.
func (t *Tokens) Missing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token == ""
}

// PauseLeft is how long SAMS wants no request; 0: it takes requests.
func (t *Tokens) PauseLeft() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(0, time.Until(t.pause))
}

// secrets are what must not be shown: the client's secret in the forms in which it
// travels, and the token.
func (t *Tokens) secrets() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(t.own, t.token)
}

// startFetch returns the fetch that is under way, or a new one. The caller
// holds mu.
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
			// Without a token whoever asks decides when to ask again; a renewal
			// would be tried with every stream.
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

// keep makes a token the current one. The caller holds mu.
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
		// SAMS did not say. The gateway's refusal will tell.
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
		// Only a client that SAMS does not recognise may be one that it wants
		// to see in the other style.
		var refused *CredentialsError
		if !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
			return nil, err
		}
	}
	return nil, first
}
