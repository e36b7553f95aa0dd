package otelexport_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/otelexport"
	"github.com/sourcegraph/telemetry-relay/internal/otelexport/otlptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t *testing.T, vars ...string) *config.Config {
	t.Helper()
	cfg, err := config.Load(append([]string{
		"GOOGLE_CLOUD_PROJECT=my-project", "SAMS_CLIENT_ID=id", "SAMS_CLIENT_SECRET=secret", "ENVIRONMENT_ID=dev",
	}, vars...), config.ForRun)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func start(t *testing.T, m *metrics.Metrics, vars ...string) *otelexport.Observer {
	t.Helper()
	o, err := otelexport.Start(t.Context(), otelexport.Options{
		Config: load(t, vars...), Service: "telemetry-relay", Version: "1.2.3", Metrics: m.Registry, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func closeIt(t *testing.T, o *otelexport.Observer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := o.Close(ctx); err != nil {
		t.Error(err)
	}
}

// once waits for something that must happen.
func once(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not happen", what)
		}
	}
}

// TestMetricsArePushedAtStartAndEnd wants what a job counts to be seen to grow, however short it is: a
// push at the start, and one at the end.
func TestMetricsArePushedAtStartAndEnd(t *testing.T) {
	receiver := otlptest.Start(t)
	m := metrics.New()
	m.Expect([]string{"sams"}, []string{"invalid_event"})
	o := start(t, m, "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver.URL, "CLOUD_RUN_EXECUTION=relay-x7", "CLOUD_RUN_TASK_INDEX=0", "CLOUD_RUN_TASK_ATTEMPT=1")
	once(t, "the first push", func() bool { return len(receiver.Pushes()) > 0 })
	m.EventsReceived.WithLabelValues("sams").Add(7)
	m.EventDelivery.Observe(0.2)
	m.LastSuccess.Set(1e9)
	closeIt(t, o)
	pushes := receiver.Pushes()
	first, last := pushes[0], pushes[len(pushes)-1]
	for name, want := range map[string][2]float64{
		"telemetry_relay_events_received_total":          {0, 7},
		"telemetry_relay_event_delivery_seconds":         {0, 1},
		"telemetry_relay_last_success_timestamp_seconds": {0, 1e9},
		"telemetry_relay_run_ended_total":                {0, 0},
	} {
		if a, ok := first.Sums[name]; !ok || a != want[0] {
			t.Errorf("%s was first pushed as %v, %v", name, a, ok)
		}
		if b := last.Sums[name]; b != want[1] {
			t.Errorf("%s was pushed last as %v, want %v", name, b, want[1])
		}
	}
	if last.Sums["go_goroutines"] == 0 {
		t.Error("the runtime's metrics are not pushed")
	}
	for key, want := range map[string]string{
		"service.name": "telemetry-relay", "service.version": "1.2.3", "service.instance.id": "relay-x7/0/1", "deployment.environment.name": "dev",
	} {
		if got := last.Resource[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if _, ok := last.Resource["gcp.project_id"]; ok {
		t.Error("what only Google Cloud needs is told to others")
	}
}

// TestResourceFromEnvironment: the standard's variable has the last word, and what
// cannot be read of it does not stop the worker.
func TestResourceFromEnvironment(t *testing.T) {
	receiver := otlptest.Start(t)
	for _, attributes := range []string{"service.instance.id=mine,team=core", "service.instance.id=mine,team=core,broken"} {
		t.Setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
		closeIt(t, start(t, metrics.New(), "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver.URL))
		pushes := receiver.Pushes()
		last := pushes[len(pushes)-1].Resource
		if last["service.instance.id"] != "mine" || last["team"] != "core" || last["service.name"] != "telemetry-relay" {
			t.Errorf("%s: pushed by %v", attributes, last)
		}
	}
}

// TestRunsHaveSeparateSeries: two runs must not share their series.
func TestRunsHaveSeparateSeries(t *testing.T) {
	receiver := otlptest.Start(t)
	for range 2 {
		closeIt(t, start(t, metrics.New(), "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver.URL))
	}
	ids := map[string]bool{}
	for _, p := range receiver.Pushes() {
		ids[p.Resource["service.instance.id"]] = true
	}
	if len(ids) != 2 || ids[""] {
		t.Errorf("got the instances %v", ids)
	}
}

func TestNothingIsSentWithoutEndpoint(t *testing.T) {
	receiver := otlptest.Start(t)
	for _, vars := range [][]string{
		nil,
		{"OTEL_EXPORTER_OTLP_ENDPOINT=" + receiver.URL, "OTEL_SDK_DISABLED=true"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=" + receiver.URL, "OTEL_METRICS_EXPORTER=none", "OTEL_TRACES_EXPORTER=none"},
	} {
		o := start(t, metrics.New(), vars...)
		if o.Tracer() != nil {
			t.Errorf("%v: something is traced", vars)
		}
		closeIt(t, o)
	}
	if n := len(receiver.Bodies()); n != 0 {
		t.Errorf("%d requests in spite of being off", n)
	}
}

// TestUnavailableReceiverDelaysLittle requires that a missing receiver costs only the given time.
func TestUnavailableReceiverDelaysLittle(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	o := start(t, metrics.New(), "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+l.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := o.Close(ctx); err == nil {
		t.Error("nobody took the metrics, and that is no error")
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

// collector is the metrics service over gRPC.
type collector struct {
	collectormetrics.UnimplementedMetricsServiceServer
	receiver *otlptest.Receiver
}

func (c collector) Export(_ context.Context, r *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	c.receiver.TakeMetrics(r)
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

func TestPushOverGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, receiver := grpc.NewServer(), otlptest.Start(t)
	collectormetrics.RegisterMetricsServiceServer(server, collector{receiver: receiver})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() { server.Stop(); <-served }()
	closeIt(t, start(t, metrics.New(), "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+l.Addr().String(), "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_TRACES_EXPORTER=none"))
	if len(receiver.Pushes()) < 2 {
		t.Errorf("%d pushes", len(receiver.Pushes()))
	}
}

// TestGoogleCredentialsAreUsed pretends to be Cloud Run's metadata server, which gives the
// credentials of the worker's service account.
func TestGoogleCredentialsAreUsed(t *testing.T) {
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		switch {
		case strings.HasSuffix(r.URL.Path, "/instance/region"):
			_, _ = w.Write([]byte("projects/1/regions/us-central1"))
		case strings.HasSuffix(r.URL.Path, "/token"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"access_token":"google-t0ken","expires_in":3600,"token_type":"Bearer"}`))
		case strings.HasSuffix(r.URL.Path, "universe-domain") || strings.HasSuffix(r.URL.Path, "universe_domain"):
			_, _ = w.Write([]byte("googleapis.com"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer metadata.Close()
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(metadata.URL, "http://"))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())
	receiver := otlptest.Start(t)
	defer otelexport.RedirectGoogle(strings.TrimPrefix(receiver.URL, "http://"))()
	closeIt(t, start(t, metrics.New(), "MSP=true", "OTEL_GCP_PROJECT_ID=telemetry-project"))
	pushes := receiver.Pushes()
	if len(pushes) == 0 {
		t.Fatal("nothing was pushed")
	}
	for key, want := range map[string]string{
		"gcp.project_id": "telemetry-project", "cloud.region": "us-central1", "cloud.platform": "gcp_cloud_run", "cloud.provider": "gcp",
	} {
		if got := pushes[0].Resource[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	for _, h := range receiver.Headers() {
		if h.Get("Authorization") != "Bearer google-t0ken" {
			t.Errorf("headers %v", h)
		}
	}
}
