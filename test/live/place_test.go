package live_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/uuid"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
)

// streamLease is what streams ask for in their first request, in seconds.
const streamLease = 30

// queue creates a topic and a subscription.
func (p *place) queue(ctx context.Context, change func(*pubsubpb.Subscription)) (topic, subscription string, err error) {
	if topic, err = p.createTopic(ctx, p.id()); err != nil {
		return "", "", err
	}
	subscription, err = p.createSubscription(ctx, p.id(), topic, change)
	return topic, subscription, err
}

// filled creates a topic and a subscription with n messages.
func (p *place) filled(ctx context.Context, n int, change func(*pubsubpb.Subscription)) (subscription string, err error) {
	topic, subscription, err := p.queue(ctx, change)
	if err != nil {
		return "", err
	}
	return subscription, p.publish(ctx, topic, numbered(n)...)
}

// numbered makes messages whose data are numbers from 0.
func numbered(n int) []*pubsubpb.PubsubMessage {
	all := make([]*pubsubpb.PubsubMessage, n)
	for i := range all {
		all[i] = &pubsubpb.PubsubMessage{Data: fmt.Append(nil, i)}
	}
	return all
}

func (p *place) publish(ctx context.Context, topic string, messages ...*pubsubpb.PubsubMessage) error {
	_, err := insist(ctx, func(ctx context.Context) (*pubsubpb.PublishResponse, error) {
		return p.topics.Publish(ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: messages})
	})
	return err
}

// pullTime is how long one Pull waits. One that is cut may lose what is on its way
// until the lease ends, so it is longer than servers usually wait by themselves.
const pullTime = 20 * time.Second

// pull pulls until n messages have come or the time is over.
func (p *place) pull(ctx context.Context, subscription string, n int, within time.Duration) ([]*pubsubpb.ReceivedMessage, error) {
	var all []*pubsubpb.ReceivedMessage
	for until := time.Now().Add(within); len(all) < n && time.Now().Before(until); {
		got, err := p.pullOnce(ctx, subscription, min(pullTime, time.Until(until)))
		if err != nil {
			return all, err
		}
		all = append(all, got...)
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return all, err
		}
	}
	return all, nil
}

// pullOnce pulls once and waits for messages so long at most.
func (p *place) pullOnce(ctx context.Context, subscription string, wait time.Duration) ([]*pubsubpb.ReceivedMessage, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	response, err := p.subs.Pull(waiting, &pubsubpb.PullRequest{Subscription: subscription, MaxMessages: 1000})
	if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
		return nil, nil
	}
	return response.GetReceivedMessages(), err
}

// acknowledge acknowledges messages. Pub/Sub refuses a request without ids.
func (p *place) acknowledge(ctx context.Context, subscription string, messages ...*pubsubpb.ReceivedMessage) error {
	if len(messages) == 0 {
		return nil
	}
	return p.subs.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: subscription, AckIds: ackIDs(messages)})
}

func (p *place) setLease(ctx context.Context, subscription string, seconds int32, messages ...*pubsubpb.ReceivedMessage) error {
	return p.subs.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{Subscription: subscription, AckIds: ackIDs(messages), AckDeadlineSeconds: seconds})
}

func ackIDs(messages []*pubsubpb.ReceivedMessage) (ids []string) {
	for _, m := range messages {
		ids = append(ids, m.GetAckId())
	}
	return ids
}

// worker is the worker's own client of a subscription.
func (p *place) worker(ctx context.Context, subscription string) (*consume.Client, error) {
	return consume.NewClient(ctx, subscription, p.options()...)
}

// arrival is what a stream brought, or the error with which it ended.
type arrival struct {
	response *pubsubpb.StreamingPullResponse
	err      error
	at       time.Time
}

// stream is a StreamingPull by the generated client, which sends nothing by itself.
type stream struct {
	client   pubsubpb.Subscriber_StreamingPullClient
	arrivals chan arrival // closed after an error
	cancel   context.CancelFunc
	reading  sync.WaitGroup
}

// stream opens one with the first request of an official client, which change may change.
func (c *clients) stream(ctx context.Context, subscription string, change func(*pubsubpb.StreamingPullRequest)) (*stream, error) {
	ctx, cancel := context.WithCancel(gax.InsertMetadataIntoOutgoingContext(ctx, "x-goog-request-params", "subscription="+url.QueryEscape(subscription)))
	s := &stream{arrivals: make(chan arrival, 100), cancel: cancel}
	var err error
	if s.client, err = c.subs.StreamingPull(ctx); err != nil {
		cancel()
		return nil, err
	}
	first := &pubsubpb.StreamingPullRequest{
		Subscription: subscription, ClientId: uuid.NewString(), ProtocolVersion: 1, StreamAckDeadlineSeconds: streamLease,
		MaxOutstandingMessages: 1000, MaxOutstandingBytes: 10 << 20,
	}
	if change != nil {
		change(first)
	}
	_ = s.client.Send(first) // Recv has the reason if this fails
	s.reading.Go(func() {
		defer close(s.arrivals)
		for {
			response, err := s.client.Recv()
			select {
			case s.arrivals <- arrival{response, err, time.Now()}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	return s, nil
}

// ping sends a request with nothing in it.
func (s *stream) ping() error { return s.client.Send(&pubsubpb.StreamingPullRequest{}) }

// close cuts the stream.
func (s *stream) close() {
	s.cancel()
	s.reading.Wait()
}

// errQuiet: a stream has brought nothing in time.
var errQuiet = errors.New("the stream brings nothing")

// next waits for what the stream brings next.
func (s *stream) next(ctx context.Context, within time.Duration) (arrival, error) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case a, open := <-s.arrivals:
		if !open {
			return a, errors.New("the stream has ended")
		}
		return a, nil
	case <-timer.C:
		return arrival{}, errQuiet
	case <-ctx.Done():
		return arrival{}, ctx.Err()
	}
}

// messages waits until the stream has brought n messages or the time is over.
func (s *stream) messages(ctx context.Context, n int, within time.Duration) (all []*pubsubpb.ReceivedMessage, last time.Time, err error) {
	for until := time.Now().Add(within); len(all) < n; {
		a, err := s.next(ctx, time.Until(until))
		switch {
		case errors.Is(err, errQuiet):
			return all, last, nil
		case err != nil:
			return all, last, err
		case a.err != nil:
			return all, last, a.err
		}
		if got := a.response.GetReceivedMessages(); len(got) > 0 {
			all, last = append(all, got...), a.at
		}
	}
	return all, last, nil
}

// atLeastOne waits until the stream has brought a message.
func (s *stream) atLeastOne(ctx context.Context) ([]*pubsubpb.ReceivedMessage, error) {
	got, _, err := s.messages(ctx, 1, arriveTime)
	if err == nil && len(got) == 0 {
		err = errQuiet
	}
	return got, err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// took renders how long something took.
func took(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}
