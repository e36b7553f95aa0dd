package config

import (
	"crypto/tls"
	"crypto/x509"
	"math"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// OpenTelemetry reads the variables below itself. It replaces a value that it cannot read
// by a default, and logs the value, which may be a secret. So this package checks them
// first, and the worker does not start with a bad one. No fault may quote a value.

// otelForm is the form that the values of some variables must have.
type otelForm struct {
	variables []string
	expected  string
	valid     func(string) bool
}

// perSignal are the variables of the exporters with this ending: the common one,
// and one for metrics and one for traces.
func perSignal(ending string) []string {
	return []string{"OTEL_EXPORTER_OTLP_" + ending, "OTEL_EXPORTER_OTLP_METRICS_" + ending, "OTEL_EXPORTER_OTLP_TRACES_" + ending}
}

// otelForms are the standard's variables that OpenTelemetry for Go reads, apart from the
// fields of Telemetry.
var otelForms = []otelForm{
	{perSignal("HEADERS"), "key=value pairs separated by commas, such as api-key=abc,tenant=core (values percent-encoded)", otelHeaders},
	{perSignal("TIMEOUT"), "a whole number of milliseconds", wholeFrom(0)},
	{perSignal("COMPRESSION"), "gzip or none", among("gzip", "none")},
	{perSignal("INSECURE"), "true or false", among("true", "false")},
	{perSignal("CERTIFICATE"), "a readable file with certificates in PEM", certificates},
	{[]string{"OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT"}, "a whole number of milliseconds, at least 1", wholeFrom(1)},
	{[]string{"OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT"}, "a whole number of milliseconds", wholeFrom(0)},
	{[]string{"OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"}, "a whole number, at least 1", wholeFrom(1)},
	{
		[]string{
			"OTEL_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
			"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT",
			"OTEL_GO_X_CARDINALITY_LIMIT",
		},
		"a whole number (negative: no limit)", wholeFrom(math.MinInt32),
	},
	{[]string{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"}, "cumulative, delta or lowmemory", among("cumulative", "delta", "lowmemory")},
	{
		[]string{"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"},
		"explicit_bucket_histogram or base2_exponential_bucket_histogram", among("explicit_bucket_histogram", "base2_exponential_bucket_histogram"),
	},
	{[]string{"OTEL_METRICS_EXEMPLAR_FILTER"}, "always_on, always_off or trace_based", among("always_on", "always_off", "trace_based")},
	{[]string{"OTEL_RESOURCE_ATTRIBUTES"}, "key=value pairs separated by commas, such as team=core (values percent-encoded)", otelAttributes},
}

func validateOTEL(vars map[string]string, faults *Faults) {
	for _, form := range otelForms {
		for _, variable := range form.variables {
			if value, set := vars[variable]; set && !form.valid(value) {
				faults.add(variable, "expected %s", form.expected)
			}
		}
	}
	for _, variables := range [][]string{perSignal("CLIENT_CERTIFICATE"), perSignal("CLIENT_KEY")} {
		for i, variable := range variables {
			validateKeyPair(variable, vars[perSignal("CLIENT_CERTIFICATE")[i]], vars[perSignal("CLIENT_KEY")[i]], vars, faults)
		}
	}
	if ratio, set := vars["OTEL_TRACES_SAMPLER_ARG"]; set && strings.HasSuffix(vars["OTEL_TRACES_SAMPLER"], "traceidratio") && !isRatio(ratio) {
		faults.add("OTEL_TRACES_SAMPLER_ARG", "expected a number from 0 to 1")
	}
}

// validateKeyPair checks a client's certificate and its key together, because
// OpenTelemetry silently ignores one without the other.
func validateKeyPair(variable, certificate, key string, vars map[string]string, faults *Faults) {
	if vars[variable] == "" {
		return
	}
	if certificate == "" || key == "" {
		faults.add(variable, "expected the client's certificate and its key together")
		return
	}
	if _, err := tls.LoadX509KeyPair(certificate, key); err != nil {
		faults.add(variable, "expected readable files with a client's certificate and its key in PEM")
	}
}

// among accepts the words, in any case.
func among(words ...string) func(string) bool {
	return func(value string) bool { return slices.Contains(words, strings.ToLower(value)) }
}

// wholeFrom accepts whole numbers that are not less than least.
func wholeFrom(low int) func(string) bool {
	return func(value string) bool {
		n, err := strconv.ParseInt(value, 10, 32)
		return err == nil && n >= int64(low)
	}
}

func isRatio(value string) bool {
	ratio, err := strconv.ParseFloat(value, 64)
	return err == nil && ratio >= 0 && ratio <= 1
}

func otelHeaders(value string) bool {
	return pairs(value, func(key, value string) bool {
		return httpguts.ValidHeaderFieldName(key) && httpguts.ValidHeaderFieldValue(value)
	})
}

func otelAttributes(value string) bool {
	return pairs(value, func(key, _ string) bool { return key != "" })
}

func pairs(value string, valid func(key, value string) bool) bool {
	for pair := range strings.SplitSeq(value, ",") {
		key, value, found := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || err != nil || !valid(strings.TrimSpace(key), value) {
			return false
		}
	}
	return true
}

func certificates(file string) bool {
	content, err := os.ReadFile(file)
	return err == nil && x509.NewCertPool().AppendCertsFromPEM(content)
}

// OTLPSecrets are the values of the headers that are sent to the receivers of
// telemetry: most are credentials.
func OTLPSecrets(environ []string) []string {
	var secrets []string
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !slices.Contains(perSignal("HEADERS"), name) {
			continue
		}
		pairs(value, func(_, value string) bool {
			secrets = append(secrets, value)
			if _, credentials, found := strings.Cut(value, " "); found { // Bearer …
				secrets = append(secrets, credentials)
			}
			return true
		})
	}
	return secrets
}
