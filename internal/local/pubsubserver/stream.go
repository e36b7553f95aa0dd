package pubsubserver

import (
	"context"
	"errors"
	"io"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pullStream is an open StreamingPull.
type pullStream struct {
	server *Server
	sub    *subscription
	grpc   pubsubpb.Subscriber_StreamingPullServer
	// consumer's limits are set before anyone else sees them.
	consumer *consumer
	// lease receives the stream's ack deadline whenever the client changes it.
	lease chan int
	// pings receives the heartbeats that are to be answered; capacity 1.
	pings chan struct{}
	// answersPings: clients of the protocol's version 1 take a stream for dead
	// when a heartbeat, a request with nothing in it, stays unanswered.
	answersPings bool
	// ended receives the error with which the stream is to end; capacity 1.
	ended chan error
}

var errStreamDone = errors.New("the client is done")

// StreamingPull delivers messages until the client closes its side, the
// subscription is deleted or the stream is broken.
func (s *subscriber) StreamingPull(grpc pubsubpb.Subscriber_StreamingPullServer) error {
	first, err := grpc.Recv()
	if err != nil {
		return err
	}
	sub, err := s.server.subscription(first.GetSubscription())
	if err != nil {
		return err
	}
	lease := first.GetStreamAckDeadlineSeconds()
	if err := checkStreamLease(lease); err != nil {
		return err
	}
	p := &pullStream{
		server: s.server, sub: sub, grpc: grpc, consumer: newConsumer(),
		lease: make(chan int, 1), pings: make(chan struct{}, 1), ended: make(chan error, 1),
		answersPings: first.GetProtocolVersion() >= 1,
	}
	// 0 and less is the clients' way to say that there is no limit.
	p.consumer.maxMessages = max(0, int(first.GetMaxOutstandingMessages()))
	p.consumer.maxBytes = max(0, int(first.GetMaxOutstandingBytes()))
	if err := p.handle(&pubsubpb.StreamingPullRequest{
		AckIds:                first.GetAckIds(),
		ModifyDeadlineAckIds:  first.GetModifyDeadlineAckIds(),
		ModifyDeadlineSeconds: first.GetModifyDeadlineSeconds(),
	}); err != nil {
		return err
	}

	s.server.mu.Lock()
	s.server.streams[p] = struct{}{}
	s.server.mu.Unlock()
	defer func() {
		s.server.mu.Lock()
		delete(s.server.streams, p)
		s.server.mu.Unlock()
		sub.queue.leave(p.consumer)
	}()
	// The reader can only be stopped by this function's return, so the server
	// waits for it.
	s.server.background.Go(p.read)
	err = p.deliver(grpc.Context(), int(lease))
	if errors.Is(err, errStreamDone) {
		return nil
	}
	return err
}

// end makes the stream end with err, unless it is ending already.
func (p *pullStream) end(err error) {
	select {
	case p.ended <- err:
	default:
	}
}

// read handles the client's requests until there are no more.
func (p *pullStream) read() {
	for {
		req, err := p.grpc.Recv()
		if errors.Is(err, io.EOF) {
			err = errStreamDone
		}
		if err == nil {
			err = p.handle(req)
		}
		if err == nil && p.answersPings && len(req.GetAckIds())+len(req.GetModifyDeadlineAckIds()) == 0 {
			select {
			case p.pings <- struct{}{}:
			default: // one answer does for both
			}
		}
		if err != nil {
			p.end(err)
			return
		}
	}
}

func (p *pullStream) handle(req *pubsubpb.StreamingPullRequest) error {
	if req.GetSubscription() != "" || req.GetMaxOutstandingMessages() != 0 || req.GetMaxOutstandingBytes() != 0 || req.GetProtocolVersion() != 0 {
		return status.Error(codes.InvalidArgument, "subscription, max_outstanding_messages, max_outstanding_bytes and protocol_version must be set in the first request only")
	}
	if err := checkAckBytes(req); err != nil {
		return err
	}
	if lease := req.GetStreamAckDeadlineSeconds(); lease != 0 {
		if err := checkStreamLease(lease); err != nil {
			return err
		}
		select { // the latest wins
		case <-p.lease:
		default:
		}
		p.lease <- int(lease)
	}
	if ids := req.GetAckIds(); len(ids) > 0 && !p.sub.queue.ack(ids) {
		return errAckID
	}
	ids, seconds := req.GetModifyDeadlineAckIds(), req.GetModifyDeadlineSeconds()
	if len(ids) != len(seconds) {
		return status.Error(codes.InvalidArgument, "modify_deadline_ack_ids and modify_deadline_seconds must be of one length")
	}
	for _, n := range seconds {
		if err := checkLease(n); err != nil {
			return err
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return p.server.modify(p.sub, ids, func(i int) int { return int(seconds[i]) })
}

func checkStreamLease(seconds int32) error {
	if seconds < int32(MinStreamAckDeadline.Seconds()) || seconds > int32(maxLeaseSeconds) {
		return status.Errorf(codes.InvalidArgument, "Invalid stream_ack_deadline_seconds: it must be between 10 and %d, not %d.", maxLeaseSeconds, seconds)
	}
	return nil
}

// deliver sends messages until the stream has to end.
func (p *pullStream) deliver(ctx context.Context, lease int) error {
	var (
		out []delivered
		raw []byte
		err error
	)
	for {
		select {
		case err := <-p.ended:
			return err
		case lease = <-p.lease:
		case <-p.pings:
			if err := p.grpc.Send(p.response()); err != nil {
				return err
			}
		default:
		}
		clear(out) // keep no acknowledged message alive
		out, err = p.sub.queue.take(p.consumer, maxResponseMessages, lease, out[:0])
		if err != nil {
			return err
		}
		if len(out) == 0 {
			select {
			case err := <-p.ended:
				return err
			case <-ctx.Done():
				return status.FromContextError(ctx.Err()).Err()
			case lease = <-p.lease:
			case <-p.pings:
				if err := p.grpc.Send(p.response()); err != nil {
					return err
				}
			case <-p.consumer.wake:
			}
			continue
		}
		if _, err := p.server.inject(ctx, "StreamingPull.Send", SendInfo{p.sub.name, len(out)}); err != nil {
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

// response returns a response without messages.
func (p *pullStream) response() *pubsubpb.StreamingPullResponse {
	return &pubsubpb.StreamingPullResponse{
		SubscriptionProperties: &pubsubpb.StreamingPullResponse_SubscriptionProperties{
			MessageOrderingEnabled: p.sub.proto.Load().GetEnableMessageOrdering(),
		},
	}
}
