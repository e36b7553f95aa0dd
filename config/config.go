// Package config reads the worker's settings from environment variables and
// services.yaml. It is strict and lists all faults at once, so that a deployment needs
// one correction and not several. docs/configuration.md has every variable; a test
// compares the page with this package.
package config

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// Mode says when `worker run` ends.
type Mode string

const (
	// Continuous runs until SIGTERM or SIGINT.
	Continuous Mode = "continuous"
	// Drain runs until the subscription is empty or the deadline is near.
	Drain Mode = "drain"
)

// Bytes is a size that may be written with a unit, such as 3MiB.
type Bytes int64

// sizeForm is a number, with a decimal point at most, and a unit if there is one.
var sizeForm = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?( ?[A-Za-z]+)?$`)

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	if !sizeForm.Match(text) {
		return errSize // humanize leaves out commas: 1,5MiB would be 15 MiB
	}
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<40 {
		return errSize
	}
	*b = Bytes(n)
	return nil
}

// Streams is a number of streams to the gateway in flight, or Auto.
type Streams int

// Auto: the number adapts to the gateway.
const Auto Streams = 0

// maxStreams is the largest number of streams that can be asked for.
const maxStreams = 1000

// UnmarshalText reads auto, or a number from 1 to maxStreams.
func (s *Streams) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*s = Auto
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 || n > maxStreams {
		return errStreams
	}
	*s = Streams(n)
	return nil
}

func (b Bytes) String() string { return humanize.IBytes(uint64(max(0, b))) }

// Config has all settings. An empty variable counts as absent.
type Config struct {
	// Project is the Google Cloud project of topics and subscriptions that are given by id.
	Project string `env:"GOOGLE_CLOUD_PROJECT"`
	// Topic is the topic of events, to which `publish` and `dlq replay` publish.
	Topic string `env:"PUBSUB_TOPIC" envDefault:"telemetry-events"`
	// Subscription is the subscription from which the worker receives events.
	Subscription string `env:"PUBSUB_SUBSCRIPTION" envDefault:"telemetry-events-relay"`
	// DeadLetterTopic is the topic of rejected events.
	DeadLetterTopic string `env:"DLQ_TOPIC" envDefault:"telemetry-events-dlq"`
	// DeadLetterSubscription is the dead-letter queue that on-call reads.
	DeadLetterSubscription string `env:"DLQ_SUBSCRIPTION" envDefault:"telemetry-events-dlq-oncall"`
	// DeadLetterView is a second subscription of the dead-letter topic, by which commands
	// read the queue without leasing its messages; empty means there is none.
	DeadLetterView string `env:"DLQ_VIEW_SUBSCRIPTION"`
	// ReceiptsTopic is the topic to which the worker publishes the verdicts of replayed
	// messages; empty means none are published.
	ReceiptsTopic string `env:"RECEIPTS_TOPIC"`
	// ReceiptsSubscription is where the commands read them; empty means nowhere.
	ReceiptsSubscription string `env:"RECEIPTS_SUBSCRIPTION"`
	// EmulatorHost is host:port of a Pub/Sub emulator; empty means the real one.
	EmulatorHost string `env:"PUBSUB_EMULATOR_HOST"`
	// PubSubEndpoint is host:port of a regional endpoint of Pub/Sub; empty means the
	// global one.
	PubSubEndpoint string `env:"PUBSUB_ENDPOINT"`

	GatewayURL       string `env:"TELEMETRY_GATEWAY_URL" envDefault:"https://telemetry-gateway.sourcegraph.com"`
	SAMSURL          string `env:"SAMS_URL" envDefault:"https://accounts.sourcegraph.com"`
	SAMSAPIURL       string `env:"SAMS_API_URL"`
	SAMSClientID     string `env:"SAMS_CLIENT_ID"`
	SAMSClientSecret Secret `env:"SAMS_CLIENT_SECRET"`

	// Environment is MSP's id of the environment: the default for events.
	Environment string `env:"ENVIRONMENT_ID" envDefault:"unknown"`

	Mode Mode `env:"WORKER_MODE"`
	// DrainIdle is how long nothing may arrive before a drain ends.
	DrainIdle time.Duration `env:"WORKER_DRAIN_IDLE" envDefault:"15s"`
	// ShutdownTimeout bounds the time in which a stopping worker finishes submissions.
	ShutdownTimeout time.Duration `env:"WORKER_SHUTDOWN_TIMEOUT" envDefault:"8s"`

	ServicesFile string `env:"WORKER_SERVICES_FILE"`
	ServicesYAML string `env:"WORKER_SERVICES"`

	BatchMaxEvents int           `env:"WORKER_BATCH_MAX_EVENTS" envDefault:"1000"`
	BatchMaxBytes  Bytes         `env:"WORKER_BATCH_MAX_BYTES" envDefault:"3MiB"`
	BatchMaxDelay  time.Duration `env:"WORKER_BATCH_MAX_DELAY" envDefault:"1s"`

	// SubmitConcurrency is how many streams to the gateway may be in flight.
	SubmitConcurrency Streams `env:"WORKER_SUBMIT_CONCURRENCY" envDefault:"auto"`
	// SubmitConcurrencyMax is how many there may be at most while the number adapts.
	SubmitConcurrencyMax int           `env:"WORKER_SUBMIT_CONCURRENCY_MAX" envDefault:"512"`
	SubmitTimeout        time.Duration `env:"WORKER_SUBMIT_TIMEOUT" envDefault:"30s"`
	RejectAfter          int           `env:"WORKER_REJECT_AFTER" envDefault:"5"`
	MaxOutstandingEvents int           `env:"WORKER_MAX_OUTSTANDING_EVENTS" envDefault:"20000"`
	MaxOutstandingBytes  Bytes         `env:"WORKER_MAX_OUTSTANDING_BYTES" envDefault:"128MiB"`

	// InsecureDev allows plain text to SAMS and the gateway on loopback.
	InsecureDev bool `env:"WORKER_INSECURE_DEV" envDefault:"false"`

	Port              string `env:"PORT"`
	DiagnosticsAddr   string `env:"WORKER_DIAGNOSTICS_ADDR"`
	DiagnosticsSecret Secret `env:"DIAGNOSTICS_SECRET"`

	LogLevel  string `env:"LOG_LEVEL" envDefault:"info"`
	LogFormat string `env:"LOG_FORMAT" envDefault:"auto"`

	// MSP and Cloud Run set these.
	MSP         bool          `env:"MSP" envDefault:"false"`
	CloudRunJob string        `env:"CLOUD_RUN_JOB"`
	JobDeadline time.Duration `env:"JOB_EXECUTION_DEADLINE"`

	Telemetry

	// TopicGiven says that PUBSUB_TOPIC was set.
	TopicGiven bool `env:"-"`
	// Services has the rules of services.yaml.
	Services *policy.Set `env:"-"`
}

// Secret is a string that no print verb, encoder or logger writes.
type Secret string

func (Secret) String() string { return "[secret]" }

// Format keeps every verb from printing it.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText keeps encoders and loggers from writing it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ReceiveWindow is how long a drain may receive, from its start: the deadline less the
// time to shut down and 5 s of reserve, because Cloud Run's clock starts before the
// process does. Zero means no deadline.
func (c *Config) ReceiveWindow() time.Duration {
	if c.Mode != Drain || c.JobDeadline == 0 {
		return 0
	}
	return c.JobDeadline - c.ShutdownTimeout - deadlineReserve
}

// MaxStreams is how many streams to the gateway are in flight at most.
func (c *Config) MaxStreams() int {
	if c.SubmitConcurrency == Auto {
		return c.SubmitConcurrencyMax
	}
	return int(c.SubmitConcurrency)
}

const deadlineReserve = 5 * time.Second

// TopicName is the full name of the topic.
func (c *Config) TopicName() string { return c.name("topics", c.Topic) }

// SubscriptionName is the full name of the subscription.
func (c *Config) SubscriptionName() string { return c.name("subscriptions", c.Subscription) }

// DeadLetterTopicName is the full name of the dead-letter topic.
func (c *Config) DeadLetterTopicName() string { return c.name("topics", c.DeadLetterTopic) }

// DeadLetterSubscriptionName is the full name of the dead-letter subscription.
func (c *Config) DeadLetterSubscriptionName() string {
	return c.name("subscriptions", c.DeadLetterSubscription)
}

// DeadLetterViewName is the full name of the view subscription; empty: there is none.
func (c *Config) DeadLetterViewName() string {
	return c.optionalName("subscriptions", c.DeadLetterView)
}

// ReceiptsTopicName is the full name of the topic of receipts; empty: there is none.
func (c *Config) ReceiptsTopicName() string { return c.optionalName("topics", c.ReceiptsTopic) }

// ReceiptsSubscriptionName is the full name of the subscription of receipts; empty: there
// is none.
func (c *Config) ReceiptsSubscriptionName() string {
	return c.optionalName("subscriptions", c.ReceiptsSubscription)
}

func (c *Config) optionalName(kind, id string) string {
	if id == "" {
		return ""
	}
	return c.name(kind, id)
}

func (c *Config) name(kind, id string) string {
	if fullName.MatchString(id) {
		return id
	}
	return "projects/" + c.Project + "/" + kind + "/" + id
}

// TokenURL is SAMS' endpoint for access tokens.
func (c *Config) TokenURL() string {
	base := c.SAMSAPIURL
	if base == "" {
		base = c.SAMSURL
	}
	return trimSlash(base) + "/oauth/token"
}

// ListenAddr is the address of the HTTP endpoints; empty: they are not served.
func (c *Config) ListenAddr() string {
	if c.DiagnosticsAddr != "" {
		return c.DiagnosticsAddr
	}
	if c.Port != "" {
		return ":" + c.Port
	}
	return ""
}
