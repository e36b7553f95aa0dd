package consume

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// Subscriber is the part of Pub/Sub that the receiver needs, for one subscription.
type Subscriber interface {
	// Stream opens a streaming pull, which ends with ctx.
	Stream(ctx context.Context, flow Flow) (Stream, error)
	// Pull requests messages once and returns an encoded google.pubsub.v1.PullResponse.
	// Unless it is to be answered immediately, it waits for messages until ctx ends, which
	// is no error.
	Pull(ctx context.Context, limit int, immediately bool) (Response, error)
	// Acknowledge returns nil only if Pub/Sub has taken all ack ids.
	Acknowledge(ctx context.Context, ackIDs []string) error
	// ModifyAckDeadline makes the leases end after a duration that begins now; 0 nacks.
	ModifyAckDeadline(ctx context.Context, ackIDs []string, lease time.Duration) error
}

// Stream delivers messages, hundreds in a response. When its context ends it may deliver
// some more before it ends.
type Stream interface {
	// Recv returns an encoded google.pubsub.v1.StreamingPullResponse. A response without
	// messages is the answer to a ping.
	Recv() (Response, error)
	// Ping requests an answer. It may be called while Recv waits.
	Ping() error
}

// Flow has the limits that a stream requests of Pub/Sub.
type Flow struct {
	Lease     time.Duration // of its messages
	MaxEvents int           // outstanding at once
	MaxBytes  int64
}

// Options of a Receiver.
type Options struct {
	// Subscription is the subscription's full name, for errors.
	Subscription string
	// MaxEvents and MaxBytes bound the outstanding messages. A response that begins below
	// the bound may exceed it.
	MaxEvents int
	MaxBytes  int64
	// Streams is the number of streams that are open at once; 0 means 4. Pub/Sub delivers
	// about 10 MB/s over a stream.
	Streams int
	// LeaseDuration is the lease of each message, and so the time after which Pub/Sub
	// redelivers the messages of a killed process; 0 means 30 s. Pub/Sub allows 10 to 600
	// s. Subscriptions with exactly-once delivery get at least 60 s.
	LeaseDuration time.Duration
	// Intervals are for tests; the zero value means the defaults.
	Intervals Intervals
	// OnStreamEnd, if set, is called when a stream has ended or could not be opened.
	// refused is true if Pub/Sub refused the stream. It is called from several goroutines.
	OnStreamEnd func(err error, refused bool)
	Logger      *slog.Logger
}

// Intervals are the times that the real service requires, or that its official clients use.
// A zero field means the default.
type Intervals struct {
	// Ping is the interval between the pings of a stream; 30 s, because Pub/Sub ends a
	// stream whose client is silent for about 60 s.
	Ping time.Duration
	// Answer is how long the answer to a ping may take before the stream is reopened, and
	// the answer to a pull that does not wait; 15 s.
	Answer time.Duration
	// OpenGrace is how long a stream without a response must last to count as open; 2 s.
	OpenGrace time.Duration
	// Refused is how long Pub/Sub may refuse every stream before receiving ends; 2 min.
	Refused time.Duration
	// Receipt is the time after which a delivered message's lease is set to LeaseDuration;
	// 100 ms. Until then the lease is about ten minutes, and if the process is killed,
	// nobody gets the message for so long (google-cloud-rust#4519, google-cloud-go#11642).
	Receipt time.Duration
	// Pull is how long one pull waits for messages; 3 s.
	Pull time.Duration
}

func (in Intervals) withDefaults() Intervals {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&in.Ping, 30*time.Second)
	set(&in.Answer, 15*time.Second)
	set(&in.OpenGrace, 2*time.Second)
	set(&in.Refused, 2*time.Minute)
	set(&in.Receipt, 100*time.Millisecond)
	set(&in.Pull, 3*time.Second)
	return in
}

// Handler takes the messages of a response in pieces: fresh ones, and redeliveries of
// messages that are outstanding. It may block to slow down the stream. It is called
// concurrently, and must not keep the slice of fresh messages.
type Handler func(ctx context.Context, fresh, again []*Message)

// Receiver receives from one subscription.
type Receiver struct {
	sub     Subscriber
	opts    Options
	log     *slog.Logger
	leases  *leases
	handle  Handler
	streams *streams
	open    atomic.Int32 // number of streams that are being read
	// exactlyOnce is set while the subscription says that it delivers exactly once.
	exactlyOnce atomic.Bool
	// Extensions have other slots for requests than settlements. Otherwise slow answers to
	// settlements would leave extensions without a slot until leases end.
	extensions requests
	settler    *settler

	stop    context.CancelFunc
	workers sync.WaitGroup
}

const (
	defaultStreams = 4
	defaultLease   = 30 * time.Second
	// exactlyOnceLease is the shortest lease that the official clients give to
	// messages of subscriptions with exactly-once delivery.
	exactlyOnceLease = time.Minute
	rpcTimeout       = 10 * time.Second
	// pullPause is the pause after a pull that was answered early without messages.
	pullPause = 200 * time.Millisecond
	// longStream is how long a stream must last for its end to count as no failure, even if
	// it delivered nothing.
	longStream = time.Minute
)

