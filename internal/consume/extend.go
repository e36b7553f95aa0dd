package consume

import (
	"context"
	"time"
)

const (
	// A lease is extended after 1/leaseShare of its duration. The remaining two thirds
	// leave time for extensions that fail: an outage of 20 s ends no lease.
	leaseShare = 3
	// extendTimeout bounds one request to extend.
	extendTimeout = 5 * time.Second
	// unansweredExtension is how long an extension may have no answer before it is sent
	// again, beside the first request and on another connection. Waiting for the first
	// one's timeout would leave time for only four tries in a lease of 30 s.
	unansweredExtension = 2 * time.Second
	// retryExtension is how soon an extension that failed is tried again.
	retryExtension = time.Second
)

// extend sets the lease of each message soon after its delivery, and keeps it from
// running out until the message is settled. The requests run beside each other,
// because a slow answer to one must not endanger the leases of the others.
func (r *Receiver) extend(ctx context.Context) {
	tick := time.NewTicker(r.opts.Intervals.Receipt)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		ids, messages := r.leases.takeDue(time.Now(), unansweredExtension)
		for len(ids) > 0 {
			batch, rest := cut(ids)
			of := messages[:len(batch)]
			if _, err := r.extensions.start(ctx, func() { r.extendBatch(ctx, batch, of) }); err != nil {
				return
			}
			ids, messages = rest, messages[len(batch):]
		}
	}
}

// extendBatch extends leases with one request. Leases whose extension failed are due again
// after retryExtension.
func (r *Receiver) extendBatch(ctx context.Context, ids []string, messages []*Message) {
	lease, sent := r.lease(), time.Now()
	extend := func(ctx context.Context, ids []string) error { return r.sub.ModifyAckDeadline(ctx, ids, lease) }
	fates, err := attempt(ctx, extendTimeout, extend, ids)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.log.Warn("Pub/Sub did not extend all leases", "messages", len(ids), "again", countFates(fates, again), "code", Code(err), "error", err)
	}
	r.leases.extended(ids, messages, fates, func(f fate) time.Time {
		switch f {
		case taken:
			return sent.Add(lease / leaseShare)
		case again:
			return time.Now().Add(retryExtension)
		default:
			// The lease has ended. The message may still be acked, or be redelivered.
			return sent.Add(lease)
		}
	})
}
