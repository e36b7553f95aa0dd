// Package metrics is the catalogue of the worker's metrics. Every label has a
// bounded set of values, so that publishers cannot create series without end.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const namespace = "telemetry_relay"

// Prefix begins the names of the worker's own metrics.
const Prefix = namespace + "_"

// OtherService is the value of the label service for services that services.yaml
// does not list. Anyone can invent service ids, so they share one value.
const OtherService = "other"

// Metrics are all of the worker's metrics. They are safe for concurrent use.
type Metrics struct {
	Registry *prometheus.Registry

	Info *prometheus.GaugeVec // version, mode

	EventsReceived  *prometheus.CounterVec // service
	EventsSubmitted *prometheus.CounterVec // service
	EventsRejected  *prometheus.CounterVec // service, reason
	EventsDuplicate *prometheus.CounterVec // service
	ReplayedEvents  *prometheus.CounterVec // result
	EventsReleased  prometheus.Counter
	EventsRetried   *prometheus.CounterVec // cause
	EventsInFlight  prometheus.Gauge
	EventsUndecided prometheus.Gauge
	EventDelivery   prometheus.Histogram

	BatchEvents prometheus.Histogram
	BatchBytes  prometheus.Histogram

	Submissions       *prometheus.CounterVec // code
	SubmissionSeconds prometheus.Histogram
	GatewayAvailable  prometheus.Gauge

	SubmitConcurrencyLimit prometheus.Gauge
	SubmitConcurrencyFalls *prometheus.CounterVec // reason
	SubmissionsInFlight    prometheus.Gauge

	TokenFetches *prometheus.CounterVec // result

	DeadLetterPublishes *prometheus.CounterVec // result
	ReceiptPublishes    *prometheus.CounterVec // result

	PubSubStreams        prometheus.Gauge
	PubSubStreamRefusals *prometheus.CounterVec // code
	DrainsUnproven       prometheus.Counter

	OldestReceivedAge prometheus.Gauge
	BooksDifference   prometheus.Gauge
	RunEnded          *prometheus.CounterVec // reason
	LastSuccess       prometheus.Gauge
}

// New returns the metrics in a registry of their own, together with those of
// the Go runtime and the process.
func New() *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := maker{registry: r, made: make(map[string]bool)}
	all := &Metrics{
		Registry:               r,
		Info:                   m.gauges("worker_info"),
		EventsReceived:         m.counters("events_received_total"),
		EventsSubmitted:        m.counters("events_submitted_total"),
		EventsRejected:         m.counters("events_rejected_total"),
		EventsDuplicate:        m.counters("events_duplicate_total"),
		ReplayedEvents:         m.counters("replayed_events_total"),
		EventsReleased:         m.counters("events_released_total").WithLabelValues(),
		EventsRetried:          m.counters("events_retried_total"),
		EventsInFlight:         m.gauges("events_in_flight").WithLabelValues(),
		EventsUndecided:        m.gauges("events_undecided").WithLabelValues(),
		EventDelivery:          m.histogram("event_delivery_seconds"),
		BatchEvents:            m.histogram("batch_events"),
		BatchBytes:             m.histogram("batch_bytes"),
		Submissions:            m.counters("submissions_total"),
		SubmissionSeconds:      m.histogram("submission_seconds"),
		GatewayAvailable:       m.gauges("gateway_available").WithLabelValues(),
		SubmitConcurrencyLimit: m.gauges("submit_concurrency_limit").WithLabelValues(),
		SubmitConcurrencyFalls: m.counters("submit_concurrency_falls_total"),
		SubmissionsInFlight:    m.gauges("submissions_in_flight").WithLabelValues(),
		TokenFetches:           m.counters("token_fetches_total"),
		DeadLetterPublishes:    m.counters("dead_letter_publishes_total"),
		ReceiptPublishes:       m.counters("receipt_publishes_total"),
		PubSubStreams:          m.gauges("pubsub_streams").WithLabelValues(),
		PubSubStreamRefusals:   m.counters("pubsub_stream_refusals_total"),
		DrainsUnproven:         m.counters("drains_unproven_total").WithLabelValues(),
		OldestReceivedAge:      m.gauges("oldest_received_age_seconds").WithLabelValues(),
		BooksDifference:        m.gauges("books_difference_events").WithLabelValues(),
		RunEnded:               m.counters("run_ended_total"),
		LastSuccess:            m.gauges("last_success_timestamp_seconds").WithLabelValues(),
	}
	for _, d := range Catalogue {
		if !m.made[d.Name] {
			panic("metrics: the catalogue's " + d.Name + " is not made")
		}
	}
	return all
}

// maker makes metrics from the catalogue. It panics on a metric that the catalogue
// does not have, or has as another kind, because that is a programming error.
type maker struct {
	registry *prometheus.Registry
	made     map[string]bool
}

func (m maker) describe(name string, kind Kind) Description {
	d, ok := Find(name)
	if !ok || d.Kind != kind {
		panic("metrics: the catalogue has no " + string(kind) + " " + name)
	}
	m.made[name] = true
	return d
}

func (m maker) counters(name string) *prometheus.CounterVec {
	d := m.describe(name, Counter)
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: d.Name, Help: d.Help}, d.LabelNames())
	m.registry.MustRegister(c)
	return c
}

func (m maker) gauges(name string) *prometheus.GaugeVec {
	d := m.describe(name, Gauge)
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: d.Name, Help: d.Help}, d.LabelNames())
	m.registry.MustRegister(g)
	return g
}

func (m maker) histogram(name string) prometheus.Histogram {
	d := m.describe(name, Histogram)
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: d.Name, Help: d.Help, Buckets: d.Buckets})
	m.registry.MustRegister(h)
	return h
}

// Expect creates every series with the value 0. Without that, a rate would miss the
// first event of a series.
func (m *Metrics) Expect(services, reasons []string) {
	for _, service := range append(services, OtherService) {
		m.EventsReceived.WithLabelValues(service)
		m.EventsSubmitted.WithLabelValues(service)
		m.EventsDuplicate.WithLabelValues(service)
		for _, reason := range reasons {
			m.EventsRejected.WithLabelValues(service, reason)
		}
	}
	m.Submissions.WithLabelValues("OK")
	for _, result := range values("token_fetches_total", "result") {
		m.TokenFetches.WithLabelValues(result)
	}
	for _, result := range values("dead_letter_publishes_total", "result") {
		m.DeadLetterPublishes.WithLabelValues(result)
	}
	for _, result := range values("receipt_publishes_total", "result") {
		m.ReceiptPublishes.WithLabelValues(result)
	}
	for _, result := range values("replayed_events_total", "result") {
		m.ReplayedEvents.WithLabelValues(result)
	}
	for _, cause := range values("events_retried_total", "cause") {
		m.EventsRetried.WithLabelValues(cause)
	}
	for _, reason := range values("submit_concurrency_falls_total", "reason") {
		m.SubmitConcurrencyFalls.WithLabelValues(reason)
	}
	for _, code := range values("pubsub_stream_refusals_total", "code") {
		m.PubSubStreamRefusals.WithLabelValues(code)
	}
	for _, reason := range values("run_ended_total", "reason") {
		m.RunEnded.WithLabelValues(reason)
	}
}
