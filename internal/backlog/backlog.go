// Package backlog asks Cloud Monitoring how many messages of a subscription are not
// acknowledged, and how old the oldest one is. Pub/Sub has no request for these figures, and
// a reader of the subscription sees only the messages that no other client has leased.
package backlog

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/monitoring/v3"
	"google.golang.org/api/option"
)

const (
	// The metrics are sampled each minute, and a sample is visible up to two minutes later
	// (cloud.google.com/monitoring/api/metrics_gcp_p_z, pubsub). They count leased
	// messages, too.
	countMetric = "pubsub.googleapis.com/subscription/num_undelivered_messages"
	ageMetric   = "pubsub.googleapis.com/subscription/oldest_unacked_message_age" // seconds
	// window is how old a sample may be.
	window = 10 * time.Minute
	// timeout bounds a request. The figures only confirm a reading of the subscription.
	timeout = 5 * time.Second
)

// Count is a sample.
type Count struct {
	Messages int
	At       time.Time
}

// ErrNoSample means that Cloud Monitoring has no sample of the last minutes. A
// subscription has none in its first minutes.
var ErrNoSample = errors.New("Cloud Monitoring has no sample of the last 10 minutes") //nolint:staticcheck // a name

// Newest returns the newest sample of a subscription, given by its full name. The caller
// needs monitoring.timeSeries.list, which roles/monitoring.viewer has.
func Newest(ctx context.Context, subscription string, opts ...option.ClientOption) (Count, error) {
	n, at, err := newest(ctx, countMetric, subscription, opts)
	return Count{int(n), at}, err
}

// OldestAge returns for how long the oldest message of a subscription had not been
// acknowledged, by the newest sample; 0 if there was none. The caller needs the permission
// that Newest needs.
func OldestAge(ctx context.Context, subscription string, opts ...option.ClientOption) (time.Duration, error) {
	seconds, _, err := newest(ctx, ageMetric, subscription, opts)
	return time.Duration(seconds) * time.Second, err
}

// newest returns the newest sample of a metric, with its time.
func newest(ctx context.Context, metric, subscription string, opts []option.ClientOption) (value int64, sampled time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	project, id, ok := split(subscription)
	if !ok {
		return 0, time.Time{}, fmt.Errorf("expected a subscription's full name, got %q", subscription)
	}
	opts = append([]option.ClientOption{option.WithScopes(monitoring.MonitoringReadScope)}, opts...)
	service, err := monitoring.NewService(ctx, opts...)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("connect to Cloud Monitoring: %w", err)
	}
	now := time.Now().UTC()
	answer, err := service.Projects.TimeSeries.List("projects/" + project).Context(ctx).
		Filter(fmt.Sprintf("metric.type = %q AND resource.labels.subscription_id = %q", metric, id)).
		IntervalStartTime(now.Add(-window).Format(time.RFC3339)).IntervalEndTime(now.Format(time.RFC3339)).Do()
	if err != nil {
		return 0, time.Time{}, shorter(err)
	}
	for _, series := range answer.TimeSeries {
		for _, p := range series.Points {
			if p.Interval == nil || p.Value == nil || p.Value.Int64Value == nil {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, p.Interval.EndTime)
			if err == nil && at.After(sampled) {
				value, sampled = *p.Value.Int64Value, at
			}
		}
	}
	if sampled.IsZero() {
		return 0, time.Time{}, ErrNoSample
	}
	return value, sampled, nil
}

// split returns the parts of projects/P/subscriptions/S.
func split(name string) (project, id string, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 4 || parts[0] != "projects" || parts[2] != "subscriptions" {
		return "", "", false
	}
	return parts[1], parts[3], true
}

// shorter shortens an error for a person, because the library's texts are pages long.
func shorter(err error) error {
	refused, ok := errors.AsType[*googleapi.Error](err)
	switch {
	case !ok && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("Cloud Monitoring gave no answer in %v", timeout) //nolint:staticcheck // a name
	case !ok:
		return err
	case refused.Code == http.StatusForbidden:
		return errors.New("you may not read Cloud Monitoring; expected roles/monitoring.viewer")
	}
	return fmt.Errorf("Cloud Monitoring answered %d", refused.Code) //nolint:staticcheck // a name
}
