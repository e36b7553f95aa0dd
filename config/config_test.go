package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// complete is the least that a run needs.
var complete = []string{"GOOGLE_CLOUD_PROJECT=my-project", "SAMS_CLIENT_ID=id", "SAMS_CLIENT_SECRET=hunter2"}

func environ(vars ...string) []string { return append(slices.Clone(complete), vars...) }

func mustLoad(t *testing.T, vars ...string) *Config {
	t.Helper()
	c, err := Load(environ(vars...), ForRun)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUnsetVariablesHaveDefaults(t *testing.T) {
	// The process's own variables must not be read.
	t.Setenv("ENVIRONMENT_ID", "leaked")
	t.Setenv("WORKER_MODE", "drain")
	got := mustLoad(t)
	want := &Config{
		Project:                "my-project",
		Topic:                  "telemetry-events",
		Subscription:           "telemetry-events-relay",
		DeadLetterTopic:        "telemetry-events-dlq",
		DeadLetterSubscription: "telemetry-events-dlq-oncall",
		GatewayURL:             "https://telemetry-gateway.sourcegraph.com",
		SAMSURL:                "https://accounts.sourcegraph.com",
		SAMSClientID:           "id",
		SAMSClientSecret:       "hunter2",
		Environment:            "unknown",
		Mode:                   Continuous,
		DrainIdle:              15 * time.Second,
		ShutdownTimeout:        8 * time.Second,
		BatchMaxEvents:         1000,
		BatchMaxBytes:          3 << 20,
		BatchMaxDelay:          time.Second,
		SubmitConcurrency:      Auto,
		SubmitConcurrencyMax:   512,
		SubmitTimeout:          30 * time.Second,
		RejectAfter:            5,
		MaxOutstandingEvents:   20_000,
		MaxOutstandingBytes:    128 << 20,
		LogLevel:               "info",
		LogFormat:              "auto",
		Telemetry:              Telemetry{OTLPProtocol: "http/protobuf"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Config{}, "Services")); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{
		got.TopicName():                  "projects/my-project/topics/telemetry-events",
		got.SubscriptionName():           "projects/my-project/subscriptions/telemetry-events-relay",
		got.DeadLetterTopicName():        "projects/my-project/topics/telemetry-events-dlq",
		got.DeadLetterSubscriptionName(): "projects/my-project/subscriptions/telemetry-events-dlq-oncall",
		got.TokenURL():                   "https://accounts.sourcegraph.com/oauth/token",
		got.ListenAddr():                 "",
	} {
		if name != want {
			t.Errorf("got %q, want %q", name, want)
		}
	}
}

func TestEmptyIsAbsent(t *testing.T) {
	var vars []string
	for _, name := range []string{"PUBSUB_TOPIC", "WORKER_MODE", "WORKER_DRAIN_IDLE", "WORKER_BATCH_MAX_EVENTS", "WORKER_BATCH_MAX_BYTES",
		"WORKER_INSECURE_DEV", "WORKER_SERVICES", "WORKER_SERVICES_FILE", "ENVIRONMENT_ID", "PORT", "JOB_EXECUTION_DEADLINE", "CLOUD_RUN_JOB", "MSP", "SAMS_URL"} {
		vars = append(vars, name+"=")
	}
	if diff := cmp.Diff(mustLoad(t), mustLoad(t, vars...), cmp.AllowUnexported(policy.Set{})); diff != "" {
		t.Error(diff)
	}
	_, err := Load([]string{"GOOGLE_CLOUD_PROJECT=", "SAMS_CLIENT_ID=id", "SAMS_CLIENT_SECRET="}, ForRun)
	wantFaults(t, err, "GOOGLE_CLOUD_PROJECT: is required", "SAMS_CLIENT_SECRET: is required")
}

func TestEverythingSet(t *testing.T) {
	got := mustLoad(t,
		"PUBSUB_TOPIC=projects/other/topics/events", "PUBSUB_SUBSCRIPTION=sub", "DLQ_TOPIC=projects/other/topics/dead", "DLQ_SUBSCRIPTION=dead-sub",
		"DLQ_VIEW_SUBSCRIPTION=view", "RECEIPTS_TOPIC=receipts", "RECEIPTS_SUBSCRIPTION=projects/other/subscriptions/receipts",
		"PUBSUB_EMULATOR_HOST=localhost:8085", "TELEMETRY_GATEWAY_URL=https://gateway.test:8443/", "SAMS_URL=https://sams.test/",
		"SAMS_API_URL=https://api.sams.test/path/", "ENVIRONMENT_ID=prod", "WORKER_MODE=drain", "WORKER_DRAIN_IDLE=2s", "WORKER_SHUTDOWN_TIMEOUT=7s",
		"WORKER_SERVICES={services: [{id: a}]}", "WORKER_BATCH_MAX_EVENTS=10", "WORKER_BATCH_MAX_BYTES=1MB", "WORKER_BATCH_MAX_DELAY=0s",
		"WORKER_SUBMIT_CONCURRENCY=2", "WORKER_SUBMIT_CONCURRENCY_MAX=4", "WORKER_SUBMIT_TIMEOUT=1m", "WORKER_REJECT_AFTER=1", "WORKER_MAX_OUTSTANDING_EVENTS=10",
		"WORKER_MAX_OUTSTANDING_BYTES=1000000", "WORKER_INSECURE_DEV=true", "PORT=8080", "DIAGNOSTICS_SECRET=x", "LOG_LEVEL=debug", "LOG_FORMAT=json",
		"MSP=true", "CLOUD_RUN_JOB=relay", "JOB_EXECUTION_DEADLINE=5m", "UNRELATED=1")
	want := &Config{
		Project: "my-project", Topic: "projects/other/topics/events", Subscription: "sub", DeadLetterTopic: "projects/other/topics/dead",
		DeadLetterView: "view", ReceiptsTopic: "receipts", ReceiptsSubscription: "projects/other/subscriptions/receipts",
		DeadLetterSubscription: "dead-sub", EmulatorHost: "localhost:8085", GatewayURL: "https://gateway.test:8443/", SAMSURL: "https://sams.test/",
		SAMSAPIURL: "https://api.sams.test/path/", SAMSClientID: "id", SAMSClientSecret: "hunter2", Environment: "prod", Mode: Drain,
		DrainIdle: 2 * time.Second, ShutdownTimeout: 7 * time.Second, ServicesYAML: "{services: [{id: a}]}", BatchMaxEvents: 10, BatchMaxBytes: 1e6,
		SubmitConcurrency: 2, SubmitConcurrencyMax: 4, SubmitTimeout: time.Minute, RejectAfter: 1, MaxOutstandingEvents: 10, MaxOutstandingBytes: 1e6, InsecureDev: true,
		Port: "8080", DiagnosticsSecret: "x", LogLevel: "debug", LogFormat: "json", MSP: true, CloudRunJob: "relay", JobDeadline: 5 * time.Minute,
		TopicGiven: true, Telemetry: Telemetry{OTLPProtocol: "http/protobuf"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Config{}, "Services")); diff != "" {
		t.Error(diff)
	}
	if got.TopicName() != "projects/other/topics/events" || got.SubscriptionName() != "projects/my-project/subscriptions/sub" ||
		got.TokenURL() != "https://api.sams.test/path/oauth/token" || got.ListenAddr() != ":8080" || got.ReceiveWindow() != 288*time.Second {
		t.Errorf("%s, %s, %s, %s, %v", got.TopicName(), got.SubscriptionName(), got.TokenURL(), got.ListenAddr(), got.ReceiveWindow())
	}
	if got.DeadLetterViewName() != "projects/my-project/subscriptions/view" || got.ReceiptsTopicName() != "projects/my-project/topics/receipts" ||
		got.ReceiptsSubscriptionName() != "projects/other/subscriptions/receipts" {
		t.Errorf("%s, %s, %s", got.DeadLetterViewName(), got.ReceiptsTopicName(), got.ReceiptsSubscriptionName())
	}
	if got := mustLoad(t); got.DeadLetterViewName()+got.ReceiptsTopicName()+got.ReceiptsSubscriptionName() != "" {
		t.Errorf("without variables: %q, %q, %q", got.DeadLetterViewName(), got.ReceiptsTopicName(), got.ReceiptsSubscriptionName())
	}
	if got := mustLoad(t, "PORT=8080", "WORKER_DIAGNOSTICS_ADDR=127.0.0.1:9").ListenAddr(); got != "127.0.0.1:9" {
		t.Errorf("listens at %s", got)
	}
}

func TestModeFollowsFromEnvironment(t *testing.T) {
	for _, c := range []struct {
		vars   []string
		mode   Mode
		window time.Duration
	}{
		{nil, Continuous, 0},
		{[]string{"CLOUD_RUN_JOB=relay"}, Drain, 0},
		{[]string{"CLOUD_RUN_JOB=relay", "WORKER_MODE=continuous", "JOB_EXECUTION_DEADLINE=5m"}, Continuous, 0},
		{[]string{"WORKER_MODE=drain"}, Drain, 0},
		{[]string{"WORKER_MODE=drain", "JOB_EXECUTION_DEADLINE=5m"}, Drain, 287 * time.Second},
		{[]string{"WORKER_MODE=drain", "JOB_EXECUTION_DEADLINE=20s", "WORKER_SHUTDOWN_TIMEOUT=1s"}, Drain, 14 * time.Second},
		// A deadline that a continuous run would not survive is not its business.
		{[]string{"WORKER_MODE=continuous", "JOB_EXECUTION_DEADLINE=1s"}, Continuous, 0},
		{[]string{"WORKER_MODE=continuous", "WORKER_BATCH_MAX_DELAY=1m"}, Continuous, 0},
		{[]string{"WORKER_MODE=drain", "WORKER_BATCH_MAX_DELAY=15s"}, Drain, 0},
		{[]string{"WORKER_SHUTDOWN_TIMEOUT=1h"}, Continuous, 0},
	} {
		got := mustLoad(t, c.vars...)
		if got.Mode != c.mode || got.ReceiveWindow() != c.window {
			t.Errorf("%v: mode %s, window %v", c.vars, got.Mode, got.ReceiveWindow())
		}
	}
}

// wantFaults checks that the error consists of exactly these faults, given by
// their beginnings.
func wantFaults(t *testing.T, err error, want ...string) {
	t.Helper()
	var faults Faults
	if !errors.As(err, &faults) {
		t.Errorf("got %v, want %q", err, want)
		return
	}
	ok := len(faults) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.HasPrefix(faults[i].Variable+": "+faults[i].Problem, want[i])
	}
	if !ok {
		t.Errorf("got %v\nwant %q", err, want)
	}
	for _, f := range faults {
		if !strings.Contains(err.Error(), "\n  "+f.Variable+": "+f.Problem) {
			t.Errorf("the fault of %s is not in the text %v", f.Variable, err)
		}
	}
}

