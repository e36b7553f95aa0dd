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

// Subscriber is what the receiver needs of Pub/Sub, for one subscription.
type Subscriber interface {
	// Stream opens a streaming pull; it ends with ctx.
	Stream(ctx context.Context, flow Flow) (Stream, error)
	// Pull asks for messages once and waits for some to come until ctx ends; that is no
	// error. It returns an encoded google.pubsub.v1.PullResponse.
	Pull(ctx context.Context, most int) (Response, error)
	// Acknowledge returns nil only when Pub/Sub has taken all of them.
	Acknowledge(ctx context.Context, ackIDs []string) error
	// ModifyAckDeadline sets the rest of the leases; 0 releases at once.
	ModifyAckDeadline(ctx context.Context, ackIDs []string, lease time.Duration) error
}

// Stream delivers messages, hundreds at a time. When its context ends it may
// deliver some more before it ends, too.
type Stream interface {
	// Recv returns an encoded google.pubsub.v1.StreamingPullResponse. It may have no
	// messages: that is the answer to a ping.
	Recv() (Response, error)
	// Ping asks for an answer. It may be called while Recv waits.
	Ping() error
}

// Flow is what one stream asks of Pub/Sub.
type Flow struct {
	Lease     time.Duration // of what it delivers
	MaxEvents int           // unacknowledged at once
	MaxBytes  int64
}

// Options of a Receiver.
type Options struct {
	// Subscription is the subscription's full name, for errors.
	Subscription string
	// MaxEvents and MaxBytes bound what is held. A response that begins below
	// the bound may exceed it.
	MaxEvents int
	MaxBytes  int64
	// Streams is how many streams are open at once; 0 means 4. Pub/Sub gives
	// about 10 MB/s a stream.
	Streams int
	// LeaseDuration is how long Pub/Sub waits before it delivers again what a
	// killed process held; 0 means 30 s. Pub/Sub allows 10 to 600 s. Subscriptions with
	// exactly-once delivery have at least 60 s.
	LeaseDuration time.Duration
	// Intervals are for tests; the zero value means the defaults.
	Intervals Intervals
	// OnStreamEnd, if set, is called when a stream has ended or could not be opened.
	// refused means that the error's Code says no. It is called from several goroutines.
	OnStreamEnd func(err error, refused bool)
	Logger      *slog.Logger
}

// Intervals are the times that the real service asks for, or that its official
// clients use. A zero field means the default.
type Intervals struct {
	// Ping is how often a stream is pinged; 30 s, since Pub/Sub ends a stream whose
	// client is silent for about 60 s.
	Ping time.Duration
	// Answer is how long the answer to a ping may take before the stream is opened
	// anew; 15 s.
	Answer time.Duration
	// OpenGrace is how long a stream without an answer must last to count as open; 2 s.
	OpenGrace time.Duration
	// Refused is for how long Pub/Sub may refuse every stream before receiving ends;
	// 2 min.
	Refused time.Duration
	// Receipt is how soon a delivered message's lease is set to LeaseDuration; 100 ms.
	// Until then its lease is about ten minutes, for which a killed process would
	// keep the message from everybody (google-cloud-rust#4519, google-cloud-go#11642).
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

// Handler takes a part of what a response delivered: messages that are now held, and
// messages that were delivered again while they are held. It may block to hold
// the stream back. It is called concurrently, and does not keep the slice of fresh
// messages.
type Handler func(ctx context.Context, fresh, again []*Message)

// Receiver receives from one subscription.
type Receiver struct {
	sub     Subscriber
	opts    Options
	log     *slog.Logger
	leases  *leases
	handle  Handler
	streams *streams
	open    atomic.Int32 // streams that are being read
	// exactlyOnce is set while the subscription says that it delivers exactly once.
	exactlyOnce atomic.Bool
	// Extensions have requests of their own, because slow answers to settlements would
	// otherwise leave no slot for them until leases end.
	extensions, settlements requests

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
	// pullPause is how long a pull that was answered early with nothing rests.
	pullPause = 200 * time.Millisecond
	// A stream that lasted this long has not failed, even if it was quiet.
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
		extensions: newRequests(), settlements: newRequests(),
	}
	for range settleWorkers {
		r.workers.Go(func() { r.acknowledge(ctx) })
		r.workers.Go(func() { r.nack(ctx) })
	}
	r.workers.Go(func() { r.extend(ctx) })
	return r
}

// Receive delivers messages to the handler until ctx ends, and then returns nil.
// It survives whatever passes; a *RefusedError means that the subscription cannot be
// received from at all. It may be called again after it has returned.
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

// NearCapacity reports whether so much is outstanding that the streams will hardly
// bring more before something is settled and Pub/Sub has confirmed it.
func (r *Receiver) NearCapacity() bool {
	// A stream that is not open leaves its share to nobody.
	open, streams := int64(r.open.Load()), int64(r.opts.Streams)
	near := func(bound int64) int64 { return bound * open / streams * 7 / 8 }
	return r.leases.events.Load() >= near(int64(r.opts.MaxEvents)) || r.leases.size.Load() >= near(r.opts.MaxBytes)
}

// PullOnce asks for at most n messages, waits for some to come for Intervals.Pull,
// hands them to the handler and returns how many there were. None does not mean that
// the subscription has none: only several answers of this kind in a row do
// (google-cloud-go#8235).
func (r *Receiver) PullOnce(ctx context.Context, n int) (int, error) {
	wait, cancel := context.WithTimeout(ctx, r.opts.Intervals.Pull)
	defer cancel()
	for {
		response, err := r.sub.Pull(wait, n)
		if err != nil {
			return 0, err
		}
		// Some servers answer early with nothing: the emulator after two seconds.
		if found, err := r.deliver(ctx, newReader(), response); found > 0 || err != nil {
			return found, err
		}
		if retry.Sleep(wait, pullPause) != nil {
			return 0, ctx.Err()
		}
	}
}

// PullWait is how long PullOnce waits for messages.
func (r *Receiver) PullWait() time.Duration { return r.opts.Intervals.Pull }

// Ack acknowledges messages whose event is safe elsewhere.
func (r *Receiver) Ack(messages []*Message) { r.leases.ack(messages) }

// Nack gives messages back, so that anybody can get them at once.
func (r *Receiver) Nack(messages []*Message) { r.leases.nack(messages) }

// LetExpire forgets messages without telling Pub/Sub: they are redelivered when their
// lease has ended.
func (r *Receiver) LetExpire(messages []*Message) { r.leases.letExpire(messages) }

// Flush waits until Pub/Sub has confirmed every acknowledgement and release.
func (r *Receiver) Flush(ctx context.Context) error { return r.leases.settled(ctx) }

// Unconfirmed is how many acknowledgements and releases Pub/Sub has not
// confirmed yet.
func (r *Receiver) Unconfirmed() int { return r.leases.unconfirmed() }

// Close ends the extension of leases and the sending of settlements and waits
// for both. What was not flushed is lost, and delivered again by Pub/Sub.
func (r *Receiver) Close() {
	r.stop()
	r.workers.Wait()
	r.extensions.wait()
	r.settlements.wait()
}

// deliver enters what a response brought into the table, piece by piece, and
// returns how many messages there were.
func (r *Receiver) deliver(ctx context.Context, from *reader, response Response) (n int, err error) {
	defer func() { _ = response.Close() }() // of memory: it cannot fail
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

// lease is how long leases are made: what a killed process held is back after it.
func (r *Receiver) lease() time.Duration {
	if r.exactlyOnce.Load() {
		return max(r.opts.LeaseDuration, exactlyOnceLease)
	}
	return r.opts.LeaseDuration
}
