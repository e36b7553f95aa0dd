// Package otlptest is a receiver of OTLP over HTTP on loopback, for tests.
package otlptest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Receiver takes metrics and traces. It is safe for concurrent use.
type Receiver struct {
	URL string

	mu     sync.Mutex
	pushes []Push
	spans  []*tracev1.Span
	bodies [][]byte
	heads  []http.Header
}

// Push is one request with metrics.
type Push struct {
	// Resource are the attributes of who pushed.
	Resource map[string]string
	// Sums are the values by name, summed over the labels; of a histogram, its
	// count.
	Sums map[string]float64
}

// Start starts a receiver that ends with the test.
func Start(t testing.TB) *Receiver {
	t.Helper()
	r := &Receiver{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/metrics", func(w http.ResponseWriter, q *http.Request) {
		var m collectormetrics.ExportMetricsServiceRequest
		if r.read(w, q, &m) {
			r.TakeMetrics(&m)
		}
	})
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, q *http.Request) {
		var m collectortraces.ExportTraceServiceRequest
		if !r.read(w, q, &m) {
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, resource := range m.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				r.spans = append(r.spans, scope.GetSpans()...)
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

func (r *Receiver) read(w http.ResponseWriter, q *http.Request, into proto.Message) bool {
	body, err := io.ReadAll(q.Body)
	if err == nil {
		err = proto.Unmarshal(body, into)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies, r.heads = append(r.bodies, body), append(r.heads, q.Header.Clone())
	w.Header().Set("Content-Type", "application/x-protobuf")
	return true
}

// TakeMetrics takes one request.
func (r *Receiver) TakeMetrics(m *collectormetrics.ExportMetricsServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range m.GetResourceMetrics() {
		p := Push{Resource: Attributes(resource.GetResource().GetAttributes()), Sums: map[string]float64{}}
		for _, scope := range resource.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				p.Sums[m.GetName()] = sum(m)
			}
		}
		r.pushes = append(r.pushes, p)
	}
}

func sum(m *metricsv1.Metric) (total float64) {
	for _, p := range slices.Concat(m.GetSum().GetDataPoints(), m.GetGauge().GetDataPoints()) {
		total += p.GetAsDouble() + float64(p.GetAsInt())
	}
	for _, p := range m.GetHistogram().GetDataPoints() {
		total += float64(p.GetCount())
	}
	return total
}

// Attributes makes a map of attributes; those that are no strings are shown as
// protobuf shows them.
func Attributes(all []*commonv1.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range all {
		if s, ok := a.GetValue().GetValue().(*commonv1.AnyValue_StringValue); ok {
			m[a.GetKey()] = s.StringValue
			continue
		}
		m[a.GetKey()] = a.GetValue().String()
	}
	return m
}

// Pushes are the requests with metrics so far.
func (r *Receiver) Pushes() []Push {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.pushes)
}

// Spans are the spans of a name so far.
func (r *Receiver) Spans(name string) (all []*tracev1.Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.GetName() == name {
			all = append(all, s)
		}
	}
	return all
}

// Bodies are the requests as they were received.
func (r *Receiver) Bodies() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bodies)
}

// Headers are those of the requests.
func (r *Receiver) Headers() []http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.heads)
}
