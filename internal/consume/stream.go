package consume

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// streams are the streams that a Receiver keeps open. They share one health. Each has a
// channel on which a ping can be requested.
type streams struct {
	mu     sync.Mutex // guards health
	health *health
	pings  []chan struct{} // by stream; capacity 1
}

func newStreams(n int, in Intervals) *streams {
	s := &streams{
		health: &health{
			grace: in.OpenGrace, proof: in.Ping + in.Answer, patience: in.Refused,
			streams: make([]streamState, n),
		},
		pings: make([]chan struct{}, n),
	}
	for i := range s.pings {
		s.pings[i] = make(chan struct{}, 1)
	}
	return s
}

// note calls change with the health, under its lock.
func (s *streams) note(change func(*health)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.health)
}

// Health returns the state of the streams from Pub/Sub.
func (r *Receiver) Health() (h Health) {
	r.streams.note(func(all *health) { h = all.snapshot(time.Now()) })
	return h
}

// Ping requests an answer from Pub/Sub on every open stream. It does not wait for the
// answers; see AnsweredSince.
func (r *Receiver) Ping() {
	for _, ping := range r.streams.pings {
		select {
		case ping <- struct{}{}:
		default: // a ping is requested already
		}
	}
}

// AnsweredSince reports whether at least one stream is open, and every open stream has
// delivered something since then: an answer to a ping, or messages. If no stream of this
// process was ever answered, as with the emulator, an open stream is enough.
func (r *Receiver) AnsweredSince(since time.Time) (answered bool) {
	r.streams.note(func(all *health) { answered = all.answeredSince(since, time.Now()) })
	return answered
}

// keepOpen keeps stream n open until ctx ends. It returns early when Pub/Sub has
// refused all streams for too long.
func (r *Receiver) keepOpen(ctx context.Context, n int) error {
	pause := retry.NewBackOff(100*time.Millisecond, 10*time.Second)
	for {
		began := time.Now()
		delivered, err := r.receive(ctx, n)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var refused time.Duration
		r.streams.note(func(all *health) { refused = all.ended(n, err, time.Now()) })
		if r.opts.OnStreamEnd != nil {
			r.opts.OnStreamEnd(err, refusal(err))
		}
		if refused > 0 {
			return &RefusedError{Subscription: r.opts.Subscription, For: refused, Err: err}
		}
		if delivered || time.Since(began) > longStream {
			pause.Reset()
		}
		if refusal(err) {
			r.log.Warn("Pub/Sub refuses a stream; opening it again", "code", Code(err), "error", err)
		} else {
			// Pub/Sub ends streams every so often by design, so this is no fault yet.
			r.log.Debug("A stream from Pub/Sub has ended; opening it again", "error", err)
		}
		if err := retry.Sleep(ctx, pause.NextBackOff()); err != nil {
			return err
		}
	}
}

// receive opens stream n and reads it to its end.
func (r *Receiver) receive(ctx context.Context, n int) (delivered bool, err error) {
	if err := r.leases.waitForCapacity(ctx); err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := r.sub.Stream(ctx, Flow{
		Lease:     r.lease(),
		MaxEvents: max(1, r.opts.MaxEvents/r.opts.Streams),
		MaxBytes:  max(1, r.opts.MaxBytes/int64(r.opts.Streams)),
	})
	if err != nil {
		return false, err
	}
	r.open.Add(1)
	defer r.open.Add(-1)
	r.streams.note(func(all *health) { all.opened(n, time.Now()) })

	var (
		reading pulse
		watcher sync.WaitGroup
	)
	watcher.Go(func() { r.watch(ctx, n, stream, &reading, cancel) })
	defer watcher.Wait()
	defer cancel()

	reader := newReader()
	for {
		reading.begin(time.Now())
		response, err := stream.Recv()
		if err != nil {
			return delivered, err
		}
		now := time.Now()
		reading.end(now)
		empty := response.Remaining() < smallestMessage
		r.streams.note(func(all *health) { all.heard(n, !empty, now) })
		messages, err := r.deliver(ctx, reader, response)
		delivered = delivered || messages > 0
		if err != nil {
			return delivered, err
		}
		// When ctx has ended, the stream is read to its end even without capacity, because
		// a message must be known to be nacked.
		_ = r.leases.waitForCapacity(ctx)
	}
}

// smallestMessage is less, in bytes, than any response with a message has: an ack id alone
// is longer. The answer to a ping has at most some bytes of settings.
const smallestMessage = 20

// watch pings a stream until ctx ends, because Pub/Sub ends a stream whose client is silent
// for about a minute. It closes the stream when an answer is overdue: streams have been
// seen to go silent on a healthy connection, which gRPC's keepalive does not notice
// (java-pubsub#490, nodejs-pubsub#1779).
func (r *Receiver) watch(ctx context.Context, n int, stream Stream, reading *pulse, closeStream func()) {
	in := r.opts.Intervals
	var (
		next   = time.Now() // of the next ping; the first one comes at once and shows the state of the stream
		pinged time.Time    // of the oldest unanswered ping; zero if there is none
	)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		asked := false
		select {
		case <-timer.C:
		case <-r.streams.pings[n]:
			asked = true
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if !pinged.IsZero() && reading.since(pinged) {
			pinged = time.Time{}
		}
		if reading.silent(pinged, now, in.Answer) {
			level := r.log.Warn
			if !r.Health().EverAnswered {
				level = r.log.Debug // the emulator never answers pings
			}
			level("A stream from Pub/Sub does not answer; opening it again", "silent", now.Sub(pinged).Round(time.Second))
			closeStream()
			return
		}
		if asked || !now.Before(next) {
			if stream.Ping() != nil {
				return // the reader gets the reason
			}
			if pinged.IsZero() {
				pinged = now
			}
			next = now.Add(in.Ping)
		}
		wake := next
		if overdue := pinged.Add(in.Answer); !pinged.IsZero() && overdue.Before(wake) {
			wake = overdue
		}
		// An answer may be overdue because the reader is blocked. The next turn looks
		// again.
		timer.Reset(max(wake.Sub(now), in.Answer/10))
	}
}

// pulse shows a stream's watch whether its reader waits. The reader writes it.
type pulse struct {
	waiting atomic.Int64 // since when the reader waits for a response; 0 if it does not wait
	heard   atomic.Int64 // time of the last response
}

func (p *pulse) begin(now time.Time) { p.waiting.Store(now.UnixNano()) }

func (p *pulse) end(now time.Time) {
	p.heard.Store(now.UnixNano())
	p.waiting.Store(0)
}

// since reports whether a response has come since then.
func (p *pulse) since(then time.Time) bool { return p.heard.Load() >= then.UnixNano() }

// silent reports whether the answer to a ping is overdue. Only the time that the reader
// spends waiting counts, because a blocked reader may have the answer in its buffers.
func (p *pulse) silent(pinged, now time.Time, limit time.Duration) bool {
	waiting := p.waiting.Load()
	if pinged.IsZero() || waiting == 0 {
		return false
	}
	since := max(pinged.UnixNano(), waiting)
	return now.UnixNano()-since >= limit.Nanoseconds()
}
