package dlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/sourcegraph/telemetry-relay/internal/ackresult"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

const (
	// maxIDs is the most ack ids in a request: well within 512 KiB.
	maxIDs = 1000
	// leaseStreams is how many requests to extend or to release are in flight at
	// once. Few of them may hang without delaying the others, and their ids take
	// little memory.
	leaseStreams = 32
	// requestTimeout bounds one request.
	requestTimeout = 10 * time.Second
	// extendGrace is how long an extension in flight may still take at the end. Pub/Sub
	// may serve a cancelled extension after the release, and so undo the release.
	extendGrace = 2 * time.Second
)

// receipt extends the leases of messages just received, because the subscription's
// own deadline may be short. A failure is not reported: the next periodic extension tries
// again, and otherwise Pub/Sub redelivers the messages.
func (q *Queue) receipt(ctx context.Context, ids []string) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	q.extendPart(ctx, ids)
}

// discard acknowledges messages that were removed before and delivered again.
func (q *Queue) discard(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	rpc, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := q.settle(rpc, ids, q.sub.Acknowledge); err != nil && ctx.Err() == nil {
		q.opts.Logger.Warn("Messages that had been removed were delivered again, and could not be acknowledged", "error", err)
	}
}

// extend renews all leases until ctx ends.
func (q *Queue) extend(ctx context.Context) {
	ticker := time.NewTicker(q.opts.ExtendEvery)
	defer ticker.Stop()
	requests := pool.New().WithMaxGoroutines(leaseStreams)
	defer requests.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for part := range slices.Chunk(q.ackIDs(), maxIDs) {
			requests.Go(func() {
				work, cancel := retry.Outlive(ctx, extendGrace)
				defer cancel()
				// The next extension replaces one that takes as long as this.
				work, stop := context.WithTimeout(work, q.opts.ExtendEvery)
				defer stop()
				q.extendPart(work, part)
			})
		}
	}
}

func (q *Queue) extendPart(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	lost, err := q.settle(ctx, ids, func(ctx context.Context, ids []string) error {
		return q.sub.ModifyAckDeadline(ctx, ids, q.opts.Lease)
	})
	q.markLost(lost)
	if err != nil && !errors.Is(err, context.Canceled) {
		q.opts.Logger.Warn("The leases of messages could not be extended", "messages", len(ids), "error", err)
	}
}

// markLost records lost leases. Their messages are still in the queue.
func (q *Queue) markLost(ackIDs []string) {
	if len(ackIDs) == 0 {
		return
	}
	gone := make(map[string]struct{}, len(ackIDs))
	for _, id := range ackIDs {
		gone[id] = struct{}{}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, ackID := range q.leased {
		_, lost := gone[ackID]
		_, removed := q.removed[id] // its acknowledgement has ended the lease
		if lost && !removed {
			q.leased[id] = ""
			q.lost++
		}
	}
}

func (q *Queue) ackIDs() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	ids := make([]string, 0, len(q.leased))
	for _, ackID := range q.leased {
		if ackID != "" {
			ids = append(ids, ackID)
		}
	}
	return ids
}

// Remove acknowledges the messages. It continues after ctx has ended, because the caller
// has published or saved them already. After an error some may still be in the queue.
// Messages whose leases were lost may be delivered again, as Doubts says.
func (q *Queue) Remove(ctx context.Context, messageIDs []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.opts.Patience)
	defer cancel()
	for part := range slices.Chunk(messageIDs, maxIDs) {
		ids := make([]string, 0, len(part))
		q.mu.Lock()
		for _, id := range part {
			if ackID := q.leased[id]; ackID != "" {
				ids = append(ids, ackID)
			}
			q.removed[id] = struct{}{}
		}
		q.mu.Unlock()
		lost, err := q.settle(ctx, ids, q.sub.Acknowledge)
		if err != nil {
			return fmt.Errorf("acknowledge dead-lettered messages: %w", err)
		}
		q.mu.Lock()
		q.lost += len(lost)
		for _, id := range part {
			delete(q.leased, id)
		}
		q.mu.Unlock()
	}
	return nil
}

// settle repeats a request until it has worked for all ack ids but the lost ones, which it
// returns. An exactly-once subscription names the ids whose leases are lost; settle then
// repeats the request for the other ids only.
func (q *Queue) settle(ctx context.Context, ids []string, do func(context.Context, []string) error) (lost []string, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	_, err = retry.Bounded(ctx, &q.bounds, func() (struct{}, error) {
		rpc, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		err := do(rpc, ids)
		retry, gone, ok := ackresult.Split(err, ids)
		if !ok {
			return struct{}{}, err
		}
		lost = append(lost, gone...)
		if ids = retry; len(ids) == 0 {
			return struct{}{}, nil
		}
		// %v drops the status, because its code is about the lost ids.
		return struct{}{}, fmt.Errorf("%d ack ids are not done yet: %v", len(ids), err) //nolint:errorlint // see above
	}, func(error, retry.Class) {})
	return lost, err
}

// Close releases every message that is still leased. Further calls do nothing.
func (q *Queue) Close() error {
	if q.closed {
		return nil
	}
	q.closed = true
	// An extension that Pub/Sub serves after the release would undo it.
	q.stopLease()
	q.leasing.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), q.opts.ReleaseTimeout)
	defer cancel()
	_ = retry.Sleep(ctx, time.Until(q.cut.Add(q.opts.WaitingPull/releasePause))) // the requests say if no time is left
	p := pool.New().WithErrors().WithMaxGoroutines(leaseStreams)
	for part := range slices.Chunk(q.ackIDs(), maxIDs) {
		p.Go(func() error {
			_, err := q.settle(ctx, part, func(ctx context.Context, ids []string) error { return q.sub.ModifyAckDeadline(ctx, ids, 0) })
			return err
		})
	}
	if err := p.Wait(); err != nil {
		return errors.Join(fmt.Errorf("some dead-lettered messages come back only in up to %v: they could not be released at once", q.opts.Lease), err)
	}
	return nil
}
