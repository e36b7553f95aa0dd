package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http/httpproxy"
)

const (
	// cloudRunGrace is the time that Cloud Run leaves between SIGTERM and SIGKILL.
	cloudRunGrace = 10 * time.Second
	// gatewayStreamLimit is the time after which the gateway cuts a stream.
	gatewayStreamLimit = 2 * time.Minute
	// maxSubmitTimeout ends a stream well before that, because a stream that the gateway
	// cuts looks like a fault of the gateway.
	maxSubmitTimeout = 90 * time.Second
	// MaxBatchBytes is the largest encoded batch: the 90 MiB that the gateway receives as
	// one message, less space for the envelope.
	MaxBatchBytes = 90<<20 - 64<<10
	// maxLease is how long an event stays in flight at most. A longer batch delay would
	// outlive it.
	maxLease = 10 * time.Minute
)

var (
	resourceID = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._~+%-]{2,254}$`)
	fullName   = regexp.MustCompile(`^projects/[^/]+/(topics|subscriptions)/[^/]+$`)
	// projectID is what emulators take too, which is more than Google Cloud does.
	projectID = regexp.MustCompile(`^[A-Za-z0-9._:-]+$`)
	hostname  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
)

// validation is the check of a configuration, which collects faults.
type validation struct {
	*Config
	vars   map[string]string
	broken map[string]bool // variables that could not be read
	faults *Faults
}

func (c validation) validate(purpose Purpose) {
	if c.Project == "" {
		c.faults.add("GOOGLE_CLOUD_PROJECT", "is required: the id of the Google Cloud project")
	} else if !projectID.MatchString(c.Project) {
		c.faults.add("GOOGLE_CLOUD_PROJECT", "expected a project id such as my-project, got %q", clip(c.Project))
	}
	for _, r := range []struct{ variable, kind, value string }{
		{"PUBSUB_TOPIC", "topics", c.Topic},
		{"PUBSUB_SUBSCRIPTION", "subscriptions", c.Subscription},
		{"DLQ_TOPIC", "topics", c.DeadLetterTopic},
		{"DLQ_SUBSCRIPTION", "subscriptions", c.DeadLetterSubscription},
		{"DLQ_VIEW_SUBSCRIPTION", "subscriptions", c.DeadLetterView},
		{"RECEIPTS_TOPIC", "topics", c.ReceiptsTopic},
		{"RECEIPTS_SUBSCRIPTION", "subscriptions", c.ReceiptsSubscription},
	} {
		if r.value != "" { // some are optional, and the others have defaults
			validateResource(r.variable, r.kind, r.value, c.faults)
		}
	}
	c.validateDistinct()
	if c.EmulatorHost != "" {
		validateHostPort("PUBSUB_EMULATOR_HOST", c.EmulatorHost, c.faults)
	}
	if c.PubSubEndpoint != "" {
		c.validatePubSubEndpoint()
	}
	validateProxies(c.vars, c.faults)
	// The environment is part of every event and of each stream's metadata, where protobuf
	// accepts no other text.
	if !utf8.ValidString(c.Environment) || strings.ContainsFunc(c.Environment, unicode.IsControl) {
		c.faults.add("ENVIRONMENT_ID", "expected UTF-8 without control characters, got %q", clip(c.Environment))
	}
	c.validateLogging()
	if purpose == ForRun {
		c.validateDependencies()
		c.validateTelemetry()
		c.validateRun()
	}
}

// validateDistinct refuses one topic or subscription for two purposes.
func (c validation) validateDistinct() {
	if c.TopicName() == c.DeadLetterTopicName() {
		c.faults.add("DLQ_TOPIC", "is the same topic as PUBSUB_TOPIC: rejected events would go round for ever")
	}
	switch c.ReceiptsTopicName() {
	case c.TopicName():
		c.faults.add("RECEIPTS_TOPIC", "is the same topic as PUBSUB_TOPIC: the worker would take its own receipts for events")
	case c.DeadLetterTopicName():
		c.faults.add("RECEIPTS_TOPIC", "is the same topic as DLQ_TOPIC: receipts would be in the dead-letter queue")
	}
	const taken = "is the same subscription as %s: expected one of its own, because its readers would take each other's messages"
	used := map[string]string{}
	for _, s := range []struct{ variable, name string }{
		{"PUBSUB_SUBSCRIPTION", c.SubscriptionName()},
		{"DLQ_SUBSCRIPTION", c.DeadLetterSubscriptionName()},
		{"DLQ_VIEW_SUBSCRIPTION", c.DeadLetterViewName()},
		{"RECEIPTS_SUBSCRIPTION", c.ReceiptsSubscriptionName()},
	} {
		switch other, twice := used[s.name]; {
		case s.name == "":
		case twice:
			c.faults.add(s.variable, taken, other)
		default:
			used[s.name] = s.variable
		}
	}
}

// validatePubSubEndpoint does not repeat the value, because a value set by mistake may be a
// password.
func (c validation) validatePubSubEndpoint() {
	const variable = "PUBSUB_ENDPOINT"
	if c.EmulatorHost != "" {
		c.faults.add(variable, "is set together with PUBSUB_EMULATOR_HOST: expected one of them, as an emulator has no regional endpoint")
	}
	host, port, err := net.SplitHostPort(c.PubSubEndpoint)
	_, notAddr := netip.ParseAddr(host)
	if err != nil || !validPort(port) || (notAddr != nil && !hostname.MatchString(host)) {
		c.faults.add(variable, "expected host:port of a regional endpoint, such as us-east1-pubsub.googleapis.com:443, without scheme, user and path")
	}
}

// hostName matches a name that can be looked up; empty means this machine.
var hostName = regexp.MustCompile(`^[A-Za-z0-9._-]*$`)

// validateHostPort does not repeat a bad value, because it may be a password.
func validateHostPort(variable, value string, faults *Faults) {
	host, port, err := net.SplitHostPort(value)
	if err == nil && !validPort(port) {
		err = errHostPort
	}
	if _, notAddress := netip.ParseAddr(host); err != nil || notAddress != nil && !hostName.MatchString(host) {
		faults.add(variable, "expected host:port such as localhost:8085, without scheme, user and path")
	}
}

var errHostPort = errors.New("no port")

// validateProxies checks variables that net/http and gRPC read themselves. They silently
// use no proxy if they cannot read an address.
func validateProxies(vars map[string]string, faults *Faults) {
	for _, variable := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		value, set := vars[variable]
		if !set {
			continue
		}
		proxy := httpproxy.Config{HTTPSProxy: value}
		if u, err := proxy.ProxyFunc()(&url.URL{Scheme: "https", Host: "sams.invalid"}); err != nil || u == nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
			faults.add(variable, "expected the URL of a proxy such as http://host:3128")
		}
	}
}

func validateResource(variable, kind, value string, faults *Faults) {
	id := value
	if strings.Contains(value, "/") {
		parts := strings.Split(value, "/")
		if len(parts) != 4 || parts[0] != "projects" || parts[1] == "" || parts[2] != kind {
			faults.add(variable, "expected an id or projects/PROJECT/%s/ID, got %q", kind, clip(value))
			return
		}
		id = parts[3]
	}
	if !resourceID.MatchString(id) || strings.HasPrefix(id, "goog") {
		faults.add(variable, "expected 3 to 255 characters that begin with a letter (and not with goog), got %q", clip(value))
	}
}

func (c validation) validateLogging() {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		c.faults.add("LOG_LEVEL", "expected debug, info, warn or error, got %q", clip(c.LogLevel))
	}
	if !slices.Contains([]string{"auto", "json", "text"}, c.LogFormat) {
		c.faults.add("LOG_FORMAT", "expected auto, json or text, got %q", clip(c.LogFormat))
	}
}

func (c validation) validateDependencies() {
	if strings.ContainsFunc(c.SAMSClientID+string(c.SAMSClientSecret), unicode.IsControl) {
		c.faults.add("SAMS_CLIENT_SECRET", "expected no control characters in it and in SAMS_CLIENT_ID")
	}
	if !httpguts.ValidHeaderFieldValue(string(c.DiagnosticsSecret)) || strings.ContainsFunc(string(c.DiagnosticsSecret), func(r rune) bool { return r > unicode.MaxASCII }) {
		c.faults.add("DIAGNOSTICS_SECRET", "expected printable ASCII characters: no prober could send others in a header")
	}
	if c.SAMSClientID == "" {
		c.faults.add("SAMS_CLIENT_ID", "is required: the id of the worker's SAMS client")
	}
	if c.SAMSClientSecret == "" {
		c.faults.add("SAMS_CLIENT_SECRET", "is required: the secret of the worker's SAMS client")
	}
	c.validateURL("TELEMETRY_GATEWAY_URL", c.GatewayURL, false)
	c.validateURL("SAMS_URL", c.SAMSURL, true)
	if c.SAMSAPIURL != "" {
		c.validateURL("SAMS_API_URL", c.SAMSAPIURL, true)
	}
}

// validateURL repeats only the host of a bad URL, because the rest may be a password.
func (c validation) validateURL(variable, value string, pathAllowed bool) {
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		c.faults.add(variable, "expected a URL such as https://host or https://host:port")
		return
	}
	if port := u.Port(); port != "" && !validPort(port) {
		c.faults.add(variable, "expected a port from 1 to 65535, got %q", port)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		c.faults.add(variable, "expected a URL without user, query and fragment")
	}
	if !pathAllowed && u.Path != "" && u.Path != "/" {
		c.faults.add(variable, "expected a URL without a path: gRPC has none")
	}
	if u.Scheme == "http" {
		switch {
		case !c.InsecureDev:
			c.faults.add(variable, "expected https:// (http:// needs WORKER_INSECURE_DEV=true and a loopback address)")
		case !loopback(u.Hostname()):
			c.faults.add(variable, "http:// is for loopback addresses only, and %q is none", u.Hostname())
		}
	}
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func validPort(port string) bool {
	n, err := strconv.Atoi(port)
	return err == nil && n > 0 && n < 1<<16
}

// check adds a fault if a check fails, unless the variable could not be read.
func (c validation) check(variable string, ok bool, format string, args ...any) {
	if !ok && !c.broken[variable] {
		c.faults.add(variable, format, args...)
	}
}

// together checks a combination. It needs both variables to have been read.
func (c validation) together(variable, other string, ok bool, format string, args ...any) {
	if !c.broken[other] {
		c.check(variable, ok, format, args...)
	}
}

func (c validation) validateRun() {
	c.validateLimits()
	if _, set := c.vars["JOB_EXECUTION_DEADLINE"]; set {
		c.check("JOB_EXECUTION_DEADLINE", c.JobDeadline > 0, "expected a positive duration, got %v", c.JobDeadline)
	}
	if c.Mode == Drain {
		c.validateDrain()
	}
	if c.Port != "" {
		c.check("PORT", validPort(c.Port), "expected a port from 1 to 65535, got %q", clip(c.Port))
	}
	if c.DiagnosticsAddr != "" {
		_, port, err := net.SplitHostPort(c.DiagnosticsAddr)
		c.check("WORKER_DIAGNOSTICS_ADDR", err == nil, "expected host:port or :port, got %q", clip(c.DiagnosticsAddr))
		if err == nil {
			// Port 0 is any free one.
			c.check("WORKER_DIAGNOSTICS_ADDR", port == "0" || validPort(port), "expected a port from 0 to 65535, got %q", clip(port))
		}
	}
}

// validateLimits checks each limit, and that they go together.
func (c validation) validateLimits() {
	c.check("WORKER_MODE", c.Mode == Continuous || c.Mode == Drain, "expected continuous or drain, got %q", clip(string(c.Mode)))
	c.check("WORKER_DRAIN_IDLE", c.DrainIdle > 0, "expected a positive duration, got %v", c.DrainIdle)
	c.check("WORKER_SHUTDOWN_TIMEOUT", c.ShutdownTimeout > 0, "expected a positive duration, got %v", c.ShutdownTimeout)
	if c.MSP || c.CloudRunJob != "" {
		c.check("WORKER_SHUTDOWN_TIMEOUT", c.ShutdownTimeout < cloudRunGrace,
			"expected less than %v, got %v: Cloud Run kills the process then, and acknowledgements would be lost", cloudRunGrace, c.ShutdownTimeout)
	}
	c.check("WORKER_BATCH_MAX_EVENTS", c.BatchMaxEvents > 0, "expected at least 1, got %d", c.BatchMaxEvents)
	c.check("WORKER_BATCH_MAX_BYTES", c.BatchMaxBytes > 0 && c.BatchMaxBytes <= MaxBatchBytes,
		"expected 1 to %d bytes (the gateway refuses messages over 90 MiB), got %d", MaxBatchBytes, c.BatchMaxBytes)
	c.check("WORKER_BATCH_MAX_DELAY", c.BatchMaxDelay >= 0 && c.BatchMaxDelay < maxLease,
		"expected 0 or more, and less than the %v for which an event stays in flight, got %v", maxLease, c.BatchMaxDelay)
	c.check("WORKER_SUBMIT_CONCURRENCY_MAX", c.SubmitConcurrencyMax > 0 && c.SubmitConcurrencyMax <= maxStreams,
		"expected 1 to %d, got %d", maxStreams, c.SubmitConcurrencyMax)
	c.check("WORKER_SUBMIT_TIMEOUT", c.SubmitTimeout > 0 && c.SubmitTimeout <= maxSubmitTimeout,
		"expected more than 0 and at most %v (the gateway cuts a stream after %v), got %v", maxSubmitTimeout, gatewayStreamLimit, c.SubmitTimeout)
	c.check("WORKER_REJECT_AFTER", c.RejectAfter >= 0, "expected 0 (never) or more, got %d", c.RejectAfter)
	c.check("WORKER_MAX_OUTSTANDING_EVENTS", c.MaxOutstandingEvents > 0, "expected at least 1, got %d", c.MaxOutstandingEvents)
	c.check("WORKER_MAX_OUTSTANDING_BYTES", c.MaxOutstandingBytes > 0, "expected at least 1, got %d", c.MaxOutstandingBytes)

	c.together("WORKER_BATCH_MAX_EVENTS", "WORKER_MAX_OUTSTANDING_EVENTS", c.MaxOutstandingEvents <= 0 || c.BatchMaxEvents <= c.MaxOutstandingEvents,
		"%d is more than WORKER_MAX_OUTSTANDING_EVENTS=%d lets in: a batch could never fill", c.BatchMaxEvents, c.MaxOutstandingEvents)
	c.together("WORKER_BATCH_MAX_BYTES", "WORKER_MAX_OUTSTANDING_BYTES", c.MaxOutstandingBytes <= 0 || c.BatchMaxBytes <= c.MaxOutstandingBytes,
		"%d is more than WORKER_MAX_OUTSTANDING_BYTES=%d lets in: a batch could never fill", c.BatchMaxBytes, c.MaxOutstandingBytes)
}

// validateDrain checks the times of a drain.
func (c validation) validateDrain() {
	c.together("WORKER_BATCH_MAX_DELAY", "WORKER_DRAIN_IDLE", c.DrainIdle <= 0 || c.BatchMaxDelay <= c.DrainIdle,
		"%v is longer than WORKER_DRAIN_IDLE=%v: a drain would wait for events that cannot come", c.BatchMaxDelay, c.DrainIdle)
	if c.JobDeadline > 0 {
		c.together("JOB_EXECUTION_DEADLINE", "WORKER_SHUTDOWN_TIMEOUT", c.ReceiveWindow() > 0,
			"%v leaves no time to receive: WORKER_SHUTDOWN_TIMEOUT=%v and %v of reserve are taken off it", c.JobDeadline, c.ShutdownTimeout, deadlineReserve)
		c.together("WORKER_BATCH_MAX_DELAY", "JOB_EXECUTION_DEADLINE", c.ReceiveWindow() <= 0 || c.BatchMaxDelay < c.ReceiveWindow(),
			"%v is longer than the %v that JOB_EXECUTION_DEADLINE leaves to receive", c.BatchMaxDelay, c.ReceiveWindow())
	}
}