func TestEveryFaultIsReported(t *testing.T) {
	const (
		number   = "expected a whole number, got "
		duration = "expected a duration such as 500ms, 8s or 5m, got "
		size     = "expected a size such as 3145728 or 3MiB, got "
	)
	for _, c := range []struct {
		vars string // separated by spaces
		want []string
	}{
		{"GOOGLE_CLOUD_PROJECT=my/project", []string{`GOOGLE_CLOUD_PROJECT: expected a project id such as my-project, got "my/project"`}},
		{"PUBSUB_TOPIC=a/b", []string{`PUBSUB_TOPIC: expected an id or projects/PROJECT/topics/ID, got "a/b"`}},
		{"PUBSUB_TOPIC=projects/p/subscriptions/events", []string{`PUBSUB_TOPIC: expected an id or projects/PROJECT/topics/ID`}},
		{"PUBSUB_TOPIC=projects//topics/events", []string{`PUBSUB_TOPIC: expected an id or projects/PROJECT/topics/ID`}},
		{"PUBSUB_TOPIC=projects/p/topics/x", []string{`PUBSUB_TOPIC: expected 3 to 255 characters that begin with a letter`}},
		{"PUBSUB_TOPIC=1abc", []string{`PUBSUB_TOPIC: expected 3 to 255 characters that begin with a letter`}},
		{"PUBSUB_SUBSCRIPTION=projects/p/topics/events", []string{`PUBSUB_SUBSCRIPTION: expected an id or projects/PROJECT/subscriptions/ID`}},
		{"PUBSUB_SUBSCRIPTION=goog-relay", []string{`PUBSUB_SUBSCRIPTION: expected 3 to 255 characters that begin with a letter (and not with goog), got "goog-relay"`}},
		{"DLQ_TOPIC=ab", []string{`DLQ_TOPIC: expected 3 to 255 characters`}},
		{"DLQ_SUBSCRIPTION=a$bc", []string{`DLQ_SUBSCRIPTION: expected 3 to 255 characters`}},
		{"DLQ_TOPIC=telemetry-events", []string{`DLQ_TOPIC: is the same topic as PUBSUB_TOPIC`}},
		{"DLQ_TOPIC=projects/my-project/topics/telemetry-events", []string{`DLQ_TOPIC: is the same topic as PUBSUB_TOPIC`}},
		{"DLQ_VIEW_SUBSCRIPTION=a$bc", []string{`DLQ_VIEW_SUBSCRIPTION: expected 3 to 255 characters`}},
		{"DLQ_VIEW_SUBSCRIPTION=telemetry-events-dlq-oncall", []string{`DLQ_VIEW_SUBSCRIPTION: is the same subscription as DLQ_SUBSCRIPTION`}},
		{"RECEIPTS_TOPIC=projects/p/subscriptions/receipts", []string{`RECEIPTS_TOPIC: expected an id or projects/PROJECT/topics/ID`}},
		{"RECEIPTS_TOPIC=telemetry-events", []string{`RECEIPTS_TOPIC: is the same topic as PUBSUB_TOPIC`}},
		{"RECEIPTS_TOPIC=telemetry-events-dlq", []string{`RECEIPTS_TOPIC: is the same topic as DLQ_TOPIC`}},
		{"RECEIPTS_SUBSCRIPTION=r", []string{`RECEIPTS_SUBSCRIPTION: expected 3 to 255 characters`}},
		{"RECEIPTS_SUBSCRIPTION=projects/my-project/subscriptions/telemetry-events-relay", []string{`RECEIPTS_SUBSCRIPTION: is the same subscription as PUBSUB_SUBSCRIPTION`}},
		{"DLQ_SUBSCRIPTION=telemetry-events-relay", []string{`DLQ_SUBSCRIPTION: is the same subscription as PUBSUB_SUBSCRIPTION`}},
		{"PUBSUB_ENDPOINT=us-east1-pubsub.googleapis.com", []string{`PUBSUB_ENDPOINT: expected host:port of a regional endpoint, such as us-east1-pubsub.googleapis.com:443, without scheme, user and path`}},
		{"PUBSUB_ENDPOINT=https://us-east1-pubsub.googleapis.com:443", []string{`PUBSUB_ENDPOINT: expected host:port`}},
		{"PUBSUB_ENDPOINT=me:hunter2@us-east1-pubsub.googleapis.com:443", []string{`PUBSUB_ENDPOINT: expected host:port`}},
		{"PUBSUB_ENDPOINT=hunter2@us-east1-pubsub.googleapis.com:443", []string{`PUBSUB_ENDPOINT: expected host:port`}},
		{"PUBSUB_ENDPOINT=pubsub.googleapis.com:443/hunter2", []string{`PUBSUB_ENDPOINT: expected host:port`}},
		{"PUBSUB_ENDPOINT=pubsub.googleapis.com:0", []string{`PUBSUB_ENDPOINT: expected host:port`}},
		{"PUBSUB_ENDPOINT=pubsub.googleapis.com:https", []string{`PUBSUB_ENDPOINT: expected host:port`}},
		{"PUBSUB_ENDPOINT=:443", []string{`PUBSUB_ENDPOINT: expected host:port`}},
		{"PUBSUB_ENDPOINT=us-east1-pubsub.googleapis.com:443 PUBSUB_EMULATOR_HOST=localhost:8085", []string{`PUBSUB_ENDPOINT: is set together with PUBSUB_EMULATOR_HOST`}},
		{"PUBSUB_EMULATOR_HOST=localhost", []string{`PUBSUB_EMULATOR_HOST: expected host:port`}},
		{"PUBSUB_EMULATOR_HOST=localhost:http", []string{`PUBSUB_EMULATOR_HOST: expected host:port`}},
		{"PUBSUB_EMULATOR_HOST=user:hunter2@localhost", []string{`PUBSUB_EMULATOR_HOST: expected host:port`}},
		{"PUBSUB_EMULATOR_HOST=user:hunter2@localhost:8085", []string{`PUBSUB_EMULATOR_HOST: expected host:port`}},
		{"PUBSUB_EMULATOR_HOST=hunter2@localhost:8085", []string{`PUBSUB_EMULATOR_HOST: expected host:port`}},
		{"PUBSUB_EMULATOR_HOST=http://localhost:8085", []string{`PUBSUB_EMULATOR_HOST: expected host:port`}},
		{"PUBSUB_EMULATOR_HOST=localhost:8085/hunter2", []string{`PUBSUB_EMULATOR_HOST: expected host:port`}},
		{"HTTPS_PROXY=http://user:hunter2@proxy:port", []string{`HTTPS_PROXY: expected the URL of a proxy`}},
		{"http_proxy=:hunter2", []string{`http_proxy: expected the URL of a proxy`}},
		{"DIAGNOSTICS_SECRET=hunter2é", []string{`DIAGNOSTICS_SECRET: expected printable ASCII`}},
		{"LOG_LEVEL=trace", []string{`LOG_LEVEL: expected debug, info, warn or error, got "trace"`}},
		{"SENTRY_DSN=nonsense", []string{"SENTRY_DSN: expected a DSN of the form https://KEY@HOST/PROJECT"}},
		{"SENTRY_DSN=https://sentry.test/1", []string{"SENTRY_DSN: expected a DSN of the form https://KEY@HOST/PROJECT"}},
		{"SENTRY_DSN=https://hunter2@sentry.test/path", []string{"SENTRY_DSN: expected a DSN of the form https://KEY@HOST/PROJECT, where PROJECT is a number"}},
		{"SENTRY_DSN=http://hunter2@sentry.test/1", []string{"SENTRY_DSN: expected https:// (http:// is for loopback addresses only"}},
		{"OTEL_SDK_DISABLED=perhaps", []string{`OTEL_SDK_DISABLED: expected true or false`}},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318", []string{"OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL such as https://host:4318"}},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318", []string{"OTEL_EXPORTER_OTLP_ENDPOINT: expected https:// (http:// is for loopback addresses only"}},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://me:hunter2@collector", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: expected a URL without user"}},
		{"OTEL_EXPORTER_OTLP_PROTOCOL=http/json", []string{`OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf or grpc`}},
		{"OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_ENDPOINT=https://telemetry.googleapis.com", []string{"OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf for telemetry.googleapis.com"}},
		{"OTEL_METRICS_EXPORTER=prometheus", []string{`OTEL_METRICS_EXPORTER: expected otlp or none`}},
		{"OTEL_TRACES_EXPORTER=console", []string{`OTEL_TRACES_EXPORTER: expected otlp or none`}},
		{"OTEL_EXPORTER_OTLP_HEADERS=Authorization:hunter2", []string{"OTEL_EXPORTER_OTLP_HEADERS: expected key=value pairs"}},
		{"OTEL_EXPORTER_OTLP_TRACES_HEADERS=a=b,hunter2", []string{"OTEL_EXPORTER_OTLP_TRACES_HEADERS: expected key=value pairs"}},
		{"OTEL_EXPORTER_OTLP_METRICS_HEADERS=a=%zzhunter2", []string{"OTEL_EXPORTER_OTLP_METRICS_HEADERS: expected key=value pairs"}},
		{"OTEL_EXPORTER_OTLP_HEADERS=a=hunter2%0A", []string{"OTEL_EXPORTER_OTLP_HEADERS: expected key=value pairs"}},
		{"OTEL_EXPORTER_OTLP_HEADERS=a/b=hunter2", []string{"OTEL_EXPORTER_OTLP_HEADERS: expected key=value pairs"}},
		{"OTEL_METRIC_EXPORT_INTERVAL=10s", []string{"OTEL_METRIC_EXPORT_INTERVAL: expected a whole number of milliseconds, at least 1"}},
		{"OTEL_METRIC_EXPORT_INTERVAL=0", []string{"OTEL_METRIC_EXPORT_INTERVAL: expected a whole number of milliseconds"}},
		{"OTEL_METRIC_EXPORT_TIMEOUT=hunter2", []string{"OTEL_METRIC_EXPORT_TIMEOUT: expected a whole number of milliseconds"}},
		{"OTEL_EXPORTER_OTLP_TIMEOUT=1.5", []string{"OTEL_EXPORTER_OTLP_TIMEOUT: expected a whole number of milliseconds"}},
		{"OTEL_EXPORTER_OTLP_COMPRESSION=zstd", []string{"OTEL_EXPORTER_OTLP_COMPRESSION: expected gzip or none"}},
		{"OTEL_EXPORTER_OTLP_INSECURE=hunter2", []string{"OTEL_EXPORTER_OTLP_INSECURE: expected true or false"}},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE=/hunter2", []string{"OTEL_EXPORTER_OTLP_CERTIFICATE: expected a readable file"}},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE=/dev/null", []string{"OTEL_EXPORTER_OTLP_CERTIFICATE: expected a readable file with certificates"}},
		{"OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY=/hunter2", []string{"OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY: expected the client's certificate and its key together"}},
		{"OTEL_EXPORTER_OTLP_CLIENT_KEY=/hunter2 OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=/x", []string{"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: expected readable", "OTEL_EXPORTER_OTLP_CLIENT_KEY: expected readable"}},
		{"OTEL_BSP_MAX_QUEUE_SIZE=-1", []string{"OTEL_BSP_MAX_QUEUE_SIZE: expected a whole number, at least 1"}},
		{"OTEL_SPAN_LINK_COUNT_LIMIT=hunter2", []string{"OTEL_SPAN_LINK_COUNT_LIMIT: expected a whole number"}},
		{"OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=10%", []string{"OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1"}},
		{"OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=NaN", []string{"OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1"}},
		{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=x", []string{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE: expected cumulative"}},
		{"OTEL_METRICS_EXEMPLAR_FILTER=x", []string{"OTEL_METRICS_EXEMPLAR_FILTER: expected always_on"}},
		{"OTEL_RESOURCE_ATTRIBUTES=team=core,hunter2", []string{"OTEL_RESOURCE_ATTRIBUTES: expected key=value pairs"}},
		{"OTEL_RESOURCE_ATTRIBUTES=team=%hunter2", []string{"OTEL_RESOURCE_ATTRIBUTES: expected key=value pairs"}},
		{"OTEL_GCP_PROJECT_ID=hunter2/x", []string{"OTEL_GCP_PROJECT_ID: expected a project id"}},
		{"OTEL_TRACES_SAMPLER=sometimes", []string{`OTEL_TRACES_SAMPLER: expected always_on or`}},
		{"LOG_FORMAT=xml", []string{`LOG_FORMAT: expected auto, json or text, got "xml"`}},

		{"TELEMETRY_GATEWAY_URL=gateway.test:443", []string{`TELEMETRY_GATEWAY_URL: expected a URL such as https://host or https://host:port`}},
		{"TELEMETRY_GATEWAY_URL=grpc://gateway.test", []string{`TELEMETRY_GATEWAY_URL: expected a URL such as`}},
		{"TELEMETRY_GATEWAY_URL=https://", []string{`TELEMETRY_GATEWAY_URL: expected a URL such as`}},
		{"TELEMETRY_GATEWAY_URL=https://gateway.test/v1", []string{`TELEMETRY_GATEWAY_URL: expected a URL without a path`}},
		{"TELEMETRY_GATEWAY_URL=https://gateway.test:0", []string{`TELEMETRY_GATEWAY_URL: expected a port from 1 to 65535, got "0"`}},
		{"TELEMETRY_GATEWAY_URL=https://gateway.test:70000", []string{`TELEMETRY_GATEWAY_URL: expected a port from 1 to 65535, got "70000"`}},
		{"SAMS_URL=https://u:hunter2@sams.test", []string{`SAMS_URL: expected a URL without user, query and fragment`}},
		{"SAMS_URL=https://sams.test?token=hunter2", []string{`SAMS_URL: expected a URL without user, query and fragment`}},
		{"SAMS_API_URL=https://sams.test#hunter2", []string{`SAMS_API_URL: expected a URL without user, query and fragment`}},
		{"SAMS_URL=http://localhost:9", []string{`SAMS_URL: expected https:// (http:// needs WORKER_INSECURE_DEV=true and a loopback address)`}},
		{"TELEMETRY_GATEWAY_URL=http://127.0.0.1:9", []string{`TELEMETRY_GATEWAY_URL: expected https://`}},
		{"WORKER_INSECURE_DEV=true SAMS_URL=http://sams.test", []string{`SAMS_URL: http:// is for loopback addresses only, and "sams.test" is none`}},
		{"WORKER_INSECURE_DEV=true SAMS_API_URL=http://10.0.0.1", []string{`SAMS_API_URL: http:// is for loopback addresses only`}},
		{"WORKER_INSECURE_DEV=true TELEMETRY_GATEWAY_URL=http://localhost.test:1", []string{`TELEMETRY_GATEWAY_URL: http:// is for loopback addresses only`}},
		{"WORKER_INSECURE_DEV=true TELEMETRY_GATEWAY_URL=http://0.0.0.0:1", []string{`TELEMETRY_GATEWAY_URL: http:// is for loopback addresses only`}},

		{"WORKER_MODE=batch", []string{`WORKER_MODE: expected continuous or drain, got "batch"`}},
		{"WORKER_MODE=Drain", []string{`WORKER_MODE: expected continuous or drain, got "Drain"`}},
		{"WORKER_DRAIN_IDLE=15", []string{`WORKER_DRAIN_IDLE: ` + duration + `"15"`}},
		{"WORKER_DRAIN_IDLE=0s", []string{`WORKER_DRAIN_IDLE: expected a positive duration, got 0s`}},
		{"WORKER_SHUTDOWN_TIMEOUT=soon", []string{`WORKER_SHUTDOWN_TIMEOUT: ` + duration + `"soon"`}},
		{"WORKER_SHUTDOWN_TIMEOUT=-1s", []string{`WORKER_SHUTDOWN_TIMEOUT: expected a positive duration, got -1s`}},
		{"WORKER_SHUTDOWN_TIMEOUT=10s MSP=true", []string{`WORKER_SHUTDOWN_TIMEOUT: expected less than 10s, got 10s`}},
		{"WORKER_SHUTDOWN_TIMEOUT=10s CLOUD_RUN_JOB=relay", []string{`WORKER_SHUTDOWN_TIMEOUT: expected less than 10s, got 10s`}},
		{"WORKER_BATCH_MAX_EVENTS=many", []string{`WORKER_BATCH_MAX_EVENTS: ` + number + `"many"`}},
		{"WORKER_BATCH_MAX_EVENTS=0", []string{`WORKER_BATCH_MAX_EVENTS: expected at least 1, got 0`}},
		{"WORKER_BATCH_MAX_EVENTS=20001", []string{`WORKER_BATCH_MAX_EVENTS: 20001 is more than WORKER_MAX_OUTSTANDING_EVENTS=20000 lets in`}},
		{"WORKER_BATCH_MAX_BYTES=large", []string{`WORKER_BATCH_MAX_BYTES: ` + size + `"large"`}},
		{"WORKER_BATCH_MAX_BYTES=-1", []string{`WORKER_BATCH_MAX_BYTES: ` + size + `"-1"`}},
		{"WORKER_BATCH_MAX_BYTES=0", []string{`WORKER_BATCH_MAX_BYTES: expected 1 to 94306304 bytes (the gateway refuses messages over 90 MiB), got 0`}},
		{"WORKER_BATCH_MAX_BYTES=94306305", []string{`WORKER_BATCH_MAX_BYTES: expected 1 to 94306304 bytes`}},
		{"WORKER_MAX_OUTSTANDING_BYTES=1MiB", []string{`WORKER_BATCH_MAX_BYTES: 3145728 is more than WORKER_MAX_OUTSTANDING_BYTES=1048576 lets in`}},
		{"WORKER_BATCH_MAX_DELAY=-1s", []string{`WORKER_BATCH_MAX_DELAY: expected 0 or more`}},
		{"WORKER_BATCH_MAX_DELAY=10m", []string{`WORKER_BATCH_MAX_DELAY: expected 0 or more, and less than the 10m0s for which an event stays in flight, got 10m0s`}},
		{"WORKER_MODE=drain WORKER_BATCH_MAX_DELAY=16s", []string{`WORKER_BATCH_MAX_DELAY: 16s is longer than WORKER_DRAIN_IDLE=15s`}},
		{"WORKER_SUBMIT_CONCURRENCY=0", []string{`WORKER_SUBMIT_CONCURRENCY: expected auto or a whole number from 1 to 1000, got "0"`}},
		{"WORKER_SUBMIT_CONCURRENCY=1001", []string{`WORKER_SUBMIT_CONCURRENCY: expected auto or a whole number from 1 to 1000, got "1001"`}},
		{"WORKER_SUBMIT_CONCURRENCY=Auto", []string{`WORKER_SUBMIT_CONCURRENCY: expected auto or a whole number from 1 to 1000, got "Auto"`}},
		{"WORKER_SUBMIT_CONCURRENCY=8.5", []string{`WORKER_SUBMIT_CONCURRENCY: expected auto or a whole number from 1 to 1000, got "8.5"`}},
		{"WORKER_SUBMIT_CONCURRENCY_MAX=0", []string{`WORKER_SUBMIT_CONCURRENCY_MAX: expected 1 to 1000, got 0`}},
		{"WORKER_SUBMIT_CONCURRENCY_MAX=1001", []string{`WORKER_SUBMIT_CONCURRENCY_MAX: expected 1 to 1000, got 1001`}},
		{"WORKER_SUBMIT_CONCURRENCY_MAX=auto", []string{`WORKER_SUBMIT_CONCURRENCY_MAX: ` + number + `"auto"`}},
		{"WORKER_SUBMIT_TIMEOUT=0s", []string{`WORKER_SUBMIT_TIMEOUT: expected more than 0 and at most 1m30s`}},
		{"WORKER_SUBMIT_TIMEOUT=91s", []string{`WORKER_SUBMIT_TIMEOUT: expected more than 0 and at most 1m30s (the gateway cuts a stream after 2m0s), got 1m31s`}},
		{"WORKER_REJECT_AFTER=-1", []string{`WORKER_REJECT_AFTER: expected 0 (never) or more, got -1`}},
		{"WORKER_REJECT_AFTER=5.5", []string{`WORKER_REJECT_AFTER: ` + number + `"5.5"`}},
		{"WORKER_MAX_OUTSTANDING_EVENTS=0", []string{`WORKER_MAX_OUTSTANDING_EVENTS: expected at least 1, got 0`}},
		{"WORKER_MAX_OUTSTANDING_BYTES=0", []string{`WORKER_MAX_OUTSTANDING_BYTES: expected at least 1, got 0`}},
		{"WORKER_MAX_OUTSTANDING_BYTES=2TiB", []string{`WORKER_MAX_OUTSTANDING_BYTES: ` + size}},
		{"WORKER_INSECURE_DEV=maybe", []string{`WORKER_INSECURE_DEV: expected true or false, got "maybe"`}},
		{"MSP=yes", []string{`MSP: expected true or false, got "yes"`}},
		{"PORT=0", []string{`PORT: expected a port from 1 to 65535, got "0"`}},
		{"PORT=http", []string{`PORT: expected a port from 1 to 65535, got "http"`}},
		{"WORKER_DIAGNOSTICS_ADDR=:65536", []string{`WORKER_DIAGNOSTICS_ADDR: expected a port from 0 to 65535, got "65536"`}},
		{"WORKER_DIAGNOSTICS_ADDR=127.0.0.1:-1", []string{`WORKER_DIAGNOSTICS_ADDR: expected a port from 0 to 65535, got "-1"`}},
		{"WORKER_DIAGNOSTICS_ADDR=127.0.0.1:http", []string{`WORKER_DIAGNOSTICS_ADDR: expected a port from 0 to 65535, got "http"`}},
		{"WORKER_DIAGNOSTICS_ADDR=127.0.0.1:", []string{`WORKER_DIAGNOSTICS_ADDR: expected a port from 0 to 65535, got ""`}},
		{"ENVIRONMENT_ID=pr\xffd", []string{`ENVIRONMENT_ID: expected UTF-8 without control characters, got "pr\xffd"`}},
		{"ENVIRONMENT_ID=pr\x01od", []string{`ENVIRONMENT_ID: expected UTF-8 without control characters, got "pr\x01od"`}},
		{"WORKER_DIAGNOSTICS_ADDR=8080", []string{`WORKER_DIAGNOSTICS_ADDR: expected host:port or :port, got "8080"`}},
		{"JOB_EXECUTION_DEADLINE=300", []string{`JOB_EXECUTION_DEADLINE: ` + duration + `"300"`}},
		{"JOB_EXECUTION_DEADLINE=0s", []string{`JOB_EXECUTION_DEADLINE: expected a positive duration, got 0s`}},
		{"JOB_EXECUTION_DEADLINE=13s WORKER_MODE=drain", []string{`JOB_EXECUTION_DEADLINE: 13s leaves no time to receive: WORKER_SHUTDOWN_TIMEOUT=8s and 5s of reserve are taken off it`}},
		{"JOB_EXECUTION_DEADLINE=13s CLOUD_RUN_JOB=relay", []string{`JOB_EXECUTION_DEADLINE: 13s leaves no time to receive`}},
		{"JOB_EXECUTION_DEADLINE=14s WORKER_MODE=drain", []string{`WORKER_BATCH_MAX_DELAY: 1s is longer than the 1s that JOB_EXECUTION_DEADLINE leaves to receive`}},

		{"WORKER_SERVICES_FILE=/does/not/exist", []string{`WORKER_SERVICES_FILE: expected a readable file`}},
		{"WORKER_SERVICES_FILE=/does/not/exist WORKER_SERVICES=services:", []string{`WORKER_SERVICES_FILE: is set together with WORKER_SERVICES`}},
		{"WORKER_SERVICES=services:", []string{`WORKER_SERVICES: services: expected at least one`}},
		{"WORKER_SERVICES=[", []string{`WORKER_SERVICES: expected YAML`}},

		// A combination is not judged when a part of it could not be read.
		{"WORKER_MAX_OUTSTANDING_EVENTS=x WORKER_MAX_OUTSTANDING_BYTES=x WORKER_DRAIN_IDLE=x WORKER_MODE=drain", []string{
			`WORKER_DRAIN_IDLE: ` + duration, `WORKER_MAX_OUTSTANDING_EVENTS: ` + number, `WORKER_MAX_OUTSTANDING_BYTES: ` + size}},
		{"WORKER_SHUTDOWN_TIMEOUT=x JOB_EXECUTION_DEADLINE=1s WORKER_MODE=drain", []string{`WORKER_SHUTDOWN_TIMEOUT: ` + duration}},
		// All at once.
		{"GOOGLE_CLOUD_PROJECT=/ LOG_LEVEL=x SAMS_URL=x WORKER_MODE=x WORKER_REJECT_AFTER=x WORKER_SERVICES=x", []string{
			`WORKER_REJECT_AFTER: `, `GOOGLE_CLOUD_PROJECT: `, `LOG_LEVEL: `, `SAMS_URL: `, `WORKER_MODE: `, `WORKER_SERVICES: `}},
	} {
		t.Run(c.vars, func(t *testing.T) {
			got, err := Load(environ(strings.Fields(c.vars)...), ForRun)
			if got != nil {
				t.Error("a configuration in spite of faults")
			}
			wantFaults(t, err, c.want...)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
}

func TestInsecureDev(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1", "127.1.2.3:80", "[::1]:8080"} {
		mustLoad(t, "WORKER_INSECURE_DEV=true", "SAMS_URL=http://"+host, "SAMS_API_URL=http://"+host, "TELEMETRY_GATEWAY_URL=http://"+host)
	}
	mustLoad(t, "WORKER_INSECURE_DEV=true") // https:// is never wrong
}

func TestPubSubEndpoint(t *testing.T) {
	for _, endpoint := range []string{"us-east1-pubsub.googleapis.com:443", "127.0.0.1:8443", "[::1]:443"} {
		if c := mustLoad(t, "PUBSUB_ENDPOINT="+endpoint); c.PubSubEndpoint != endpoint {
			t.Errorf("got %q", c.PubSubEndpoint)
		}
	}
	_, err := Load([]string{"GOOGLE_CLOUD_PROJECT=p", "PUBSUB_ENDPOINT=x", "PUBSUB_EMULATOR_HOST=localhost:1"}, ForPubSub)
	wantFaults(t, err, "PUBSUB_ENDPOINT: is set together with PUBSUB_EMULATOR_HOST", "PUBSUB_ENDPOINT: expected host:port")
}

func TestCommandsNeedOnlyTheirVariables(t *testing.T) {
	// On-call needs neither a secret nor sound settings of the run.
	vars := []string{"GOOGLE_CLOUD_PROJECT=p", "WORKER_BATCH_MAX_EVENTS=0", "SAMS_URL=x", "PORT=x", "WORKER_MODE=x"}
	c, err := Load(vars, ForPubSub)
	if err != nil || c.DeadLetterSubscriptionName() != "projects/p/subscriptions/telemetry-events-dlq-oncall" || c.Services == nil {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = Load([]string{"LOG_LEVEL=x", "WORKER_SERVICES=["}, ForPubSub)
	wantFaults(t, err, "GOOGLE_CLOUD_PROJECT: ", "LOG_LEVEL: ", "WORKER_SERVICES: ")
	_, err = Load([]string{"GOOGLE_CLOUD_PROJECT=p"}, ForRun)
	wantFaults(t, err, "SAMS_CLIENT_ID: is required", "SAMS_CLIENT_SECRET: is required")
}

func TestSecretsAreNotShown(t *testing.T) {
	c := mustLoad(t, "SAMS_CLIENT_SECRET=hunter2", "DIAGNOSTICS_SECRET=hunter2")
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "secret", c.SAMSClientSecret)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "secret", c.SAMSClientSecret)
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{log.String(), string(encoded)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %[1]v"} {
		all = append(all, fmt.Sprintf(verb, c), fmt.Sprintf(verb, *c), fmt.Sprintf(verb, c.SAMSClientSecret), fmt.Sprintf(verb, []Secret{c.DiagnosticsSecret}))
	}
	for _, s := range all {
		if strings.Contains(s, "hunter2") || strings.Contains(strings.ToLower(s), "68756e74657232") {
			t.Errorf("shown: %s", s)
		}
	}
	if string(c.SAMSClientSecret) != "hunter2" {
		t.Error("the secret itself is gone")
	}
}

