package app

import (
	"context"
	"sync"
	"time"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/preflight"
)

// Check checks everything that a run needs, and changes nothing. It waits for answers until
// patience is over.
func Check(ctx context.Context, cfg *config.Config, patience time.Duration) ([]preflight.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tokens := newTokens(cfg, nil)
	defer tokens.Close()
	gateway, err := newGateway(cfg, tokens)
	if err != nil {
		return nil, err
	}
	var (
		both    sync.WaitGroup
		pubsub  []preflight.Finding
		outside []preflight.Finding
	)
	both.Go(func() { pubsub = preflight.PubSub(ctx, Needs(cfg), PubSubOptions(cfg)...) })
	both.Go(func() {
		outside = preflight.Dependencies(ctx, tokens, gateway, preflight.Addresses{SAMS: cfg.TokenURL(), Gateway: cfg.GatewayURL})
	})
	both.Wait()
	findings := append(preflight.Configuration(cfg), pubsub...)
	return append(findings, outside...), gateway.Close()
}
