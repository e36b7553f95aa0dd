package pubsubserver

import (
	"context"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/status"
)

// deliver sends messages until the stream has to end.
func (p *pullStream) deliver(ctx context.Context) error {
	var (
		out []delivered
		raw []byte
		err error
	)
	for {
		select {
		case err := <-p.ended:
			return p.endWith(ctx, err)
		case <-p.pings:
			if err := p.answerPing(); err != nil {
				return err
			}
		default:
		}
		clear(out) // keep no acknowledged message alive
		out, err = p.sub.queue.take(p.consumer, maxResponseMessages, p.leaseSeconds, out[:0])
		if err != nil {
			return p.endWith(ctx, err)
		}
		if len(out) == 0 {
			select {
			case err := <-p.ended:
				return p.endWith(ctx, err)
			case <-ctx.Done():
				return status.FromContextError(ctx.Err()).Err()
			case <-p.pings:
				if err := p.answerPing(); err != nil {
					return err
				}
			case <-p.consumer.wake:
			}
			continue
		}
		if _, err := p.faults.inject(ctx, "StreamingPull.Send", SendInfo{p.sub.name, len(out)}); err != nil {
			return err
		}
		resp := p.response()
		raw = p.sub.appendReceived(raw[:0], out)
		resp.ProtoReflect().SetUnknown(raw)
		if err := p.grpc.Send(resp); err != nil {
			return err
		}
	}
}

// endWith returns the error that the stream ends with. Nothing ends a silent stream but the
// client's cancelling it or the end of the connection; even a half close goes
// unheard.
func (p *pullStream) endWith(ctx context.Context, err error) error {
	if p.isSilent() {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	return err
}

func (p *pullStream) answerPing() error {
	if p.isSilent() {
		return nil
	}
	return p.grpc.Send(p.response())
}

// response returns a response without messages.
func (p *pullStream) response() *pubsubpb.StreamingPullResponse {
	return &pubsubpb.StreamingPullResponse{
		SubscriptionProperties: &pubsubpb.StreamingPullResponse_SubscriptionProperties{
			MessageOrderingEnabled:     p.sub.proto.Load().GetEnableMessageOrdering(),
			ExactlyOnceDeliveryEnabled: p.sub.exactlyOnce(),
		},
	}
}
