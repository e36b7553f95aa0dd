package backlog

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/api/option"
)

const subscription = "projects/p/subscriptions/dlq"

func TestNewestSampleIsCounted(t *testing.T) {
	const series = `{"timeSeries":[{"points":[
		{"interval":{"endTime":"2026-11-27T10:05:00Z"},"value":{"int64Value":"2084"}},
		{"interval":{"endTime":"2026-11-27T10:04:00Z"},"value":{"int64Value":"7"}}]}]}`
	for _, c := range []struct {
		name         string
		subscription string
		status       int
		body         string
		want         Count
		fault        string
	}{
		{"the newest sample", subscription, 200, series, Count{2084, time.Date(2026, 11, 27, 10, 5, 0, 0, time.UTC)}, ""},
		{"none", subscription, 200, `{}`, Count{}, ErrNoSample.Error()},
		{"no number", subscription, 200, `{"timeSeries":[{"points":[{"interval":{"endTime":"2026-11-27T10:05:00Z"},"value":{}}]}]}`, Count{}, ErrNoSample.Error()},
		{"no time", subscription, 200, `{"timeSeries":[{"points":[{"interval":{"endTime":"now"},"value":{"int64Value":"1"}},{}]}]}`, Count{}, ErrNoSample.Error()},
		{"forbidden", subscription, 403, `{"error":{"code":403,"message":"x"}}`, Count{}, "roles/monitoring.viewer"},
		{"refused", subscription, 400, `{"error":{"code":400,"message":"x"}}`, Count{}, "answered 400"},
		{"not a full name", "dlq", 200, series, Count{}, "full name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.URL.Path + "?" + r.URL.Query().Get("filter")
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			defer server.Close()
			got, err := Newest(t.Context(), c.subscription, option.WithEndpoint(server.URL), option.WithoutAuthentication())
			if !got.At.Equal(c.want.At) || got.Messages != c.want.Messages {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if (c.fault == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.fault) {
				t.Errorf("got %v, want %q", err, c.fault)
			}
			if c.subscription == subscription && asked != `/v3/projects/p/timeSeries?metric.type = "pubsub.googleapis.com/subscription/num_undelivered_messages" AND resource.labels.subscription_id = "dlq"` {
				t.Errorf("asked %s", asked)
			}
		})
	}
}

// TestUnansweredRequestEndsInTime has a server that never answers.
func TestUnansweredRequestEndsInTime(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	began := time.Now()
	_, err := Newest(t.Context(), subscription, option.WithEndpoint(server.URL), option.WithoutAuthentication())
	if err == nil || errors.Is(err, ErrNoSample) || time.Since(began) > 2*timeout {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestOldestAgeAsksForTheAgeMetric(t *testing.T) {
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Query().Get("filter")
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"timeSeries":[{"points":[{"interval":{"endTime":"2026-11-27T10:05:00Z"},"value":{"int64Value":"40"}}]}]}`)
	}))
	defer server.Close()
	age, err := OldestAge(t.Context(), subscription, option.WithEndpoint(server.URL), option.WithoutAuthentication())
	if err != nil || age != 40*time.Second || !strings.HasPrefix(asked, `metric.type = "pubsub.googleapis.com/subscription/oldest_unacked_message_age" AND`) {
		t.Errorf("%v, %v, asked %s", age, err, asked)
	}
}
