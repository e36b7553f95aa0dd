package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/receipts"
)

// receiptReader reads RECEIPTS_SUBSCRIPTION.
type receiptReader struct {
	name   string // of the subscription; empty if there are no receipts
	client []option.ClientOption
	opts   dlq.QueueOptions
}

// there reports whether there are receipts.
func (r receiptReader) there() bool { return r.name != "" }

// each calls visit with the messages of RECEIPTS_SUBSCRIPTION, part by part. It gives
// back the messages that visit has not removed from the queue.
func (r receiptReader) each(ctx context.Context, visit func(*dlq.Queue, []*pubsubpb.PubsubMessage) error) (err error) {
	client, err := dlq.NewClient(ctx, r.name, r.client...)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // every receipt is acknowledged or given back by then
	opts := r.opts
	opts.EmptyPulls = 1 // the next look finds receipts that come later
	queue := dlq.Open(client, opts)
	defer func() { err = errors.Join(err, queue.Close()) }()
	for {
		messages, err := queue.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = visit(queue, messages)
		}
		if err != nil {
			return err
		}
	}
}

// ofReplay reads the receipts of a replay. It acknowledges them after record has
// returned, and gives those of other replays back at the end.
func (r receiptReader) ofReplay(ctx context.Context, replayID string, record func([]plan.Receipt) error) error {
	err := r.each(ctx, func(queue *dlq.Queue, messages []*pubsubpb.PubsubMessage) error {
		ours, ids := receiptsOf(replayID, messages)
		if len(ids) == 0 {
			return nil
		}
		if err := record(ours); err != nil {
			return err
		}
		return queue.Remove(ctx, ids)
	})
	switch status.Code(err) {
	case codes.NotFound:
		return fmt.Errorf("RECEIPTS_SUBSCRIPTION: %s does not exist: %w", r.name, err)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("RECEIPTS_SUBSCRIPTION: you may not read %s; expected roles/pubsub.subscriber on it: %w", r.name, err)
	}
	return err
}

// receiptsOf returns the receipts of a replay among messages, and the ids of their messages.
func receiptsOf(replayID string, messages []*pubsubpb.PubsubMessage) (ours []plan.Receipt, ids []string) {
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
	return ours, ids
}

// journaled returns a function that records the receipts that a journal does not have.
func journaled(state *plan.State, record func(...plan.Record) error) func([]plan.Receipt) error {
	return func(ours []plan.Receipt) error {
		news := slices.DeleteFunc(ours, func(r plan.Receipt) bool { return state.Receipted(r.Message) })
		if len(news) == 0 {
			return nil
		}
		return record(plan.Record{Kind: plan.Receipted, Receipts: news})
	}
}