func TestByteSizesAreParsed(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "1": 1, "3145728": 3 << 20, "3MiB": 3 << 20, "3 MB": 3e6, "1TiB": 1 << 40} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%s: %d, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1.5.5", "1,5MiB", "1,500,000", "1.5,5", ",", "1 ,MiB", ".5MiB", "1.MiB", "+1", "0x10", "1e6", "1_000", "3 M iB", " 3MiB", "٣MiB", "3 potatoes", "999999999999999999999"} {
		if err := new(Bytes).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	if got := Bytes(3 << 20).String(); got != "3.0 MiB" {
		t.Errorf("got %s", got)
	}
}

// TestSurroundingSpace: what ends with a line break looks right wherever it is
// shown.
func TestSurroundingSpace(t *testing.T) {
	const fault = "begins or ends with white space or a line break"
	for _, variable := range []string{
		"GOOGLE_CLOUD_PROJECT=my-project", "SAMS_CLIENT_ID=id", "SAMS_CLIENT_SECRET=hunter2", "DIAGNOSTICS_SECRET=hunter2", "ENVIRONMENT_ID=prod",
		"PUBSUB_EMULATOR_HOST=localhost:8085", "PUBSUB_TOPIC=events", "SENTRY_DSN=https://hunter2@sentry.test/1", "SAMS_URL=https://sams.test",
		"WORKER_BATCH_MAX_EVENTS=5", "WORKER_BATCH_MAX_BYTES=1MiB", "WORKER_MODE=drain", "MSP=true", "OTEL_SDK_DISABLED=true", "JOB_EXECUTION_CRON_SCHEDULE=* * * * *",
	} {
		name, value, _ := strings.Cut(variable, "=")
		for _, bad := range []string{value + "\n", value + "\r\n", " " + value, value + "\u00a0", "\ufeff" + value, value + "\u200b"} {
			_, err := Load(environ(name+"="+bad), ForRun)
			wantFaults(t, err, name+": "+fault)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is shown: %v", err)
			}
		}
	}
	_, err := Load(environ("SAMS_CLIENT_SECRET= \n"), ForRun)
	wantFaults(t, err, "SAMS_CLIENT_SECRET: "+fault, "SAMS_CLIENT_SECRET: is required")
	if got := mustLoad(t, "WORKER_SERVICES=\n services: [{id: a}]\n"); !got.Services.Listed("a") {
		t.Error("YAML with white space around it")
	}
	// Each command has what it uses judged.
	pubsub := []string{"GOOGLE_CLOUD_PROJECT=p", "SAMS_CLIENT_SECRET=hunter2\n", "WORKER_MODE=drain "}
	if _, err := Load(pubsub, ForPubSub); err != nil {
		t.Error(err)
	}
	_, err = Load(append(pubsub, "DLQ_TOPIC=dead\n"), ForPubSub)
	wantFaults(t, err, "DLQ_TOPIC: "+fault)
	_, err = Load([]string{"ENVIRONMENT_ID=prod\n", "WORKER_BATCH_MAX_EVENTS=x", "PUBSUB_TOPIC=x\n"}, ForCheck)
	wantFaults(t, err, "ENVIRONMENT_ID: "+fault)
}

