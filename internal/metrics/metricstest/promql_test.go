package metricstest_test

import (
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/metrics/metricstest"
)

func TestUnknownNamesAreReported(t *testing.T) {
	for expr, want := range map[string]string{ // want: a part of the fault; empty: there is none
		`sum by (service) (rate(telemetry_relay_events_received_total{service=~"$service"}[5m]))`:    "",
		`histogram_quantile(0.9, sum by (le) (rate(telemetry_relay_submission_seconds_bucket[5m])))`: "",
		`rate(telemetry_relay_batch_events_sum[5m]) / rate(telemetry_relay_batch_events_count[5m])`:  "",
		`telemetry_relay_token_fetches_total{result=~"error|refused"}`:                               "",
		`telemetry_relay_submissions_total{code!="OK"}`:                                              "",
		`process_resident_memory_bytes{job="x"} + go_goroutines`:                                     "",
		`up`:                                   "no metric",
		`telemetry_relay_events_lost_total`:    "there is no metric",
		`go_nothing`:                           "there is no metric",
		`telemetry_relay_submission_seconds`:   "there is no metric",
		`telemetry_relay_events_in_flight_sum`: "there is no metric",
		`telemetry_relay_gateway_available{service="a"}`:                           "no label service",
		`telemetry_relay_token_fetches_total{result="bad"}`:                        `never "bad"`,
		`telemetry_relay_token_fetches_total{result=~"ok|bad"}`:                    `never "bad"`,
		`telemetry_relay_token_fetches_total{result}`:                              "not understood",
		`sum by (servise) (telemetry_relay_events_received_total)`:                 "the label servise",
		`sum by (service) (telemetry_relay_events_in_flight)`:                      "the label service",
		`telemetry_relay_events_in_flight * on (job) telemetry_relay_nothing_ever`: "there is no metric",
	} {
		faults := metricstest.Check(expr)
		switch {
		case want == "" && len(faults) > 0:
			t.Errorf("%s: %v", expr, faults)
		case want != "" && (len(faults) != 1 || !strings.Contains(faults[0].Error(), want)):
			t.Errorf("%s: got %v, want one that says %q", expr, faults, want)
		}
	}
}
