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
func (d *session) source(ctx context.Context) (sub dlq.Subscription, look *dlq.Look) {
	view := d.cfg.DeadLetterViewName()
	if !d.looks || view == "" {
		return d.client, nil
	}
	look, err := dlq.OpenLook(ctx, d.cfg.DeadLetterSubscriptionName(), view, app.PubSubOptions(d.cfg)...)
	if err != nil {
		d.looks = false // the next walk of this command would say the same
		if ctx.Err() == nil {
			d.say("worker: the messages are leased while they are read, because the queue cannot be looked at without that: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		return d.client, nil
	}
	return look, look
}

// endLook deletes what a look has made, also after an interrupt.
func (d *session) endLook(look *dlq.Look) {
	if look == nil {
		return
	}
	if err := look.CloseLook(); err != nil {
		d.say("worker: warning: %v", err)
	}
}
