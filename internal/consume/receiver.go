package consume

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/sourcegraph/conc/pool"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Subscriber is what the receiver needs of Pub/Sub, for one subscription.
type Subscriber interface {
	// Stream opens a streaming pull; it ends with ctx.
	Stream(ctx context.Context, flow Flow) (Stream, error)
	// Pull asks once, without waiting for messages to come. It returns an encoded
	// google.pubsub.v1.PullResponse.
	Pull(ctx context.Context, most int) (Response, error)
	// Acknowledge returns nil only when Pub/Sub has taken all of them.
	Acknowledge(ctx context.Context, ackIDs []string) error
	// ModifyAckDeadline sets the rest of the leases; 0 releases at once.
	ModifyAckDeadline(ctx context.Context, ackIDs []string, lease time.Duration) error
}

// Stream delivers messages, hundreds at a time. When its context ends it may
// deliver some more before it ends, too.
type Stream interface {
	// Recv returns an encoded google.pubsub.v1.StreamingPullResponse.
	Recv() (Response, error)
}

// Flow is what one stream asks of Pub/Sub.
type Flow struct {
	Lease     time.Duration // of what it delivers
	MaxEvents int           // unacknowledged at once
	MaxBytes  int64
}

// Options of a Receiver.
type Options struct {
	// MaxEvents and MaxBytes bound what is held. A response that begins below
	// the bound may exceed it.
	MaxEvents int
	MaxBytes  int64
	// Streams is how many streams are open at once; 0 means 4. Pub/Sub gives
	// about 10 MB/s a stream.
	Streams int
	// LeaseDuration is how long Pub/Sub waits before it delivers again what a
	// killed process held; 0 means 30 s. Pub/Sub allows 10 to 600 s.
	LeaseDuration time.Duration
	Logger        *slog.Logger
}

// Handler takes a part of what a response delivered: messages that are now held, and
// messages that were delivered again while they are held. It may block to hold
// the stream back. It is called concurrently, and does not keep the slice of fresh
// messages.
type Handler func(ctx context.Context, fresh, again []*Message)

// Receiver receives from one subscription.
type Receiver struct {
	sub    Subscriber
	opts   Options
	log    *slog.Logger
	leases *leases
	handle Handler
	open   atomic.Int32  // streams that are open
	urgent chan struct{} // capacity 1: leases are about to run out

	stop    context.CancelFunc
	workers sync.WaitGroup
}

const (
	defaultStreams = 4
	defaultLease   = 30 * time.Second
	lookEvery      = 3 * time.Second        // how often the table is looked through
	lookPause      = 500 * time.Millisecond // at least, between two looks
	rpcTimeout     = 10 * time.Second
	ackWorkers     = 2
	// A stream that lasted this long has not failed, even if it was quiet.
	longStream = time.Minute
	// bufferedWait is how long reading what is there already takes at most.
	bufferedWait = time.Millisecond
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
	ctx, cancel := context.WithCancel(context.Background())
	r := &Receiver{sub: sub, opts: opts, log: opts.Logger, leases: newLeases(opts), handle: handle, urgent: make(chan struct{}, 1), stop: cancel}
	for range ackWorkers {
		r.workers.Go(func() { r.acknowledge(ctx) })
	}
	r.workers.Go(func() { r.handBack(ctx) })
	r.workers.Go(func() { r.extend(ctx) })
	return r
}

// Receive delivers messages to the handler until ctx ends, and then returns nil.
// It survives whatever passes; an error means that the subscription cannot be
// received from at all. It may be called again after it has returned.
func (r *Receiver) Receive(ctx context.Context) error {
	r.leases.receiveUntil(ctx)
	defer r.leases.received()
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	for range r.opts.Streams {
		p.Go(r.stream)
	}
	err := p.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Receiving reports whether a stream is open.
func (r *Receiver) Receiving() bool { return r.open.Load() > 0 }

// Crowded reports whether so much is held that the streams will hardly bring more
// before something is settled and Pub/Sub has confirmed it.
func (r *Receiver) Crowded() bool {
	// A stream that is not open leaves its share to nobody.
	open, streams := int64(r.open.Load()), int64(r.opts.Streams)
	most := func(bound int64) int64 { return bound * open / streams * 7 / 8 }
	return r.leases.events.Load() >= most(int64(r.opts.MaxEvents)) || r.leases.size.Load() >= most(r.opts.MaxBytes)
}

// PullOnce asks for at most n messages without waiting for some to come, hands
// them to the handler and returns how many there were.
func (r *Receiver) PullOnce(ctx context.Context, n int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	response, err := r.sub.Pull(ctx, n)
	if err != nil {
		return 0, err
	}
	// The subscription's own deadline is what a pull gives, and we do not know it:
	// it may be shorter than ours.
	return r.deliver(ctx, newReader(r.opts.MaxEvents), response, time.Now().Add(-r.opts.LeaseDuration))
}

// Ack acknowledges messages whose event is safe elsewhere.
func (r *Receiver) Ack(messages []*Message) { r.leases.ack(messages, false) }

// Finish is Ack for messages of which nobody has anything any more: no text, no
// data, no room. Their memory is used again.
func (r *Receiver) Finish(messages []*Message) { r.leases.ack(messages, true) }

// Release hands messages back, so that anybody can get them at once.
func (r *Receiver) Release(messages []*Message) { r.leases.release(messages) }

// Abandon leaves messages to expire: they come back when their lease has ended.
func (r *Receiver) Abandon(messages []*Message) { r.leases.abandon(messages) }

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
}

