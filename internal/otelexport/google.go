package otelexport

import (
	"net/http"
	"sync"

	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/httptransport"
)

// writeScopes are the narrowest scopes with which Google Cloud accepts metrics and traces.
var writeScopes = []string{
	"https://www.googleapis.com/auth/monitoring.write",
	"https://www.googleapis.com/auth/trace.append",
}

// googleClient returns a client that authenticates with Google Cloud as the
// worker's service account.
func (o *Observer) googleClient() *http.Client {
	client := &http.Client{Transport: &googleTransport{base: newBase()}}
	o.clients = append(o.clients, client)
	return client
}

// roundTripper is the part of http.Transport that this package uses.
type roundTripper interface {
	http.RoundTripper
	CloseIdleConnections()
}

// newBase makes the transport below the authentication. It is a variable for tests.
var newBase = func() roundTripper { return http.DefaultTransport.(*http.Transport).Clone() }

// googleTransport looks for credentials with the first request and not at the start,
// because the search may take seconds where there are none.
type googleTransport struct {
	base roundTripper

	mu            sync.Mutex
	authenticated http.RoundTripper // nil: there are no credentials yet
}

// RoundTrip sends a request with an access token.
func (t *googleTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	authenticated, err := t.transport()
	if err != nil {
		return nil, err
	}
	return authenticated.RoundTrip(r)
}

func (t *googleTransport) transport() (http.RoundTripper, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.authenticated != nil {
		return t.authenticated, nil
	}
	client, err := httptransport.NewClient(&httptransport.Options{
		DetectOpts:       &credentials.DetectOptions{Scopes: writeScopes},
		BaseRoundTripper: t.base,
		DisableTelemetry: true,
	})
	if err != nil {
		return nil, err // asked again with the next request
	}
	t.authenticated = client.Transport
	return t.authenticated, nil
}

// CloseIdleConnections implements the method that http.Client looks for.
func (t *googleTransport) CloseIdleConnections() { t.base.CloseIdleConnections() }