func TestOTLPSecrets(t *testing.T) {
	got := OTLPSecrets([]string{"A=b", "OTEL_EXPORTER_OTLP_HEADERS=api-key=hunter2,authorization=Basic%20aHVudGVy", "OTEL_EXPORTER_OTLP_TRACES_HEADERS=x=y"})
	if want := []string{"hunter2", "Basic aHVudGVy", "aHVudGVy", "y"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestServicesFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services.yaml")
	if err := os.WriteFile(file, []byte("services: [{id: from-a-file}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := mustLoad(t, "WORKER_SERVICES_FILE="+file); !c.Services.Listed("from-a-file") || c.Services.Listed("sams") {
		t.Errorf("%+v", c.Services.Services())
	}
	if err := os.WriteFile(file, []byte("services: [{id: A}, {id: B}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(environ("WORKER_SERVICES_FILE="+file), ForRun)
	wantFaults(t, err, `WORKER_SERVICES_FILE: service "A"`, `WORKER_SERVICES_FILE: service "B"`)
}

// TestOnlyServicesFileNamesCatalogues: a services file may refer to a catalogue beside it,
// and a variable may not.
func TestOnlyServicesFileNamesCatalogues(t *testing.T) {
	dir := t.TempDir()
	const list = "services: [{id: sams, privateMetadata: drop, catalogue: telemetry.yaml}]"
	file := filepath.Join(dir, "services.yaml")
	for name, text := range map[string]string{
		file:                                 list,
		filepath.Join(dir, "telemetry.yaml"): "{service: sams, owner: o, events: [{feature: sams.user, action: created, description: d}]}",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	service, _ := mustLoad(t, "WORKER_SERVICES_FILE="+file).Services.Lookup("sams")
	if _, ok := service.Catalogue.Event([]byte("sams.user"), []byte("created")); !ok {
		t.Errorf("%+v", service)
	}
	_, err := Load(environ("WORKER_SERVICES="+list), ForRun)
	wantFaults(t, err, `WORKER_SERVICES: service "sams": catalogue: a file can be named in a services file only (WORKER_SERVICES_FILE)`)
}
