// Package metrics is the catalogue of the worker's metrics. Every label has a
// bounded set of values.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const namespace = "telemetry_relay"

// OtherService is the value of the label service for what services.yaml does
// not list.
const OtherService = "other"

// Metrics are all of the worker's metrics. They are safe for concurrent use.
type Metrics struct {
	Registry *prometheus.Registry

	EventsReceived  *prometheus.CounterVec // service
	EventsSubmitted *prometheus.CounterVec // service
	EventsRejected  *prometheus.CounterVec // service, reason
	EventsDuplicate *prometheus.CounterVec // service
	EventsReleased  prometheus.Counter
	EventsRetried   *prometheus.CounterVec // cause
	EventsInFlight  prometheus.Gauge
	EventDelivery   prometheus.Histogram

	BatchEvents prometheus.Histogram
	BatchBytes  prometheus.Histogram

	Submissions       *prometheus.CounterVec // code
	SubmissionSeconds prometheus.Histogram
	GatewayAvailable  prometheus.Gauge
	TokenFetches      *prometheus.CounterVec // result

	DeadLetterPublishes *prometheus.CounterVec // result

	OldestReceivedAge prometheus.Gauge
	RunEnded          *prometheus.CounterVec // reason
	LastSuccess       prometheus.Gauge
}

// New returns the metrics in a registry of their own, together with those of
// the Go runtime and the process.
func New() *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
		r.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
		r.MustRegister(h)
		return h
	}

	m := &Metrics{
		Registry:        r,
		EventsReceived:  counter("events_received_total", "Deliveries of events from Pub/Sub.", "service"),
		EventsSubmitted: counter("events_submitted_total", "Events that the gateway has recorded.", "service"),
		EventsRejected:  counter("events_rejected_total", "Events that went to the dead-letter topic.", "service", "reason"),
		EventsDuplicate: counter("events_duplicate_total", "Further deliveries of events that were recorded or dead-lettered once.", "service"),
		EventsRetried:   counter("events_retried_total", "Events that were submitted again, by what was the matter before.", "cause"),
		EventsInFlight:  gauge("events_in_flight", "Events that are held: received and not settled yet."),
		EventDelivery: histogram("event_delivery_seconds", "From an event's publish time to its being recorded by the gateway.",
			[]float64{.01, .025, .05, .1, .25, .5, 1, 1.5, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}),
		BatchEvents: histogram("batch_events", "Events of a submitted batch.",
			[]float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000}),
		BatchBytes: histogram("batch_bytes", "Encoded bytes of a submitted batch.",
			prometheus.ExponentialBuckets(1<<10, 4, 7)),
		Submissions: counter("submissions_total", "Streams to the gateway, by the gRPC code with which they ended.", "code"),
		SubmissionSeconds: histogram("submission_seconds", "How long a stream to the gateway took.",
			[]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}),
		GatewayAvailable:    gauge("gateway_available", "1 while the gateway takes events, 0 while it or its credentials are away."),
		TokenFetches:        counter("token_fetches_total", "Access tokens asked of SAMS.", "result"),
		DeadLetterPublishes: counter("dead_letter_publishes_total", "Dead letters that were to be published.", "result"),
		OldestReceivedAge:   gauge("oldest_received_age_seconds", "How long the oldest event that is held has been held."),
		RunEnded:            counter("run_ended_total", "Ends of runs.", "reason"),
		LastSuccess:         gauge("last_success_timestamp_seconds", "When the gateway recorded an event, or a run ended well, last."),
	}
	m.EventsReleased = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: namespace, Name: "events_released_total", Help: "Deliveries handed back to Pub/Sub, or left to expire.",
	})
	r.MustRegister(m.EventsReleased)
	return m
}

// Expect makes every series appear before it has counted anything, so that a
// rate over its first event is seen.
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
	for _, result := range []string{"ok", "refused", "error"} {
		m.TokenFetches.WithLabelValues(result)
	}
	for _, result := range []string{"ok", "error", "too_large"} {
		m.DeadLetterPublishes.WithLabelValues(result)
	}
	for _, cause := range []string{"left_out", "failed", "refused", "sams", "credentials"} {
		m.EventsRetried.WithLabelValues(cause)
	}
	for _, reason := range []string{"drained", "deadline", "signal", "error"} {
		m.RunEnded.WithLabelValues(reason)
	}
}