// NewReceiver returns a receiver that extends leases and sends settlements until
// Close. It delivers nothing before Receive.
func NewReceiver(sub Subscriber, opts Options, handle Handler) *Receiver {
	if opts.Streams == 0 {
		opts.Streams = defaultStreams
	}
	opts.Streams = min(opts.Streams, opts.MaxEvents)
	if opts.LeaseDuration == 0 {
		opts.LeaseDuration = defaultLease
	}
	opts.Intervals = opts.Intervals.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	r := &Receiver{
		sub: sub, opts: opts, log: opts.Logger, leases: newLeases(opts), handle: handle,
		streams: newStreams(opts.Streams, opts.Intervals), stop: cancel,
		extensions: newRequests(),
	}
	r.settler = &settler{sub: sub, leases: r.leases, log: opts.Logger, requests: newRequests()}
	for range settleWorkers {
		r.workers.Go(func() { r.settler.acknowledge(ctx) })
		r.workers.Go(func() { r.settler.nack(ctx) })
	}
	r.workers.Go(func() { r.extend(ctx) })
	return r
}

// Receive delivers messages to the handler until ctx ends, and then returns nil. It
// survives every failure that may pass. A *RefusedError means that nothing can be received
// from the subscription. Receive may be called again after it has returned.
func (r *Receiver) Receive(ctx context.Context) error {
	r.leases.receiveUntil(ctx)
	defer r.leases.received()
	r.streams.note(func(all *health) { all.begin(time.Now()) })
	defer r.streams.note((*health).end)
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	for n := range r.opts.Streams {
		p.Go(func(ctx context.Context) error { return r.keepOpen(ctx, n) })
	}
	err := p.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// NearCapacity reports whether the outstanding messages come so close to the bounds that
// the streams will hardly deliver more before some are settled and confirmed.
func (r *Receiver) NearCapacity() bool {
	// The share of a stream that is not open is not available to the others.
	open, streams := int64(r.open.Load()), int64(r.opts.Streams)
	near := func(bound int64) int64 { return bound * open / streams * 7 / 8 }
	return r.leases.events.Load() >= near(int64(r.opts.MaxEvents)) || r.leases.size.Load() >= near(r.opts.MaxBytes)
}

// PullOnce requests at most n messages, waits for them for Intervals.Pull, hands them to
// the handler and returns their number. An empty answer does not mean that the subscription
// is empty: only several of them in a row do (google-cloud-go#8235).
//
// Its first request does not wait for messages. Those that are there come even if the answer
// takes longer than Intervals.Pull. After a waiting request they would be lost on the way, and
// stay leased.
func (r *Receiver) PullOnce(ctx context.Context, n int) (int, error) {
	if found, err := r.pullNow(ctx, n); found > 0 || err != nil {
		return found, err
	}
	wait, cancel := context.WithTimeout(ctx, r.opts.Intervals.Pull)
	defer cancel()
	for {
		response, err := r.sub.Pull(wait, n, false)
		if err != nil {
			return 0, err
		}
		// Some servers return an empty answer early: the emulator after two seconds.
		if found, err := r.deliver(ctx, newReader(), response); found > 0 || err != nil {
			return found, err
		}
		if retry.Sleep(wait, pullPause) != nil {
			return 0, ctx.Err()
		}
	}
}

// pullNow requests at most n messages that are there, and hands them to the handler.
func (r *Receiver) pullNow(ctx context.Context, n int) (int, error) {
	answer, cancel := context.WithTimeout(ctx, r.opts.Intervals.Answer)
	defer cancel()
	response, err := r.sub.Pull(answer, n, true)
	if err != nil {
		return 0, err
	}
	return r.deliver(ctx, newReader(), response)
}

// PullWait returns how long PullOnce waits for messages.
func (r *Receiver) PullWait() time.Duration { return r.opts.Intervals.Pull }

// Ack acks messages whose event is recorded or dead-lettered.
func (r *Receiver) Ack(messages []*Message) { r.leases.ack(messages) }

// Nack nacks messages: Pub/Sub redelivers them at once, to any subscriber.
func (r *Receiver) Nack(messages []*Message) { r.leases.nack(messages) }

// LetExpire removes messages without a request to Pub/Sub, which redelivers them when their
// lease has ended.
func (r *Receiver) LetExpire(messages []*Message) { r.leases.letExpire(messages) }

// Flush waits until Pub/Sub has confirmed every ack and nack.
func (r *Receiver) Flush(ctx context.Context) error { return r.leases.settled(ctx) }

// Unconfirmed returns how many acks and nacks Pub/Sub has not confirmed.
func (r *Receiver) Unconfirmed() int { return r.leases.unconfirmed() }

// Close ends the extension of leases and the sending of acks and nacks, and waits for both.
// Pub/Sub redelivers the messages whose ack was not flushed.
func (r *Receiver) Close() {
	r.stop()
	r.workers.Wait()
	r.extensions.wait()
	r.settler.requests.wait()
}

// deliver enters the messages of a response into the table, piece by piece, and returns
// their number.
func (r *Receiver) deliver(ctx context.Context, from *reader, response Response) (n int, err error) {
	defer func() { _ = response.Close() }() // frees memory, and cannot fail
	for {
		messages, err := from.next(response)
		if from.propertiesKnown {
			r.exactlyOnce.Store(from.exactlyOnce)
		}
		if err != nil || len(messages) == 0 {
			return n, err
		}
		n += len(messages)
		fresh, again := r.leases.add(messages, time.Now())
		r.handle(ctx, fresh, again)
	}
}

// lease returns the duration of new leases.
func (r *Receiver) lease() time.Duration {
	if r.exactlyOnce.Load() {
		return max(r.opts.LeaseDuration, exactlyOnceLease)
	}
	return r.opts.LeaseDuration
}