// stream keeps one stream open.
func (r *Receiver) stream(ctx context.Context) error {
	pause := newBackOff(100*time.Millisecond, 10*time.Second)
	for {
		began := time.Now()
		delivered, err := r.receive(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fatal(err) {
			return err
		}
		if delivered || time.Since(began) > longStream {
			pause.Reset()
		}
		// Streams end every so often by design, so this is no fault yet.
		r.log.Debug("A stream from Pub/Sub has ended; opening another", "error", err)
		if err := sleep(ctx, pause.NextBackOff()); err != nil {
			return err
		}
	}
}

// receive opens a stream and reads it to its end.
func (r *Receiver) receive(ctx context.Context) (delivered bool, err error) {
	if err := r.leases.room(ctx); err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream lives as long as its context
	stream, err := r.sub.Stream(ctx, Flow{
		Lease:     r.opts.LeaseDuration,
		MaxEvents: max(1, r.opts.MaxEvents/r.opts.Streams),
		MaxBytes:  max(1, r.opts.MaxBytes/int64(r.opts.Streams)),
	})
	if err != nil {
		return false, err
	}
	r.open.Add(1)
	defer r.open.Add(-1)
	// A response that need not be waited for has been in the connection's buffers
	// since some time after behind.
	returned := time.Now()
	behind := returned
	reader := newReader(r.opts.MaxEvents)
	for {
		asked := time.Now()
		response, err := stream.Recv()
		if err != nil {
			return delivered, err
		}
		delivered = true
		if waited := time.Since(asked); waited > bufferedWait {
			// They were empty, so it is no older than the last absence was long.
			behind = returned.Add(waited)
		}
		returned = time.Now()
		if _, err := r.deliver(ctx, reader, response, behind); err != nil {
			return delivered, err
		}
		// When ctx has ended, room or not, the stream is read to its end: what it
		// holds must be known to be handed back.
		_ = r.leases.room(ctx)
	}
}

// deliver enters what a response brought into the table, piece by piece, and
// returns how many messages there were. The response may have waited in the
// connection's buffers, so its leases may have begun as early as began.
func (r *Receiver) deliver(ctx context.Context, from *reader, response Response, began time.Time) (n int, err error) {
	defer func() { _ = response.Close() }() // of memory: it cannot fail
	for {
		messages, err := from.next(response)
		if err != nil || len(messages) == 0 {
			return n, err
		}
		n += len(messages)
		fresh, again := r.leases.add(messages, began)
		if time.Since(began) > r.opts.LeaseDuration-2*r.lookInterval() {
			select {
			case r.urgent <- struct{}{}:
			default:
			}
		}
		r.handle(ctx, fresh, again)
	}
}

// fatal reports whether an error will not pass by itself. It follows the
// official client's list.
func fatal(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.PermissionDenied, codes.InvalidArgument,
		codes.Unauthenticated, codes.FailedPrecondition, codes.Unimplemented:
		return true
	}
	return false
}

// acknowledge sends acknowledgements until ctx ends.
func (r *Receiver) acknowledge(ctx context.Context) {
	pause := newBackOff(50*time.Millisecond, 2*time.Second)
	var (
		batch []pendingAck
		ids   []string
		err   error
	)
	for {
		if batch, err = r.leases.takeAcks(ctx, batch); err != nil {
			return
		}
		ids = ids[:0]
		for _, p := range batch {
			ids = append(ids, p.ackID)
		}
		if r.sendAcks(ctx, batch, ids) {
			pause.Reset()
			continue
		}
		if sleep(ctx, pause.NextBackOff()) != nil {
			return
		}
	}
}

