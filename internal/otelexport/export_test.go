package otelexport

import (
	"net/http"
)

// RedirectGoogle sends what is for Google Cloud to another host in plain text,
// until the returned function is called.
func RedirectGoogle(host string) (undo func()) {
	old := newBase
	newBase = func() roundTripper { return redirect{old(), host} }
	return func() { newBase = old }
}

type redirect struct {
	roundTripper
	host string
}

func (r redirect) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Host == "telemetry.googleapis.com" {
		q = q.Clone(q.Context())
		q.URL.Scheme, q.URL.Host = "http", r.host
	}
	return r.roundTripper.RoundTrip(q)
}
