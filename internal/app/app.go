// Package app builds the worker from its configuration: clients, stages and endpoints. It
// closes them in reverse order.
package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/preflight"
	"github.com/sourcegraph/telemetry-relay/internal/provision"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// ServiceID is the worker's own id at MSP.
const ServiceID = "telemetry-relay"

// Options are the settings without an environment variable.
type Options struct {
	Version string
	Logger  *slog.Logger
	// Ending, if set, bounds the last reports of this run together with those of the
	// caller.
	Ending *Ending
	// StartWait is how long the run waits for resources that are missing at the start; 0
	// means preflight.StartWait.
	StartWait time.Duration
	// RejectSpan is relay.Options.RejectSpan.
	RejectSpan time.Duration
	// OnProgress, if set, is called with the progress of the run.
	OnProgress func(relay.Progress)
	// Intervals of the Pub/Sub client, for tests and for an embedded Pub/Sub. The zero
	// value has the intervals that the real service needs.
	Intervals consume.Intervals
	// OnDeadLetter, if set, is called for each message that was dead-lettered. It must
	// not change the message.
	OnDeadLetter func(*dlq.DeadLetter)
	// OnListen, if set, is called with the address of the endpoints.
	OnListen func(addr string)
}

// Run relays events until the run is done or ctx ends. The summary is valid in any case.
// The error says why the run failed.
func Run(ctx context.Context, cfg *config.Config, opts Options) (summary relay.Summary, err error) {
	summary = relay.Summary{Accounting: relay.NewAccounting(), Ended: relay.Failed}
	if opts.Ending == nil {
		opts.Ending = NewEnding(ctx, cfg)
	}
	if opts.StartWait == 0 {
		opts.StartWait = preflight.StartWait
	}
	a := &assembly{cfg: cfg, opts: opts, metrics: newMetrics(cfg.Services)}
	defer func() { err = errors.Join(err, a.close()) }()
	a.metrics.Info.WithLabelValues(opts.Version, string(cfg.Mode)).Set(1)
	r, err := a.build(ctx)
	switch {
	case errors.Is(err, errStopped):
		summary.Ended = relay.Signal
		return summary, nil
	case err != nil:
		return summary, err
	}
	opts.Logger.Info("Starting", "version", opts.Version, "mode", string(cfg.Mode),
		"subscription", cfg.SubscriptionName(), "dead_letter_topic", cfg.DeadLetterTopicName(),
		"gateway", cfg.GatewayURL, "environment", cfg.Environment, "services", len(cfg.Services.Services()))
	return r.Run(ctx)
}

// relayOptions returns the options of the relay that are settings.
func relayOptions(cfg *config.Config, opts Options) relay.Options {
	return relay.Options{
		Batch: batch.Limits{
			Events: cfg.BatchMaxEvents,
			Bytes:  int(cfg.BatchMaxBytes),
			Delay:  cfg.BatchMaxDelay,
		},
		Streams:     int(cfg.SubmitConcurrency),
		MaxStreams:  cfg.SubmitConcurrencyMax,
		RejectAfter: cfg.RejectAfter,
		RejectSpan:  opts.RejectSpan,
		Consume: consume.Options{
			Subscription: cfg.SubscriptionName(),
			MaxEvents:    cfg.MaxOutstandingEvents, MaxBytes: int64(cfg.MaxOutstandingBytes),
			Intervals: opts.Intervals,
		},
		Drain:           cfg.Mode == config.Drain,
		DrainIdle:       cfg.DrainIdle,
		ReceiveWindow:   cfg.ReceiveWindow(),
		ShutdownTimeout: cfg.ShutdownTimeout,
		Services:        cfg.Services,
		Environment:     cfg.Environment,
		Preflight: func(ctx context.Context) error {
			return preflight.Run(ctx, Needs(cfg), opts.StartWait, opts.Logger, PubSubOptions(cfg)...)
		},
		OnProgress: opts.OnProgress,
		Logger:     opts.Logger,
	}
}

// announced announces each message that was dead-lettered, if there is a function for it.
type announced struct {
	relay.DeadLetters
	announce func(*dlq.DeadLetter)
}

func (a announced) Write(ctx context.Context, letters []*dlq.DeadLetter) []error {
	results := a.DeadLetters.Write(ctx, letters)
	for i, err := range results {
		if err == nil && a.announce != nil {
			a.announce(letters[i])
		}
	}
	return results
}

func newTokens(cfg *config.Config, onFetch func(error)) *submit.Tokens {
	return submit.NewTokens(submit.TokenOptions{
		URL:          cfg.TokenURL(),
		ClientID:     cfg.SAMSClientID,
		ClientSecret: string(cfg.SAMSClientSecret),
		OnFetch:      onFetch,
	})
}

func newGateway(cfg *config.Config, tokens *submit.Tokens) (*submit.Client, error) {
	return submit.NewClient(submit.Options{
		URL:     cfg.GatewayURL,
		Streams: cfg.MaxStreams(),
		Timeout: cfg.SubmitTimeout,
		Tokens:  tokens,
		Self:    event.Publisher{ServiceID: ServiceID, Environment: cfg.Environment},
	})
}

// Needs are the resources that the configuration names.
func Needs(cfg *config.Config) provision.Needs {
	return provision.Needs{
		Subscription:           cfg.SubscriptionName(),
		DeadLetterTopic:        cfg.DeadLetterTopicName(),
		Topic:                  cfg.TopicName(),
		TopicGiven:             cfg.TopicGiven,
		DeadLetterSubscription: cfg.DeadLetterSubscriptionName(),
		DeadLetterView:         cfg.DeadLetterViewName(),
		ReceiptsTopic:          cfg.ReceiptsTopicName(),
		ReceiptsSubscription:   cfg.ReceiptsSubscriptionName(),
		Emulator:               cfg.EmulatorHost != "",
	}
}

// newMetrics returns the metrics with all possible label values.
func newMetrics(services *policy.Set) *metrics.Metrics {
	m := metrics.New()
	var ids, reasons []string
	for _, service := range services.Services() {
		ids = append(ids, service.ID)
	}
	for _, reason := range event.Reasons {
		reasons = append(reasons, string(reason))
	}
	m.Expect(ids, reasons)
	return m
}
