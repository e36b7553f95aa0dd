// Package otelexport exports the worker's telemetry with OpenTelemetry. It pushes the
// Prometheus metrics over OTLP, because nothing can scrape a job, and traces batches.
// OpenTelemetry's standard variables configure it.
package otelexport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// Options of an Observer.
type Options struct {
	Config *config.Config
	// Service and Version name the worker in metrics and traces.
	Service, Version string
	// Metrics is the registry that is pushed.
	Metrics prometheus.Gatherer
	Logger  *slog.Logger
}

// Observer pushes metrics and makes traces until it is closed.
type Observer struct {
	metrics *metric.MeterProvider // nil: not pushed
	traces  *trace.TracerProvider // nil: nothing is traced
	clients []*http.Client

	cancel context.CancelFunc // of the first push
	first  chan struct{}      // closed when it is done
}

// Start begins to push metrics and to trace, if the configuration asks for it. An
// unavailable receiver is no error, because relaying events matters more than telemetry.
func Start(ctx context.Context, opts Options) (o *Observer, err error) {
	o = &Observer{}
	metricsTo, push := opts.Config.MetricsExport()
	tracesTo, follow := opts.Config.TracesExport()
	if !push && !follow {
		return o, nil
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		opts.Logger.Warn("OpenTelemetry failed; the worker continues", "error", err)
	}))
	about, err := describe(ctx, opts, (push && metricsTo.Google) || (follow && tracesTo.Google))
	if err != nil {
		return o, err
	}
	if push {
		if err := o.push(ctx, metricsTo, about, opts); err != nil {
			return o, fmt.Errorf("push metrics over OTLP: %w", err)
		}
	}
	if follow {
		if err := o.follow(ctx, tracesTo, about); err != nil {
			return o, errors.Join(fmt.Errorf("send traces over OTLP: %w", err), o.Close(ctx))
		}
	}
	opts.Logger.Info("Reporting over OTLP", "metrics", metricsTo.URL, "traces", tracesTo.URL, "instance", instance(about))
	return o, nil
}

// push pushes once at the start, before anything is counted. A rate needs two values, and
// a short job ends before the first interval is over.
func (o *Observer) push(ctx context.Context, to config.Export, about *resource.Resource, opts Options) error {
	exporter, err := o.metricExporter(ctx, to)
	if err != nil {
		return err
	}
	reader := metric.NewPeriodicReader(exporter, metric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(opts.Metrics))))
	o.metrics = metric.NewMeterProvider(metric.WithReader(reader), metric.WithResource(about))
	var first context.Context
	first, o.cancel = context.WithCancel(context.WithoutCancel(ctx))
	o.first = make(chan struct{})
	go func() {
		defer close(o.first)
		if err := o.metrics.ForceFlush(first); err != nil && first.Err() == nil {
			otel.Handle(err)
		}
	}()
	return nil
}

func (o *Observer) metricExporter(ctx context.Context, to config.Export) (metric.Exporter, error) {
	if to.GRPC {
		return otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpointURL(to.URL))
	}
	options := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpointURL(to.URL)}
	if to.Google {
		options = append(options, otlpmetrichttp.WithHTTPClient(o.googleClient()))
	}
	return otlpmetrichttp.New(ctx, options...)
}

func (o *Observer) follow(ctx context.Context, to config.Export, about *resource.Resource) error {
	var client otlptrace.Client
	if to.GRPC {
		client = otlptracegrpc.NewClient(otlptracegrpc.WithEndpointURL(to.URL))
	} else {
		options := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(to.URL)}
		if to.Google {
			options = append(options, otlptracehttp.WithHTTPClient(o.googleClient()))
		}
		client = otlptracehttp.NewClient(options...)
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return err
	}
	// The sampler is OTEL_TRACES_SAMPLER's.
	o.traces = trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(about))
	return nil
}

// Tracer returns the tracer of batches; nil when nothing is traced.
func (o *Observer) Tracer() relay.Tracer {
	if o.traces == nil {
		return nil
	}
	return NewTracer(o.traces)
}

// Close pushes the last metrics and spans, and ends. It ends with ctx at the latest.
func (o *Observer) Close(ctx context.Context) error {
	// Metrics and traces end concurrently, because an unavailable receiver of one must
	// not use up the other's time.
	var ends sync.WaitGroup
	var errs [2]error
	if o.traces != nil {
		ends.Go(func() { errs[0] = o.traces.Shutdown(ctx) })
	}
	if o.metrics != nil {
		ends.Go(func() {
			select {
			case <-o.first:
			case <-ctx.Done():
			}
			o.cancel()
			<-o.first
			errs[1] = o.metrics.Shutdown(ctx)
		})
	}
	ends.Wait()
	for _, c := range o.clients {
		c.CloseIdleConnections()
	}
	return errors.Join(errs[:]...)
}
