package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Kind is the type of a metric.
type Kind string

// The kinds of metrics.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Label is one label of a metric.
type Label struct {
	Name string
	// Values are all possible values; nil when they are known only at run time.
	Values []string
	// Meaning describes values that are known only at run time.
	Meaning string
}

// Description describes a metric. New makes the metric from it, and tests compare the
// documentation, the dashboard and the alerts with it.
type Description struct {
	// Name, without the prefix.
	Name   string
	Kind   Kind
	Help   string
	Labels []Label
	// Buckets of a histogram.
	Buckets []float64
}

// FullName is the name under which the metric is served.
func (d Description) FullName() string { return prometheus.BuildFQName(namespace, "", d.Name) }

// LabelNames are the names of the labels.
func (d Description) LabelNames() []string {
	var names []string
	for _, l := range d.Labels {
		names = append(names, l.Name)
	}
	return names
}

var (
	service = Label{Name: "service", Meaning: "an id of `services.yaml`, else `other`"}
	reason  = Label{Name: "reason", Meaning: "why an event was rejected, as in `dlq_reason`"}
)

// Catalogue is every metric of the worker's own, in the order in which the
// documentation shows them.
var Catalogue = []Description{
	{Name: "worker_info", Kind: Gauge, Help: "Always 1. The labels name the worker's version and mode.", Labels: []Label{
		{Name: "version", Meaning: "the worker's version"},
		{Name: "mode", Values: []string{"continuous", "drain"}},
	}},
	{Name: "events_received_total", Kind: Counter, Help: "Deliveries of events from Pub/Sub.", Labels: []Label{service}},
	{Name: "events_submitted_total", Kind: Counter, Help: "Events that the gateway has recorded.", Labels: []Label{service}},
	{Name: "events_rejected_total", Kind: Counter, Help: "Events that the worker dead-lettered.", Labels: []Label{service, reason}},
	{Name: "events_duplicate_total", Kind: Counter, Help: "Redeliveries and copies of events that are recorded, dead-lettered or in flight.", Labels: []Label{service}},
	{Name: "replayed_events_total", Kind: Counter, Help: "Replayed messages whose verdict is settled, by the verdict.", Labels: []Label{
		{Name: "result", Values: []string{"recorded", "rejected", "duplicate"}},
	}},
	{Name: "events_released_total", Kind: Counter, Help: "Deliveries that the worker nacked or let expire."},
	{Name: "events_retried_total", Kind: Counter, Help: "Events that were submitted again, by the cause.", Labels: []Label{
		{Name: "cause", Values: []string{"left_out", "failed", "refused", "exhausted", "sams", "credentials", "unusable"}},
	}},
	{Name: "events_in_flight", Kind: Gauge, Help: "Events in flight: received and not settled."},
	{Name: "events_undecided", Kind: Gauge, Help: "Events that the gateway leaves out although each is alone in its payload, and that the worker has not judged yet."},
	{Name: "oldest_received_age_seconds", Kind: Gauge, Help: "Time since the oldest in-flight event was received."},
	{Name: "books_difference_events", Kind: Gauge, Help: "Unaccounted deliveries: received minus submitted, rejected, duplicate, released and in flight. Always 0."},
	{
		Name: "event_delivery_seconds", Kind: Histogram, Help: "Time from the publish time of an event until the gateway has recorded it.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 1.5, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600},
	},
	{
		Name: "batch_events", Kind: Histogram, Help: "Events per submitted batch.",
		Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000},
	},
	{
		Name: "batch_bytes", Kind: Histogram, Help: "Encoded bytes per submitted batch.",
		Buckets: prometheus.ExponentialBuckets(1<<10, 4, 7),
	},
	{Name: "submissions_total", Kind: Counter, Help: "Streams to the gateway, by the gRPC code with which they ended.", Labels: []Label{
		{Name: "code", Meaning: "a gRPC code such as `OK` or `Unavailable`"},
	}},
	{
		Name: "submission_seconds", Kind: Histogram, Help: "Duration of a stream to the gateway.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	},
	{Name: "submit_concurrency_limit", Kind: Gauge, Help: "Streams to the gateway that may be in flight. It adapts to the gateway, unless it is fixed."},
	{Name: "submissions_in_flight", Kind: Gauge, Help: "Streams to the gateway in flight."},
	{Name: "submit_concurrency_falls_total", Kind: Counter, Help: "How often submit_concurrency_limit fell, by the reason.", Labels: []Label{
		{Name: "reason", Values: []string{"latency", "refused", "failed", "unused", "outage"}},
	}},
	{Name: "gateway_available", Kind: Gauge, Help: "1 while the breaker is closed, 0 while it is open: the gateway, SAMS or the credentials are unavailable."},
	{Name: "token_fetches_total", Kind: Counter, Help: "Requests to SAMS for an access token, by result.", Labels: []Label{
		{Name: "result", Values: []string{"ok", "refused", "error"}},
	}},
	{Name: "dead_letter_publishes_total", Kind: Counter, Help: "Publishes to the dead-letter topic, by result.", Labels: []Label{
		{Name: "result", Values: []string{"ok", "error", "too_large"}},
	}},
	{Name: "receipt_publishes_total", Kind: Counter, Help: "Receipts of replayed messages, by result: published, not published after retries, or dropped because too many waited.", Labels: []Label{
		{Name: "result", Values: []string{"ok", "error", "dropped"}},
	}},
	{Name: "pubsub_streams", Kind: Gauge, Help: "Open streams from Pub/Sub. 0 also while the worker does not receive: during an outage of the gateway or of SAMS, and at the end of a run."},
	{Name: "pubsub_stream_refusals_total", Kind: Counter, Help: "Streams that Pub/Sub refused to open, or ended with a refusal, by the gRPC code.", Labels: []Label{
		{Name: "code", Values: []string{"NotFound", "PermissionDenied", "Unauthenticated", "FailedPrecondition", "Unimplemented", "InvalidArgument"}},
	}},
	{Name: "drains_unproven_total", Kind: Counter, Help: "Drains that reached their deadline with nothing left to do, because streams or pulls did not prove that the subscription is empty."},
	{Name: "run_ended_total", Kind: Counter, Help: "Runs that ended, by reason.", Labels: []Label{
		{Name: "reason", Values: []string{"drained", "deadline", "signal", "error"}},
	}},
	{Name: "last_success_timestamp_seconds", Kind: Gauge, Help: "Unix time of the last recorded event or successful run. 0: none yet."},
}

// Find returns the description of a metric, by its name without the prefix.
func Find(name string) (Description, bool) {
	i := slices.IndexFunc(Catalogue, func(d Description) bool { return d.Name == name })
	if i < 0 {
		return Description{}, false
	}
	return Catalogue[i], true
}

// values returns all values that a label of a metric can have.
func values(metric, label string) []string {
	d, _ := Find(metric)
	for _, l := range d.Labels {
		if l.Name == label {
			return l.Values
		}
	}
	return nil
}
