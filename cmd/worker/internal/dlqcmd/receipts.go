package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/receipts"
)

// readReceipts reads the receipts of a replay. It acknowledges them after record has
// returned, and gives those of other replays back at the end.
func (d *session) readReceipts(ctx context.Context, replayID string, record func([]plan.Receipt) error) error {
	name := d.cfg.ReceiptsSubscriptionName()
	client, err := dlq.NewClient(ctx, name, app.PubSubOptions(d.cfg)...)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // every receipt is acknowledged or given back by then
	opts := d.env.opts.Queue
	opts.Logger, opts.EmptyPulls = d.log, 1 // what comes later, the next look finds
	queue := dlq.Open(client, opts)
	err = errors.Join(moveReceipts(ctx, queue, replayID, record), queue.Close())
	switch status.Code(err) {
	case codes.NotFound:
		return fmt.Errorf("RECEIPTS_SUBSCRIPTION: %s does not exist: %w", name, err)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("RECEIPTS_SUBSCRIPTION: you may not read %s; expected roles/pubsub.subscriber on it: %w", name, err)
	}
	return err
}

// moveReceipts reads the queue to its end.
func moveReceipts(ctx context.Context, queue *dlq.Queue, replayID string, record func([]plan.Receipt) error) error {
	for {
		messages, err := queue.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var (
			ours []plan.Receipt
			ids  []string
		)
		for _, m := range messages {
			receipt, ok := receipts.Read(m.GetAttributes())
			if !ok || receipt.ReplayID != replayID {
				continue
			}
			ids = append(ids, m.GetMessageId())
			ours = append(ours, plan.Receipt{
				Message: m.GetMessageId(), Event: dlq.SafeID(receipt.EventID), Origin: receipt.OriginMessageID, Verdict: plan.Verdict(receipt.Verdict), Reason: receipt.Reason, At: receipt.At,
			})
		}
		if len(ids) == 0 {
			continue
		}
		if err := record(ours); err != nil {
			return err
		}
		if err := queue.Remove(ctx, ids); err != nil {
			return err
		}
	}
}

// journaled returns a function that records the receipts that a journal does not have.
func journaled(j *plan.Journal, record func(...plan.Record) error) func([]plan.Receipt) error {
	return func(ours []plan.Receipt) error {
		news := slices.DeleteFunc(ours, func(r plan.Receipt) bool { return j.State.Receipted(r.Message) })
		if len(news) == 0 {
			return nil
		}
		return record(plan.Record{Kind: plan.Receipted, Receipts: news})
	}
}
