package preflight

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
)

const (
	// lookTime bounds the check of a stream, apart from giving messages back.
	lookTime = 6 * time.Second
	// lookAnswer is how long a ping may stay unanswered before the stream is opened
	// again: streams have been seen to go silent on a healthy connection.
	lookAnswer = 2500 * time.Millisecond
	// lookRefused is how long a refusal must last. Some pass: see consume.RefusedError.
	lookRefused = 2 * time.Second
	// lookLinger is how long a stream that has answered may take to bring a message.
	lookLinger = 200 * time.Millisecond
	// lookReceipt is how soon a message's lease is shortened, in case the check cannot
	// give it back. The check usually gives it back sooner. Otherwise the request that
	// shortens the lease could arrive after the one that gives the message back.
	lookReceipt = time.Second
	// lookReturn bounds giving messages back.
	lookReturn = 3 * time.Second
	// lookPoll is how often the stream's health is read.
	lookPoll = 20 * time.Millisecond

	// maxMessageBytes is the largest message of Pub/Sub.
	maxMessageBytes = 10 << 20
)

// sight is the observation of a subscription through a stream.
type sight struct {
	answered bool // Pub/Sub has answered a ping
	lasted   bool // the stream was open for so long that it counts as accepted
	messages int  // that it brought
	kept     bool // they could not be given back
	// refusal is the last refusal of a stream, failure the last other error.
	refusal, failure error
	took             time.Duration
}

// look opens a stream as a run does, through the same Receiver, and returns when it
// has answered a ping or brought a message. It gives messages back. From an emulator,
// which answers no pings, a stream that lasts is enough.
func look(ctx context.Context, client consume.Subscriber, subscription string, emulator bool) sight {
	l := looker{brought: make(chan struct{}, 1)}
	r := consume.NewReceiver(client, consume.Options{
		Subscription: subscription,
		MaxEvents:    1, MaxBytes: maxMessageBytes, Streams: 1,
		Intervals:   consume.Intervals{Answer: lookAnswer, Refused: lookRefused, Receipt: lookReceipt},
		OnStreamEnd: l.streamEnded,
		Logger:      slog.New(slog.DiscardHandler),
	}, l.hold)
	defer r.Close()

	began := time.Now()
	receiving, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.Receive(receiving) // only refusals end it, and those are collected
	}()
	l.wait(receiving, r, emulator, ended)
	took := time.Since(began)
	// The stream is closed before messages are given back, since Pub/Sub could deliver
	// them to it again.
	stop()
	<-ended
	return l.seen(ctx, r, took)
}

// looker collects the events of the stream.
type looker struct {
	brought chan struct{} // a message has come; capacity 1

	mu               sync.Mutex // guards everything below
	held             []*consume.Message
	refusal, failure error
}

// hold is the Receiver's handler: it keeps the messages until they are given back.
func (l *looker) hold(_ context.Context, fresh, _ []*consume.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, fresh...)
	select {
	case l.brought <- struct{}{}:
	default:
	}
}

func (l *looker) streamEnded(err error, refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case refused:
		l.refusal, l.failure = err, nil
	case status.Code(err) != codes.Canceled: // that is how the Receiver ends a silent one
		l.failure = err
	}
}

// wait returns when the stream has shown enough, when receiving has ended, or when ctx
// has.
func (l *looker) wait(ctx context.Context, r *consume.Receiver, emulator bool, ended <-chan struct{}) {
	tick := time.NewTicker(lookPoll)
	defer tick.Stop()
	var linger <-chan time.Time
	for {
		select {
		case <-l.brought:
			return
		case <-linger:
			return
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			h := r.Health()
			if linger == nil && (h.EverAnswered || emulator && h.Open > 0) {
				linger = time.After(lookLinger)
			}
		}
	}
}

// seen gives messages back, even if ctx has ended, and returns the observation.
func (l *looker) seen(ctx context.Context, r *consume.Receiver, took time.Duration) sight {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := r.Health()
	s := sight{
		answered: h.EverAnswered, lasted: h.EverOpen, messages: len(l.held),
		refusal: l.refusal, failure: l.failure, took: took,
	}
	if len(l.held) > 0 {
		returning, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookReturn)
		defer cancel()
		r.Nack(l.held)
		s.kept = r.Flush(returning) != nil
	}
	return s
}

// stream checks the subscription with a stream as `worker run` opens one.
func stream(ctx context.Context, subscription string, emulator bool, opts ...option.ClientOption) (f Finding) {
	client, err := consume.NewClient(ctx, subscription, opts...)
	if err != nil {
		return failure(streamCheck, subscription, oneLine(err), nothingReceived, logIn)
	}
	defer func() {
		if err := client.Close(); err != nil {
			f = warning(streamCheck, subscription, f.Detail+"; the connection did not close: "+oneLine(err), "", "")
		}
	}()
	return look(ctx, client, subscription, emulator).finding(subscription, emulator)
}

const (
	streamCheck     = "stream"
	nothingReceived = "worker run receives nothing"
)

// finding turns the observation into a finding.
func (s sight) finding(subscription string, emulator bool) Finding {
	var detail string
	switch {
	case s.kept:
		return warning(streamCheck, subscription, fmt.Sprintf("brought %s, which Pub/Sub did not take back within %v", messages(s.messages), lookReturn),
			"delivered again when the lease ends, after ten minutes at most", "run this again")
	case s.messages > 0 && s.answered:
		detail = fmt.Sprintf("answered a ping, and brought %s, given back at once", messages(s.messages))
	case s.messages > 0:
		detail = fmt.Sprintf("brought %s, given back at once", messages(s.messages))
	case s.answered:
		detail = "answered a ping"
	case s.lasted && emulator:
		detail = "was accepted, and did not answer a ping, as emulators do not"
	case s.refusal != nil && s.failure == nil:
		refused := consume.RefusedError{Subscription: subscription, For: s.took, Err: s.refusal}
		return failure(streamCheck, subscription, "refused: "+oneLine(s.refusal), nothingReceived+", and ends", refused.ToCheck())
	default:
		detail = fmt.Sprintf("no answer in %v", s.took.Round(time.Second))
		if s.failure != nil {
			detail += ": " + oneLine(s.failure)
		}
		return failure(streamCheck, subscription, detail, nothingReceived, "check the network, PUBSUB_ENDPOINT and proxies; then run this again")
	}
	if before := cmp.Or(s.refusal, s.failure); before != nil {
		detail += ", after an opening that failed: " + oneLine(before)
	}
	return ok(streamCheck, subscription, detail)
}

func messages(n int) string {
	if n == 1 {
		return "one message"
	}
	return fmt.Sprintf("%d messages", n)
}
