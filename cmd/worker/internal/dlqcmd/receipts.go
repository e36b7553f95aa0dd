package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/receipts"
)

// readReceipts moves the receipts of a plan from their subscription into the journal. A
// receipt is in the journal before it is acknowledged. Those of other replays are given
// back at the end.
func (d *session) readReceipts(ctx context.Context, p *plan.Plan, known func(message string) bool, record func(...plan.Record) error) error {
	name := d.cfg.ReceiptsSubscriptionName()
	client, err := dlq.NewClient(ctx, name, app.PubSubOptions(d.cfg)...)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // every receipt is acknowledged or given back by then
	opts := d.env.opts.Queue
	opts.Logger, opts.EmptyPulls = d.log, 1 // what comes later, the next look finds
	queue := dlq.Open(client, opts)
	err = errors.Join(moveReceipts(ctx, queue, p, known, record), queue.Close())
	switch status.Code(err) {
	case codes.NotFound:
		return fmt.Errorf("RECEIPTS_SUBSCRIPTION: %s does not exist: %w", name, err)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("RECEIPTS_SUBSCRIPTION: you may not read %s; expected roles/pubsub.subscriber on it: %w", name, err)
	}
	return err
}

// moveReceipts reads the queue to its end.
func moveReceipts(ctx context.Context, queue *dlq.Queue, p *plan.Plan, known func(string) bool, record func(...plan.Record) error) error {
	for {
		messages, err := queue.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r := plan.Record{Kind: plan.Receipted}
		var ids []string
		for _, m := range messages {
			receipt, ok := receipts.Read(m.GetAttributes())
			if !ok || receipt.ReplayID != p.ID {
				continue
			}
			ids = append(ids, m.GetMessageId())
			if known(m.GetMessageId()) {
				continue
			}
			r.Receipts = append(r.Receipts, plan.Receipt{
				Message: m.GetMessageId(), Origin: receipt.OriginMessageID, Verdict: plan.Verdict(receipt.Verdict), Reason: receipt.Reason, At: receipt.At,
			})
		}
		if len(r.Receipts) > 0 {
			if err := record(r); err != nil {
				return err
			}
		}
		if len(ids) > 0 {
			if err := queue.Remove(ctx, ids); err != nil {
				return err
			}
		}
	}
}
