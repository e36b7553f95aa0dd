package live_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
)

const (
	noPings = "the emulator answers no pings"
	// quietTime is how long nothing must come to count as nothing.
	quietTime = 5 * time.Second
	// answerTime is within what a ping must be answered.
	answerTime = 15 * time.Second
	// arriveTime is within what messages must come that are there.
	arriveTime = 30 * time.Second
)

// streamRows are about streams and requests as such.
var streamRows = []row{
	{
		id: "content", situation: "content type application/grpc+proto", expected: "refused: Unimplemented (HTTP 404)",
		unasked: unlessEmulated("the emulator takes any content type"), ask: askContentType,
		section: "Content type", server: "internal/devstack/googlefront/front.go", test: "internal/devstack/pubsubserver TestOtherContentTypesAreRefused",
	},
	{
		id: "first", situation: "first request of a stream, as the worker sends it", expected: "accepted, delivers", ask: askFirstRequest,
		section: "First request", server: "internal/devstack/pubsubserver/stream.go", test: "internal/consume TestConformance",
	},
	{
		id: "missing", situation: "stream of a subscription that does not exist", expected: "refused: NotFound", ask: askMissing,
		section: "Refusals", server: "internal/devstack/pubsubserver/stream.go", test: "internal/consume TestServerFaults",
	},
	{
		id: "ping", situation: "ping of the worker's client", expected: "an empty response within 15 s", ask: askPing,
		unasked: unlessEmulated(noPings),
		section: "Pings", server: "internal/devstack/pubsubserver/deliver.go", test: "internal/devstack/pubsubserver TestPingsAreAnswered",
	},
	{
		id: "old", situation: "ping of a client without protocol version 1", expected: "no answer", ask: askOldPing,
		unasked: unlessEmulated(noPings),
		section: "First request", server: "internal/devstack/pubsubserver/stream.go", test: "internal/devstack/pubsubserver TestPingsOfOldClientsAreNotAnswered",
	},
	{
		id: "silent", situation: "client that is silent, beside one that pings", expected: "ended after about {idle}; the other one lives", timed: true, ask: askSilent,
		unasked: unlessEmulated("the emulator ends no stream by itself"),
		section: "Pings", server: "internal/devstack/pubsubserver/stream.go", test: "internal/devstack/pubsubserver TestStreamsOfSilentClientsEnd",
	},
	{
		id: "close", situation: "stream that its client closes", expected: "ends within 1 s", ask: askClose,
		section: "Settlements", server: "internal/devstack/pubsubserver/stream.go", test: "internal/consume TestStreamEndsInGoodOrder",
	},
	{
		id: "flow", situation: "bound of 5 outstanding messages, 50 there", expected: "5 come, more after an acknowledgement", ask: askFlow,
		unasked: unlessEmulated("the emulator has no flow control"),
		section: "First request", server: "internal/devstack/pubsubserver/queue.go", test: "internal/consume TestServerFlow",
	},
}

func askContentType(ctx context.Context, p *place) (answer, error) {
	_, subscription, err := p.queue(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	c, err := connect(ctx, append(p.options(), option.WithGRPCDialOption(grpc.WithDefaultCallOptions(grpc.CallContentSubtype("proto"))))...)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = c.close() }()
	_, err = c.subs.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: subscription})
	unary := status.Code(err)
	s, err := c.stream(ctx, subscription, nil)
	if err == nil {
		defer s.close()
		var a arrival
		if a, err = s.next(ctx, quietTime); err == nil {
			err = a.err
		}
	}
	if errors.Is(err, errQuiet) {
		return differs("request: %v; stream: accepted", unary)
	}
	streaming := status.Code(err)
	if ctx.Err() != nil {
		return answer{}, ctx.Err()
	}
	if unary == codes.Unimplemented && streaming == codes.Unimplemented {
		return same("request and stream refused: %v", unary)
	}
	return differs("request: %v; stream: %v", unary, streaming)
}

// received decodes what the worker's client received.
func received(r consume.Response) (*pubsubpb.StreamingPullResponse, error) {
	encoded, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	response := &pubsubpb.StreamingPullResponse{}
	return response, errors.Join(proto.Unmarshal(encoded, response), r.Close())
}

// workerFlow is what the worker asks of a stream.
var workerFlow = consume.Flow{Lease: 30 * time.Second, MaxEvents: 100, MaxBytes: 10 << 20}

func askFirstRequest(ctx context.Context, p *place) (answer, error) {
	subscription, err := p.filled(ctx, 1, nil)
	if err != nil {
		return answer{}, err
	}
	c, err := p.worker(ctx, subscription)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, arriveTime)
	defer cancel()
	began := time.Now()
	for {
		s, err := c.Stream(ctx, workerFlow)
		if err != nil {
			return answer{}, err
		}
		var response consume.Response
		if response, err = s.Recv(); err != nil {
			// A subscription that was just created may not be known everywhere.
			if status.Code(err) == codes.NotFound && sleep(ctx, time.Second) == nil {
				continue
			}
			return differs("refused: %v", err)
		}
		got, err := received(response)
		if err != nil {
			return answer{}, err
		}
		if len(got.GetReceivedMessages()) == 0 {
			return differs("an empty response comes first, although nothing was pinged")
		}
		if err := c.Acknowledge(ctx, ackIDs(got.GetReceivedMessages())); err != nil {
			return differs("delivered; the acknowledgement was refused: %v", err)
		}
		return same("delivered after %s", took(time.Since(began)))
	}
}

