// Package recorderprom exports the counts of recorders to Prometheus. It is a package of
// its own so that a service without Prometheus does not import it.
//
//	rec, err := recorder.New(ctx, cfg)
//	…
//	err = recorderprom.Register(prometheus.DefaultRegisterer, rec)
package recorderprom

import (
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sourcegraph/telemetry-relay/recorder"
)

// Register registers telemetry_recorder_events_total{result},
// telemetry_recorder_published_bytes_total, telemetry_recorder_buffered_events and
// telemetry_recorder_buffered_bytes. Recorders with the same registerer share the metrics,
// which are the sums of their Stats. A nil recorder counts nothing.
func Register(registerer prometheus.Registerer, rec *recorder.Recorder) error {
	c := &collector{recorders: []*recorder.Recorder{rec}}
	err := registerer.Register(c)
	if err == nil {
		return nil
	}
	if twice, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if earlier, ok := twice.ExistingCollector.(*collector); ok {
			earlier.add(rec)
			return nil
		}
	}
	return fmt.Errorf("recorderprom: %w", err)
}

var (
	eventsDesc = prometheus.NewDesc("telemetry_recorder_events_total",
		"Telemetry events by what became of them: published; failed to be published; dropped, because the buffer was full or the recorder closed; invalid.",
		[]string{"result"}, nil)
	bufferedDesc = prometheus.NewDesc("telemetry_recorder_buffered_events",
		"Telemetry events that wait to be published or for Pub/Sub's confirmation.", nil, nil)
	publishedBytesDesc = prometheus.NewDesc("telemetry_recorder_published_bytes_total",
		"Bytes of published telemetry events as Pub/Sub counts them: data and attributes.", nil, nil)
	bufferedBytesDesc = prometheus.NewDesc("telemetry_recorder_buffered_bytes",
		"Bytes of telemetry events that wait to be published or for Pub/Sub's confirmation.", nil, nil)
)

// collector reads the counts of its recorders when it is scraped.
type collector struct {
	mu        sync.Mutex
	recorders []*recorder.Recorder
}

func (c *collector) add(rec *recorder.Recorder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recorders = append(c.recorders, rec)
}

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- eventsDesc
	descs <- bufferedDesc
	descs <- publishedBytesDesc
	descs <- bufferedBytesDesc
}

func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	var sum recorder.Stats
	c.mu.Lock()
	for _, rec := range c.recorders {
		s := rec.Stats()
		sum.Published += s.Published
		sum.Failed += s.Failed
		sum.Dropped += s.Dropped
		sum.Invalid += s.Invalid
		sum.Buffered += s.Buffered
		sum.PublishedBytes += s.PublishedBytes
		sum.BufferedBytes += s.BufferedBytes
	}
	c.mu.Unlock()
	for _, result := range []struct {
		name  string
		count uint64
	}{{"published", sum.Published}, {"failed", sum.Failed}, {"dropped", sum.Dropped}, {"invalid", sum.Invalid}} {
		metrics <- prometheus.MustNewConstMetric(eventsDesc, prometheus.CounterValue, float64(result.count), result.name)
	}
	metrics <- prometheus.MustNewConstMetric(bufferedDesc, prometheus.GaugeValue, float64(sum.Buffered))
	metrics <- prometheus.MustNewConstMetric(publishedBytesDesc, prometheus.CounterValue, float64(sum.PublishedBytes))
	metrics <- prometheus.MustNewConstMetric(bufferedBytesDesc, prometheus.GaugeValue, float64(sum.BufferedBytes))
}