// sendAcks reports whether Pub/Sub answered. An ack id that it does not accept
// is found by halving, so that it does not hold up the others.
func (r *Receiver) sendAcks(ctx context.Context, batch []pendingAck, ids []string) bool {
	rpc, cancel := context.WithTimeout(ctx, rpcTimeout)
	err := r.sub.Acknowledge(rpc, ids)
	cancel()
	switch {
	case err == nil:
		r.leases.confirmAcks(batch, true)
		return true
	case !refused(err):
		r.log.Warn("Pub/Sub did not confirm acknowledgements; sending them again", "messages", len(batch), "error", err)
		r.leases.confirmAcks(batch, false)
		return false
	case len(batch) > 1:
		half := len(batch) / 2
		first := r.sendAcks(ctx, batch[:half], ids[:half])
		return r.sendAcks(ctx, batch[half:], ids[half:]) && first
	default:
		r.log.Warn("Pub/Sub refused an acknowledgement; it will deliver the message again", "message_id", batch[0].message.ID, "error", err)
		r.leases.giveUpAcks(batch)
		return true
	}
}

// handBack sends releases until ctx ends.
func (r *Receiver) handBack(ctx context.Context) {
	pause := newBackOff(50*time.Millisecond, 2*time.Second)
	for {
		ids, err := r.leases.takeReleases(ctx)
		if err != nil {
			return
		}
		if r.sendReleases(ctx, ids) {
			pause.Reset()
		} else if sleep(ctx, pause.NextBackOff()) != nil {
			return
		}
	}
}

// sendReleases reports whether Pub/Sub answered.
func (r *Receiver) sendReleases(ctx context.Context, ids []string) bool {
	err := r.modify(ctx, ids, 0)
	if refused(err) && len(ids) > 1 {
		half := len(ids) / 2
		first := r.sendReleases(ctx, ids[:half:half])
		return r.sendReleases(ctx, ids[half:]) && first
	}
	// What is fatal will not get better: those leases run out by themselves.
	done := err == nil || fatal(err)
	if err != nil {
		r.log.Warn("Pub/Sub did not take messages back", "messages", len(ids), "retry", !done, "error", err)
	}
	r.leases.confirmReleases(ids, done)
	return done
}

func (r *Receiver) modify(ctx context.Context, ids []string, lease time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()
	return r.sub.ModifyAckDeadline(ctx, ids, lease)
}

// refused reports whether a request holds an ack id that Pub/Sub does not
// accept. Halving the request finds it, so that it does not hold up the others.
func refused(err error) bool {
	code := status.Code(err)
	return code == codes.InvalidArgument || code == codes.FailedPrecondition
}

// lookInterval is how often the table is looked through.
func (r *Receiver) lookInterval() time.Duration {
	return min(lookEvery, r.opts.LeaseDuration/6)
}

// extend keeps the leases of everything held from running out, until ctx ends.
func (r *Receiver) extend(ctx context.Context) {
	// Two thirds of a lease are left for what may delay an extension.
	margin := r.opts.LeaseDuration * 2 / 3
	tick := time.NewTicker(r.lookInterval())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.urgent:
		case <-ctx.Done():
			return
		}
		ids, messages := r.leases.expiring(time.Now().Add(margin))
		for len(ids) > 0 && ctx.Err() == nil {
			batch, rest := cut(ids)
			r.extendBatch(ctx, batch, messages[:len(batch)])
			ids, messages = rest, messages[len(batch):]
		}
		if sleep(ctx, lookPause) != nil {
			return
		}
	}
}

func (r *Receiver) extendBatch(ctx context.Context, ids []string, messages []*Message) {
	sent := time.Now()
	err := r.modify(ctx, ids, r.opts.LeaseDuration)
	if refused(err) && len(ids) > 1 {
		half := len(ids) / 2
		r.extendBatch(ctx, ids[:half], messages[:half])
		r.extendBatch(ctx, ids[half:], messages[half:])
		return
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("Pub/Sub did not extend leases", "messages", len(ids), "error", err)
	}
	// A single one that is refused is as good as gone; it need not be found by
	// halving at every look.
	if err == nil || refused(err) {
		r.leases.extended(ids, messages, sent.Add(r.opts.LeaseDuration))
	}
}

func newBackOff(first, most time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = first, most, 2
	b.Reset()
	return b
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

// errEnded is what a stream's regular end becomes.
var errEnded = errors.New("the stream has ended")

func streamError(err error) error {
	if errors.Is(err, io.EOF) {
		return errEnded
	}
	return err
}
