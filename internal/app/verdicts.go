package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/receipts"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

// verdicts passes on the verdicts of a run: to the log of faults, to the metrics, and as
// receipts. The relay's loop calls it.
type verdicts struct {
	faults  *fault.Log
	metrics *metrics.Metrics
	// receipts is nil if none are published. digest is that of the services list.
	receipts *receipts.Publisher
	digest   string
	topic    *topic.Client // of the receipts
}

// newVerdicts connects to the topic of receipts, if there is one.
func newVerdicts(ctx context.Context, cfg *config.Config, log *slog.Logger, m *metrics.Metrics) (*verdicts, error) {
	v := &verdicts{metrics: m, digest: cfg.Services.Digest()}
	if name := cfg.ReceiptsTopicName(); name != "" {
		client, err := topic.NewClient(ctx, name, PubSubOptions(cfg)...)
		if err != nil {
			return nil, err
		}
		v.topic = client
		v.receipts = receipts.NewPublisher(client, log, func(result string, n int) {
			m.ReceiptPublishes.WithLabelValues(result).Add(float64(n))
		})
	}
	v.faults = fault.NewLog(log)
	return v, nil
}

// close logs the last faults, and publishes the last receipts until ctx ends.
func (v *verdicts) close(ctx context.Context) error {
	v.faults.Close()
	if v.receipts == nil {
		return nil
	}
	v.receipts.Close(ctx)
	return v.topic.Close()
}

func (v *verdicts) add(of relay.Verdict) {
	attributes := of.Message.Attributes
	if of.Result == relay.Rejected {
		v.faults.Add(fault.Rejection{
			Reason: string(of.Rejection.Reason), Service: attributes[event.AttrServiceID], Detail: of.Rejection.Detail,
			EventID: of.EventID, MessageID: of.Message.ID, Release: attributes[event.AttrServiceVersion],
		})
	}
	if !of.Replayed {
		return
	}
	verdict := receipts.Verdict(of.Result)
	if of.Rejection != nil {
		// A duplicate of a rejected event is not at the gateway, so that "duplicate" would
		// mislead.
		verdict = receipts.Rejected
	}
	v.metrics.ReplayedEvents.WithLabelValues(string(verdict)).Inc()
	if r, ok := receipts.For(attributes); ok && v.receipts != nil {
		r.Verdict, r.EventID, r.At, r.ServicesDigest = verdict, of.EventID, time.Now(), v.digest
		if of.Rejection != nil {
			r.Reason = string(of.Rejection.Reason)
		}
		v.receipts.Add(r)
	}
}
