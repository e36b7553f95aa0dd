package observe

import (
	"net/http"
	"sync"

	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/httptransport"

	"github.com/sourcegraph/telemetry-relay/config"
)

// writeScopes are the least that Google Cloud wants for metrics and traces.
var writeScopes = []string{
	"https://www.googleapis.com/auth/monitoring.write",
	"https://www.googleapis.com/auth/trace.append",
}

// googleClient returns a client that authenticates with Google Cloud as the
// worker's service account.
func (o *Observer) googleClient(c *config.Config) *http.Client {
	client := &http.Client{Transport: &googleTransport{project: c.TelemetryProject(), base: newBase()}}
	o.clients = append(o.clients, client)
	return client
}

// roundTripper is what is used of http.Transport.
type roundTripper interface {
	http.RoundTripper
	CloseIdleConnections()
}

// newBase makes the transport below the authentication; a test makes another.
var newBase = func() roundTripper { return http.DefaultTransport.(*http.Transport).Clone() }

// googleTransport looks for credentials when they are first needed, by whoever
// sends: that may take seconds where there are none.
type googleTransport struct {
	project string
	base    roundTripper

	once          sync.Once
	authenticated http.RoundTripper
	err           error
}

// RoundTrip sends a request with an access token.
func (t *googleTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.once.Do(func() {
		var client *http.Client
		client, t.err = httptransport.NewClient(&httptransport.Options{
			DetectOpts:       &credentials.DetectOptions{Scopes: writeScopes},
			Headers:          http.Header{"X-Goog-User-Project": {t.project}},
			BaseRoundTripper: t.base,
			DisableTelemetry: true,
		})
		if t.err == nil {
			t.authenticated = client.Transport
		}
	})
	if t.err != nil {
		return nil, t.err
	}
	return t.authenticated.RoundTrip(r)
}

// CloseIdleConnections is what http.Client calls.
func (t *googleTransport) CloseIdleConnections() { t.base.CloseIdleConnections() }
