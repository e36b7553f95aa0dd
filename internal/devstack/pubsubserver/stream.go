package pubsubserver

import (
	"errors"
	"io"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pullStream is an open StreamingPull.
type pullStream struct {
	faults       *faults
	sub          *subscription
	grpc         pubsubpb.Subscriber_StreamingPullServer
	idle         time.Duration // Options.StreamIdle
	leaseSeconds int           // Options.DeliveryLease
	// consumer's limits are set before anyone else sees them.
	consumer *consumer
	// pings receives the heartbeats that are to be answered; capacity 1.
	pings chan struct{}
	// answersPings: the service answers heartbeats, requests with nothing in them, only
	// to clients that know the protocol's version 1.
	answersPings bool
	// ended receives the error with which the stream is to end; capacity 1.
	ended chan error
}

var (
	errStreamDone = errors.New("the client is done")
	errSilent     = errors.New("the stream has gone silent")
	// errStreamEnded is how the service ends streams, those of silent clients too
	// (google-cloud-dotnet#1505).
	errStreamEnded = status.Error(codes.Unavailable, "The service was unable to fulfill your request. Please try again. [code=8a75]")
)

// StreamingPull delivers messages until the client closes its side or is silent
// for too long, the subscription is deleted or the stream is broken.
func (s *subscriber) StreamingPull(grpc pubsubpb.Subscriber_StreamingPullServer) error {
	first, err := grpc.Recv()
	if err != nil {
		return err
	}
	silent, err := s.openings.admit(grpc.Context(), first)
	if err != nil {
		return err
	}
	sub, err := s.registry.subscription(first.GetSubscription())
	if err != nil {
		return err
	}
	if err := checkStreamLease(first.GetStreamAckDeadlineSeconds()); err != nil {
		return err
	}
	p := &pullStream{
		faults: s.faults, sub: sub, grpc: grpc, consumer: newConsumer(),
		idle: s.opts.StreamIdle, leaseSeconds: s.opts.leaseSeconds(),
		pings: make(chan struct{}, 1), ended: make(chan error, 1),
		answersPings: first.GetProtocolVersion() >= 1,
	}
	p.consumer.stream = true
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
	if err := s.streams.run(p, silent); !errors.Is(err, errStreamDone) {
		return err
	}
	return nil
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
	idle := time.AfterFunc(p.idle, func() { p.end(errStreamEnded) })
	defer idle.Stop()
	for {
		req, err := p.grpc.Recv()
		if errors.Is(err, io.EOF) {
			err = errStreamDone
		}
		if err == nil {
			idle.Reset(p.idle)
			err = p.receive(req)
		}
		if err != nil {
			p.end(err)
			return
		}
	}
}

// receive handles a request other than the first.
func (p *pullStream) receive(req *pubsubpb.StreamingPullRequest) error {
	ping := len(req.GetAckIds())+len(req.GetModifyDeadlineAckIds()) == 0
	if ping {
		p.sub.pings.Add(1)
	}
	if p.isSilent() {
		return nil
	}
	if err := p.handle(req); err != nil {
		return err
	}
	if ping && p.answersPings {
		select {
		case p.pings <- struct{}{}:
		default: // one answer does for both
		}
	}
	return nil
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
	}
	// Single ids that fail, on an exactly-once subscription, do not end the stream. The
	// confirmations that the service sends for them are not sent.
	if ids := req.GetAckIds(); len(ids) > 0 {
		if err := p.sub.acknowledge(ids, nil); err != nil && !p.sub.exactlyOnce() {
			return err
		}
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
	_, err := p.sub.modify(ids, func(i int) int { return int(seconds[i]) })
	return err
}

func checkStreamLease(seconds int32) error {
	if seconds < int32(MinStreamAckDeadline.Seconds()) || seconds > int32(maxLeaseSeconds) {
		return status.Errorf(codes.InvalidArgument, "Invalid stream_ack_deadline_seconds: it must be between 10 and %d, not %d.", maxLeaseSeconds, seconds)
	}
	return nil
}
