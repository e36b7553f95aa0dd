package config

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Telemetry has the settings of the worker's own telemetry: OpenTelemetry's standard
// variables and Sentry's. OpenTelemetry reads the others itself (headers, intervals, the
// sampler's argument and so on); otelForms checks them.
type Telemetry struct {
	OTELDisabled bool `env:"OTEL_SDK_DISABLED" envDefault:"false"`
	// OTELProject is the Google Cloud project to which MSP wants it sent.
	OTELProject string `env:"OTEL_GCP_PROJECT_ID"`

	OTLPEndpoint        string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	OTLPMetricsEndpoint string `env:"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"`
	OTLPTracesEndpoint  string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	OTLPProtocol        string `env:"OTEL_EXPORTER_OTLP_PROTOCOL" envDefault:"http/protobuf"`
	OTLPMetricsProtocol string `env:"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"`
	OTLPTracesProtocol  string `env:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"`
	MetricsExporter     string `env:"OTEL_METRICS_EXPORTER"`
	TracesExporter      string `env:"OTEL_TRACES_EXPORTER"`
	TracesSampler       string `env:"OTEL_TRACES_SAMPLER"`

	// SentryDSN is the address to which errors are reported; empty: they are not.
	SentryDSN Secret `env:"SENTRY_DSN"`
	// JobSchedule is the cron expression that starts the job.
	JobSchedule string `env:"JOB_EXECUTION_CRON_SCHEDULE"`

	// Cloud Run names executions of jobs, and revisions of services.
	CloudRunExecution string `env:"CLOUD_RUN_EXECUTION"`
	CloudRunTask      string `env:"CLOUD_RUN_TASK_INDEX"`
	CloudRunAttempt   string `env:"CLOUD_RUN_TASK_ATTEMPT"`
}

// Export says how one kind of telemetry leaves the worker over OTLP.
type Export struct {
	// URL is the receiver: the full address with http/protobuf, scheme and host with
	// gRPC.
	URL  string
	GRPC bool
	// Google: the receiver is Google Cloud's and wants Google credentials.
	Google bool
}

const (
	// GoogleOTLP is Google Cloud's endpoint for OTLP.
	GoogleOTLP   = "https://telemetry.googleapis.com"
	googleHost   = "telemetry.googleapis.com"
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
	// The standard's endpoints of a collector beside the program.
	localHTTP = "http://localhost:4318"
	localGRPC = "http://localhost:4317"
)

// MetricsExport returns how metrics are pushed; ok is false when they are not.
func (c *Config) MetricsExport() (e Export, ok bool) {
	return c.export(c.MetricsExporter, c.OTLPMetricsEndpoint, c.OTLPMetricsProtocol, "/v1/metrics")
}

// TracesExport returns how traces are sent; ok is false when nothing is traced.
func (c *Config) TracesExport() (e Export, ok bool) {
	return c.export(c.TracesExporter, c.OTLPTracesEndpoint, c.OTLPTracesProtocol, "/v1/traces")
}

// export chooses the endpoint: the signal's own, the common one, Google's on MSP,
// the standard's if an exporter was asked for by name.
func (c *Config) export(exporter, own, ownProtocol, path string) (Export, bool) {
	if c.OTELDisabled || exporter == "none" {
		return Export{}, false
	}
	protocol := c.OTLPProtocol
	if ownProtocol != "" {
		protocol = ownProtocol
	}
	e := Export{GRPC: protocol == protocolGRPC}
	switch {
	case own != "":
		e.URL = own // used as it is, says the standard
	case c.OTLPEndpoint != "":
		e.URL = trimSlash(c.OTLPEndpoint)
	case c.MSP && c.OTELProject != "":
		e = Export{URL: GoogleOTLP}
	case exporter == "otlp" && e.GRPC:
		e.URL = localGRPC
	case exporter == "otlp":
		e.URL = localHTTP
	default:
		return Export{}, false
	}
	if own == "" && !e.GRPC {
		e.URL += path
	}
	if u, err := url.Parse(e.URL); err == nil {
		e.Google = u.Hostname() == googleHost
	}
	return e, true
}

// TelemetryProject is the Google Cloud project to which telemetry belongs.
func (c *Config) TelemetryProject() string {
	if c.OTELProject != "" {
		return c.OTELProject
	}
	return c.Project
}

// samplers are the standard's samplers that need no remote configuration.
var samplers = []string{
	"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
}

func (c validation) validateTelemetry() {
	if c.SentryDSN != "" {
		validateDSN(string(c.SentryDSN), c.faults)
	}
	if c.OTELDisabled {
		return
	}
	validateOTEL(c.vars, c.faults)
	if c.OTELProject != "" && !projectID.MatchString(c.OTELProject) {
		c.faults.add("OTEL_GCP_PROJECT_ID", "expected a project id such as my-project")
	}
	for _, v := range []struct {
		variable, value string
		allowed         []string
	}{
		{"OTEL_EXPORTER_OTLP_PROTOCOL", c.OTLPProtocol, []string{protocolHTTP, protocolGRPC}},
		{"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", c.OTLPMetricsProtocol, []string{protocolHTTP, protocolGRPC}},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", c.OTLPTracesProtocol, []string{protocolHTTP, protocolGRPC}},
		{"OTEL_METRICS_EXPORTER", c.MetricsExporter, []string{"otlp", "none"}},
		{"OTEL_TRACES_EXPORTER", c.TracesExporter, []string{"otlp", "none"}},
		{"OTEL_TRACES_SAMPLER", c.TracesSampler, samplers},
	} {
		if v.value != "" && !slices.Contains(v.allowed, v.value) {
			c.faults.add(v.variable, "expected %s", strings.Join(v.allowed, " or "))
		}
	}
	for _, v := range []struct{ variable, value string }{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", c.OTLPEndpoint},
		{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", c.OTLPMetricsEndpoint},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.OTLPTracesEndpoint},
	} {
		if v.value != "" {
			validateEndpoint(v.variable, v.value, c.faults)
		}
	}
	for _, signal := range []func() (Export, bool){c.MetricsExport, c.TracesExport} {
		if e, ok := signal(); ok && e.Google && e.GRPC {
			c.faults.add("OTEL_EXPORTER_OTLP_PROTOCOL", "expected %s for %s", protocolHTTP, googleHost)
			return
		}
	}
}

// validateEndpoint echoes nothing of a bad URL: it may hold a password.
func validateEndpoint(variable, value string, faults *Faults) {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http"):
		faults.add(variable, "expected a URL such as https://host:4318")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		faults.add(variable, "expected https:// (http:// is for loopback addresses only)")
	case u.User != nil:
		faults.add(variable, "expected a URL without user; credentials belong into OTEL_EXPORTER_OTLP_HEADERS")
	}
}

// validateDSN checks the form https://KEY@HOST/PROJECT. It echoes nothing but
// the host.
func validateDSN(dsn string, faults *Faults) {
	u, err := url.Parse(dsn)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User.Username() == "" {
		faults.add("SENTRY_DSN", "expected a DSN of the form https://KEY@HOST/PROJECT")
		return
	}
	if _, err := strconv.ParseUint(u.Path[strings.LastIndex(u.Path, "/")+1:], 10, 64); err != nil {
		faults.add("SENTRY_DSN", "expected a DSN of the form https://KEY@HOST/PROJECT, where PROJECT is a number")
		return
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		faults.add("SENTRY_DSN", "expected https:// (http:// is for loopback addresses only, and %q is none)", u.Hostname())
	}
}
