package recorderprom_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/recorder"
	"github.com/sourcegraph/telemetry-relay/recorder/recorderprom"
	"github.com/sourcegraph/telemetry-relay/recorder/recordertest"
)

// newUnavailable returns a recorder whose Pub/Sub never answers.
func newUnavailable(t *testing.T) *recorder.Recorder {
	t.Helper()
	rec, err := recorder.New(t.Context(), recorder.Config{
		Service: recorder.Service{ID: "sams"}, Topic: "projects/p/topics/telemetry-events", Logger: slog.New(slog.DiscardHandler),
		ClientOptions: []option.ClientOption{
			option.WithEndpoint("127.0.0.1:1"), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// TestRecordersShareMetrics requires that recorders with the same registerer share the
// metrics.
func TestRecordersShareMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	first, second := recordertest.New(t, recordertest.AllowInvalid()), newUnavailable(t)
	for _, rec := range []*recorder.Recorder{first.Recorder, second, nil} {
		if err := recorderprom.Register(registry, rec); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		rec    *recorder.Recorder
		action string
		want   bool
	}{{first.Recorder, "cd", true}, {second, "cd", true}, {first.Recorder, "CD", false}} {
		if err := c.rec.Record(t.Context(), "ab", recorder.DynamicAction(c.action)); (err == nil) != c.want {
			t.Errorf("%v", err)
		}
	}
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := first.Record(t.Context(), "ab", "cd"); !errors.Is(err, recorder.ErrClosed) {
		t.Errorf("%v", err)
	}
	compare := func(failed, buffered int) {
		t.Helper()
		want := fmt.Sprintf(`# HELP telemetry_recorder_buffered_bytes Bytes of telemetry events that wait to be published or for Pub/Sub's confirmation.
# TYPE telemetry_recorder_buffered_bytes gauge
telemetry_recorder_buffered_bytes %d
# HELP telemetry_recorder_published_bytes_total Bytes of published telemetry events as Pub/Sub counts them: data and attributes.
# TYPE telemetry_recorder_published_bytes_total counter
telemetry_recorder_published_bytes_total %d
# HELP telemetry_recorder_buffered_events Telemetry events that wait to be published or for Pub/Sub's confirmation.
# TYPE telemetry_recorder_buffered_events gauge
telemetry_recorder_buffered_events %d
# HELP telemetry_recorder_events_total Telemetry events by what became of them: published; failed to be published; dropped, because the buffer was full or the recorder closed; invalid.
# TYPE telemetry_recorder_events_total counter
telemetry_recorder_events_total{result="dropped"} 1
telemetry_recorder_events_total{result="failed"} %d
telemetry_recorder_events_total{result="invalid"} 1
telemetry_recorder_events_total{result="published"} 1
`, second.Stats().BufferedBytes, first.Stats().PublishedBytes, buffered, failed)
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	}
	compare(0, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := second.Close(ctx); !errors.Is(err, recorder.ErrUnconfirmed) {
		t.Errorf("%v", err)
	}
	compare(1, 0)
}

// TestRegisterTaken requires an error if another collector has the name.
func TestRegisterTaken(t *testing.T) {
	for _, taken := range []prometheus.Collector{
		prometheus.NewGauge(prometheus.GaugeOpts{Name: "telemetry_recorder_buffered_events", Help: "Another."}),
		prometheus.NewCounter(prometheus.CounterOpts{Name: "telemetry_recorder_events_total", Help: "Another."}),
	} {
		registry := prometheus.NewRegistry()
		registry.MustRegister(taken)
		if err := recorderprom.Register(registry, recordertest.New(t).Recorder); err == nil {
			t.Error("no error")
		}
	}
}
