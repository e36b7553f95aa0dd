package dlqcmd

import (
	"context"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// source returns the subscription that a walk reads. A command that only reads looks
// through the view, if there is one and it can be used; else look is nil, and the walk
// leases what it reads.
func (q *queueReader) source(ctx context.Context) (sub dlq.Subscription, look *dlq.Look) {
	view := q.cfg.DeadLetterViewName()
	if !q.looks || view == "" {
		return q.client, nil
	}
	look, err := dlq.OpenLook(ctx, q.cfg.DeadLetterSubscriptionName(), view, app.PubSubOptions(q.cfg)...)
	if err != nil {
		q.looks = false // the next walk of this command would fail in the same way
		if ctx.Err() == nil {
			q.console.say("worker: the messages are leased while they are read, because the queue cannot be looked at without that: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		return q.client, nil
	}
	return look, look
}

// endLook deletes what a look has made, also after an interrupt.
func (q *queueReader) endLook(look *dlq.Look) {
	if look == nil {
		return
	}
	if err := look.CloseLook(); err != nil {
		q.console.say("worker: warning: %v", err)
	}
}
