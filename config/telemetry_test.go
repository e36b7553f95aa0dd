package config

import "testing"

func TestExportersFollowFromEnvironment(t *testing.T) {
	type want struct{ metrics, traces Export }
	both := func(e Export) want { return want{e, e} }
	at := func(base string) want {
		return want{Export{URL: base + "/v1/metrics"}, Export{URL: base + "/v1/traces"}}
	}
	google := at("https://telemetry.googleapis.com")
	google.metrics.Google, google.traces.Google = true, true
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=https://collector.test:4318/"
	for _, c := range []struct {
		vars []string
		want want
	}{
		{nil, want{}},
		{[]string{"OTEL_GCP_PROJECT_ID=p"}, want{}},
		{[]string{"MSP=true"}, want{}},
		{[]string{"MSP=true", "OTEL_GCP_PROJECT_ID=p"}, google},
		{[]string{"MSP=true", "OTEL_GCP_PROJECT_ID=p", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, google},
		{[]string{"MSP=true", "OTEL_GCP_PROJECT_ID=p", "OTEL_SDK_DISABLED=true"}, want{}},
		{[]string{"MSP=true", "OTEL_GCP_PROJECT_ID=p", "OTEL_TRACES_EXPORTER=none"}, want{metrics: google.metrics}},
		{[]string{"MSP=true", "OTEL_GCP_PROJECT_ID=p", endpoint}, at("https://collector.test:4318")},
		{[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://telemetry.googleapis.com:443"}, want{
			Export{URL: "https://telemetry.googleapis.com:443/v1/metrics", Google: true}, Export{URL: "https://telemetry.googleapis.com:443/v1/traces", Google: true},
		}},
		{[]string{endpoint}, at("https://collector.test:4318")},
		{[]string{endpoint, "OTEL_SDK_DISABLED=true", "OTEL_TRACES_SAMPLER=not checked then"}, want{}},
		{[]string{endpoint, "OTEL_METRICS_EXPORTER=none"}, want{traces: Export{URL: "https://collector.test:4318/v1/traces"}}},
		{[]string{endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, both(Export{URL: "https://collector.test:4318", GRPC: true})},
		{[]string{endpoint, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc"}, want{Export{URL: "https://collector.test:4318/v1/metrics"}, Export{URL: "https://collector.test:4318", GRPC: true}}},
		{[]string{endpoint, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://traces.test/in"}, want{Export{URL: "https://collector.test:4318/v1/metrics"}, Export{URL: "https://traces.test/in"}}},
		{[]string{"OTEL_TRACES_EXPORTER=otlp"}, want{traces: Export{URL: "http://localhost:4318/v1/traces"}}},
		{[]string{"OTEL_METRICS_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, want{metrics: Export{URL: "http://localhost:4317", GRPC: true}}},
	} {
		got := mustLoad(t, c.vars...)
		var have want
		var metrics, traces bool
		have.metrics, metrics = got.MetricsExport()
		have.traces, traces = got.TracesExport()
		if have != c.want || metrics != (c.want.metrics.URL != "") || traces != (c.want.traces.URL != "") {
			t.Errorf("%v: got %+v %v %v, want %+v", c.vars, have, metrics, traces, c.want)
		}
	}
}

func TestTelemetryProject(t *testing.T) {
	if got := mustLoad(t).TelemetryProject(); got != "my-project" {
		t.Errorf("got %s", got)
	}
	if got := mustLoad(t, "OTEL_GCP_PROJECT_ID=other").TelemetryProject(); got != "other" {
		t.Errorf("got %s", got)
	}
}