func askMissing(ctx context.Context, p *place) (answer, error) {
	s, err := p.stream(ctx, fmt.Sprintf("projects/%s/subscriptions/%s%s-nowhere", p.target.project, prefix, p.run), nil)
	if err == nil {
		defer s.close()
		var a arrival
		if a, err = s.next(ctx, answerTime); errors.Is(err, errQuiet) {
			return differs("accepted")
		}
		err = a.err
	}
	return judged(status.Code(err) == codes.NotFound, "refused: %v", status.Code(err))
}

func askPing(ctx context.Context, p *place) (answer, error) {
	_, subscription, err := p.queue(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	c, err := p.worker(ctx, subscription)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	s, err := c.Stream(ctx, workerFlow)
	if err != nil {
		return answer{}, err
	}
	began := time.Now()
	if err := s.Ping(); err != nil {
		return differs("the ping was not taken: %v", err)
	}
	response, err := s.Recv()
	if err != nil {
		return differs("no answer in %s: %v", took(time.Since(began)), err)
	}
	got, err := received(response)
	if err != nil {
		return answer{}, err
	}
	return judged(len(got.GetReceivedMessages()) == 0, "answered after %s, with %d messages", took(time.Since(began)), len(got.GetReceivedMessages()))
}

func askOldPing(ctx context.Context, p *place) (answer, error) {
	_, subscription, err := p.queue(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	s, err := p.stream(ctx, subscription, func(first *pubsubpb.StreamingPullRequest) { first.ProtocolVersion = 0 })
	if err != nil {
		return answer{}, err
	}
	defer s.close()
	// A response that comes by itself is no answer.
	if _, err := s.next(ctx, time.Second); err != nil && !errors.Is(err, errQuiet) {
		return answer{}, err
	}
	if err := s.ping(); err != nil {
		return answer{}, err
	}
	switch a, err := s.next(ctx, quietTime); {
	case errors.Is(err, errQuiet):
		return same("no answer in %s", spoken(quietTime))
	case err != nil:
		return answer{}, err
	case a.err != nil:
		return differs("the stream was ended: %v", a.err)
	default:
		return differs("answered, with %d messages", len(a.response.GetReceivedMessages()))
	}
}

func askSilent(ctx context.Context, p *place) (answer, error) {
	_, subscription, err := p.queue(ctx, nil)
	if err != nil {
		return answer{}, err
	}
	silent, err := p.stream(ctx, subscription, nil)
	if err != nil {
		return answer{}, err
	}
	defer silent.close()
	alive, err := p.stream(ctx, subscription, nil)
	if err != nil {
		return answer{}, err
	}
	defer alive.close()
	began := time.Now()
	pings := time.NewTicker(p.streamIdle / 3)
	defer pings.Stop()
	giveUp := time.NewTimer(3 * p.streamIdle)
	defer giveUp.Stop()
	for {
		select {
		case a := <-alive.arrivals:
			if a.err != nil {
				return differs("the one that pings was ended after %s: %v", took(time.Since(began)), a.err)
			}
		case <-pings.C:
			if err := alive.ping(); err != nil {
				return answer{}, err
			}
		case a := <-silent.arrivals:
			if a.err == nil {
				continue // the service has sent something by itself
			}
			after := a.at.Sub(began)
			return judged(after > p.streamIdle/2 && after < 5*p.streamIdle/2, "ended after %s: %v; the other one lives", took(after), status.Code(a.err))
		case <-giveUp.C:
			return differs("not ended in %s", took(3*p.streamIdle))
		case <-ctx.Done():
			return answer{}, ctx.Err()
		}
	}
}

func askClose(ctx context.Context, p *place) (answer, error) {
	subscription, err := p.filled(ctx, 1, nil)
	if err != nil {
		return answer{}, err
	}
	s, err := p.stream(ctx, subscription, nil)
	if err != nil {
		return answer{}, err
	}
	defer s.close()
	if _, err := s.atLeastOne(ctx); err != nil {
		return answer{}, err
	}
	if err := s.client.CloseSend(); err != nil {
		return answer{}, err
	}
	closed := time.Now()
	for {
		switch a, err := s.next(ctx, 3*quietTime); {
		case errors.Is(err, errQuiet):
			return differs("does not end in %s", spoken(3*quietTime))
		case err != nil:
			return answer{}, err
		case errors.Is(a.err, io.EOF):
			return judged(a.at.Sub(closed) < p.within(time.Second), "ends after %s", took(a.at.Sub(closed)))
		case a.err != nil:
			return judged(a.at.Sub(closed) < p.within(time.Second), "ends after %s: %v", took(a.at.Sub(closed)), status.Code(a.err))
		}
	}
}

func askFlow(ctx context.Context, p *place) (answer, error) {
	const bound = 5
	subscription, err := p.filled(ctx, 50, nil)
	if err != nil {
		return answer{}, err
	}
	s, err := p.stream(ctx, subscription, func(first *pubsubpb.StreamingPullRequest) { first.MaxOutstandingMessages = bound })
	if err != nil {
		return answer{}, err
	}
	defer s.close()
	first, err := s.atLeastOne(ctx)
	if err != nil {
		return answer{}, err
	}
	rest, _, err := s.messages(ctx, 50, quietTime)
	if err != nil {
		return answer{}, err
	}
	n := len(first) + len(rest)
	if n > bound {
		return differs("%d come", n)
	}
	if err := p.acknowledge(ctx, subscription, first...); err != nil {
		return answer{}, err
	}
	more, _, err := s.messages(ctx, 1, arriveTime)
	if err != nil {
		return answer{}, err
	}
	return judged(n == bound && len(more) > 0, "%d come, %d after an acknowledgement", n, len(more))
}
