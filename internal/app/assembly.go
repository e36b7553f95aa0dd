package app

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/diagnostics"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/otelexport"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// assembly builds the parts of one run. It closes those that were built, in reverse order.
type assembly struct {
	cfg     *config.Config
	opts    Options
	metrics *metrics.Metrics
	closers []func() error
}

// errStopped says that the run was stopped before it could begin.
var errStopped = errors.New("stopped before the run began")

func (a *assembly) onClose(closers ...func() error) { a.closers = append(a.closers, closers...) }

func (a *assembly) close() (err error) {
	for _, closer := range slices.Backward(a.closers) {
		err = errors.Join(err, closer())
	}
	return err
}

// build returns the relay, with its clients connected and its endpoints started.
func (a *assembly) build(ctx context.Context) (*relay.Relay, error) {
	tracer, err := a.tracer(ctx)
	if err != nil {
		return nil, err
	}
	client, deadLetters, err := connect(ctx, a.cfg, a.opts)
	if err != nil {
		if ctx.Err() != nil {
			return nil, errStopped
		}
		return nil, err
	}
	a.onClose(client.Close, deadLetters.Close)
	gateway, err := a.gateway()
	if err != nil {
		return nil, err
	}
	verdicts, err := a.verdicts(ctx)
	if err != nil {
		return nil, err
	}
	options := relayOptions(a.cfg, a.opts)
	options.OnVerdict, options.Tracer, options.Metrics = verdicts.add, tracer, a.metrics
	origin := dlq.Origin{
		Subscription: a.cfg.SubscriptionName(), WorkerVersion: a.opts.Version, ServicesDigest: a.cfg.Services.Digest(),
	}
	r := relay.New(client, gateway, announced{dlq.NewWriter(deadLetters, origin), a.opts.OnDeadLetter}, options)
	if err := a.serve(ctx, r); err != nil {
		r.Discard()
		return nil, err
	}
	return r, nil
}

// tracer starts the export of metrics and traces.
func (a *assembly) tracer(ctx context.Context) (relay.Tracer, error) {
	observer, err := otelexport.Start(ctx, otelexport.Options{
		Config: a.cfg, Service: ServiceID, Version: a.opts.Version, Metrics: a.metrics.Registry, Logger: a.opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	a.onClose(within(ctx, a.opts.Ending.Time, func(last context.Context) error {
		if err := observer.Close(last); err != nil {
			a.opts.Logger.Warn("The last metrics and traces could not be sent", "error", err)
		}
		return nil
	}))
	return observer.Tracer(), nil
}

// gateway returns the client of the gateway and of SAMS, whose tokens it uses.
func (a *assembly) gateway() (*submit.Client, error) {
	tokens := newTokens(a.cfg, func(err error) { a.metrics.TokenFetches.WithLabelValues(fetchResult(err)).Inc() })
	a.onClose(func() error { tokens.Close(); return nil })
	client, err := newGateway(a.cfg, tokens)
	if err != nil {
		return nil, err
	}
	a.onClose(client.Close)
	return client, nil
}

// fetchResult returns the value of the label result.
func fetchResult(err error) string {
	var refused *submit.CredentialsError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &refused):
		return "refused"
	}
	return "error"
}

func (a *assembly) verdicts(ctx context.Context) (*verdicts, error) {
	v, err := newVerdicts(ctx, a.cfg, a.opts.Logger, a.metrics)
	if err != nil {
		return nil, err
	}
	flushTime := func() time.Duration { return a.opts.Ending.Flush(a.cfg.ShutdownTimeout) }
	a.onClose(within(ctx, flushTime, v.close))
	return v, nil
}

// serve starts the endpoints of the relay, unless the configuration has no address for them.
func (a *assembly) serve(ctx context.Context, r *relay.Relay) error {
	addr := a.cfg.ListenAddr()
	if addr == "" {
		return nil
	}
	server, err := diagnostics.Start(ctx, diagnostics.Options{
		Addr:    addr,
		Version: a.opts.Version,
		Secret:  string(a.cfg.DiagnosticsSecret),
		Metrics: a.metrics.Registry,
		Healthy: r.Alive,
		Ready: func() (bool, string) {
			s := r.Status()
			return s.Ready, s.Reason
		},
	})
	if err != nil {
		return err
	}
	a.onClose(server.Close)
	if a.opts.OnListen != nil {
		a.opts.OnListen(server.Addr())
	}
	return nil
}

// within returns a function that closes a part of the run in a bounded time, also after ctx
// has ended.
func within(ctx context.Context, bound func() time.Duration, closing func(context.Context) error) func() error {
	return func() error {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound())
		defer cancel()
		return closing(last)
	}
}
