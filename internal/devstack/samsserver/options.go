package samsserver

import (
	"net/http"
	"time"
)

// ScopeRecordEvents is the scope that lets a client record events at the
// telemetry gateway.
const ScopeRecordEvents = "telemetry_gateway::events::write"

const (
	// DefaultClientID and DefaultClientSecret are the credentials of the one
	// client that exists when Options names none.
	DefaultClientID     = "local-client"
	DefaultClientSecret = "local-secret"
	// DefaultTokenTTL is how long a token lives when Options does not say.
	DefaultTokenTTL = time.Hour
)

// Options configures a Server; the zero value is usable.
type Options struct {
	// Addr is the TCP address to listen on; "127.0.0.1:0" if empty.
	Addr string
	// ClientID and ClientSecret are the credentials of the only client;
	// DefaultClientID and DefaultClientSecret if empty.
	ClientID, ClientSecret string
	// Scopes are the scopes that the client may request; ScopeRecordEvents if nil.
	Scopes []string
	// TokenTTL is how long a token is active; DefaultTokenTTL if zero. Tokens
	// report it in whole seconds, rounded up.
	TokenTTL time.Duration
}

func (o Options) withDefaults() Options {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.ClientID == "" {
		o.ClientID = DefaultClientID
	}
	if o.ClientSecret == "" {
		o.ClientSecret = DefaultClientSecret
	}
	if o.Scopes == nil {
		o.Scopes = []string{ScopeRecordEvents}
	}
	if o.TokenTTL <= 0 {
		o.TokenTTL = DefaultTokenTTL
	}
	return o
}

// FaultFunc decides about one request before the server looks at it. With ok
// the request waits for delay and, unless status is 0, is answered with status
// and body; with status 0 it is served as usual after the delay. The request's
// form has not been parsed.
type FaultFunc func(r *http.Request) (status int, body string, delay time.Duration, ok bool)

// Stats counts what the server did since it started.
type Stats struct {
	// TokenRequests counts all requests to the token endpoint.
	TokenRequests int
	// TokensIssued is the number of requests that got a token.
	TokensIssued int
	// Introspections is the number of calls of Introspect.
	Introspections int
}
