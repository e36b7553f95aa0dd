package dlq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/cenkalti/backoff/v5"
	"github.com/sourcegraph/conc/pool"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// QueueOptions configures a Queue; zero values are the defaults.
type QueueOptions struct {
	// PullTimeout is how long one question may wait for messages where there are
	// none, 1 s, and AnswerTimeout how long the answer to one that does not wait
	// may take on a slow line, 30 s.
	PullTimeout, AnswerTimeout time.Duration
	// Most is the most messages that Next returns at once; 1000.
	Most int
	// Quiet is how long nothing new may come before the queue counts as read
	// through; 5 s.
	Quiet time.Duration
	// Lease is for how long messages are held, 60 s, and ExtendEvery how often
	// that is renewed, 20 s.
	Lease, ExtendEvery time.Duration
	// Patience is how long Pub/Sub may be away; 1 min.
	Patience time.Duration
	// ReleaseTimeout bounds giving everything back; 8 s.
	ReleaseTimeout time.Duration
	Logger         *slog.Logger
}

func (o QueueOptions) withDefaults() QueueOptions {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&o.PullTimeout, time.Second)
	set(&o.AnswerTimeout, 30*time.Second)
	set(&o.Quiet, 5*time.Second)
	set(&o.Lease, time.Minute)
	set(&o.ExtendEvery, 20*time.Second)
	set(&o.Patience, time.Minute)
	set(&o.ReleaseTimeout, 8*time.Second)
	if o.Most == 0 {
		o.Most = maxIDs
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

const (
	// maxIDs is the most ack ids in a request: well within 512 KiB.
	maxIDs = 1000
	// releaseStreams is how many requests to release are on the way at once.
	releaseStreams = 4
	// leastWait keeps answers that come at once from making a busy loop.
	leastWait = 100 * time.Millisecond
	// lateAnswers is how many answers in a row may hold nothing but late letters.
	lateAnswers = 3
	// leastAnswers is how many answers without messages make a queue empty.
	leastAnswers = 3
	// pullGrace is how long an answer may still take after the end: longer than a
	// question waits, because a server may go on with one that was cut, and give
	// what is released to nobody.
	pullGrace = 2 * time.Second
)

// Queue reads through the dead-letter queue once. What it has read is held until
// it is removed, or given back by Close. One goroutine uses it, though several may
// call Remove; another of its own renews the leases.
type Queue struct {
	sub     Subscription
	opts    QueueOptions
	started time.Time

	mu      sync.Mutex          // guards held and removed
	held    map[string]string   // message id → newest ack id
	removed map[string]struct{} // ids of messages that must not be seen again

	again     int
	late      int           // answers in a row that held only what came after the start
	waited    time.Duration // in Next, since something came that was there at the start
	stopLease context.CancelFunc
	leasing   sync.WaitGroup
	closed    bool
}

// Open begins to read. Close must be called in any case.
func Open(sub Subscription, opts QueueOptions) *Queue {
	ctx, cancel := context.WithCancel(context.Background())
	q := &Queue{
		sub: sub, opts: opts.withDefaults(), started: time.Now(),
		held: map[string]string{}, removed: map[string]struct{}{}, stopLease: cancel,
	}
	q.leasing.Go(func() { q.extend(ctx) })
	return q
}

// Started is when the reading began.
func (q *Queue) Started() time.Time { return q.started }

// Held is how many messages are held.
func (q *Queue) Held() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.held)
}

// Redelivered is how many messages came a second time: their leases had ended,
// so that somebody else could have read them, too.
func (q *Queue) Redelivered() int { return q.again }

// Next returns messages that have not been seen yet, and io.EOF at the end: when
// nothing came for a while, or only what was published after the start.
func (q *Queue) Next(ctx context.Context) ([]*pubsubpb.PubsubMessage, error) {
	began, empty := time.Now(), 0
	defer func() { q.waited += time.Since(began) }()
	for {
		// A queue that keeps growing would keep the reader for ever.
		if q.late >= lateAnswers && q.waited >= q.opts.Quiet {
			return nil, io.EOF
		}
		asked := time.Now()
		messages, err := q.ask(ctx, true)
		if err != nil || len(messages) > 0 {
			return messages, err
		}
		// An empty answer does not mean an empty queue.
		if empty++; empty >= leastAnswers && time.Since(began) >= q.opts.Quiet {
			return nil, io.EOF
		}
		messages, err = q.ask(ctx, false)
		if err != nil || len(messages) > 0 {
			return messages, err
		}
		if err := pause(ctx, leastWait-time.Since(asked)); err != nil {
			return nil, err
		}
	}
}

// ask returns what is new in one answer.
func (q *Queue) ask(ctx context.Context, immediately bool) ([]*pubsubpb.PubsubMessage, error) {
	received, err := q.pull(ctx, immediately)
	messages := q.take(ctx, received)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return messages, err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pull asks until there is an answer; one that waits in vain is none, but no
// error either.
func (q *Queue) pull(ctx context.Context, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
	return backoff.Retry(ctx, func() ([]*pubsubpb.ReceivedMessage, error) {
		timeout := q.opts.PullTimeout
		if immediately {
			timeout = q.opts.AnswerTimeout
		}
		rpc, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		// A pull that is cut may have taken messages that nobody can give back.
		stop := context.AfterFunc(ctx, func() { time.AfterFunc(pullGrace, cancel) })
		defer stop()
		received, err := q.sub.Pull(rpc, q.opts.Most, immediately)
		switch {
		case err == nil:
			return received, nil
		case ctx.Err() != nil:
			return nil, backoff.Permanent(ctx.Err())
		case status.Code(err) == codes.DeadlineExceeded && !immediately:
			return nil, nil // it waited for messages, as it should
		case passing(err):
			return nil, err
		}
		return nil, backoff.Permanent(err)
	}, backoff.WithMaxElapsedTime(q.opts.Patience), backoff.WithNotify(func(err error, _ time.Duration) {
		q.opts.Logger.Warn("Pub/Sub does not answer; asking again", "error", err)
	}))
}

// passing reports whether another try may help.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Aborted, codes.Internal, codes.ResourceExhausted, codes.Unknown, codes.DeadlineExceeded:
		return true
	}
	return false
}

// take holds what was received and returns what is new of it.
func (q *Queue) take(ctx context.Context, received []*pubsubpb.ReceivedMessage) []*pubsubpb.PubsubMessage {
	if len(received) == 0 {
		return nil
	}
	var (
		fresh []*pubsubpb.PubsubMessage
		ids   = make([]string, 0, len(received))
		done  []string
		old   bool
	)
	q.mu.Lock()
	for _, r := range received {
		m := r.GetMessage()
		id := m.GetMessageId()
		if _, ok := q.removed[id]; ok {
			done = append(done, r.GetAckId())
			continue
		}
		if _, ok := q.held[id]; ok {
			q.again++
		} else {
			fresh = append(fresh, m)
			old = old || m.GetPublishTime().AsTime().Before(q.started)
		}
		q.held[id] = r.GetAckId()
		ids = append(ids, r.GetAckId())
	}
	q.mu.Unlock()
	switch {
	case old:
		q.late, q.waited = 0, 0
	case len(fresh) > 0:
		q.late++
	}
	// The subscription's own lease may be short. If this fails, the next renewal
	// comes, or the message comes again.
	if err := each(ctx, ids, func(ctx context.Context, ids []string) error {
		return q.sub.ModifyAckDeadline(ctx, ids, q.opts.Lease)
	}); err != nil && ctx.Err() == nil {
		q.opts.Logger.Warn("The hold on messages could not be extended", "error", err)
	}
	if err := each(ctx, done, q.sub.Acknowledge); err != nil && ctx.Err() == nil {
		q.opts.Logger.Warn("Messages that were done with came again, and could not be acknowledged", "error", err)
	}
	return fresh
}

// each calls do for parts of the ids that fit into a request.
func each(ctx context.Context, ids []string, do func(context.Context, []string) error) error {
	for part := range slices.Chunk(ids, maxIDs) {
		rpc, cancel := context.WithTimeout(ctx, requestTimeout)
		err := do(rpc, part)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

const requestTimeout = 10 * time.Second

// extend renews all leases until ctx ends.
func (q *Queue) extend(ctx context.Context) {
	ticker := time.NewTicker(q.opts.ExtendEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for part := range slices.Chunk(q.ackIDs(), maxIDs) {
			// A request that hangs must not let the leases of the others end.
			rpc, cancel := context.WithTimeout(ctx, min(requestTimeout, q.opts.ExtendEvery))
			err := q.sub.ModifyAckDeadline(rpc, part, q.opts.Lease)
			cancel()
			if err != nil && ctx.Err() == nil {
				q.opts.Logger.Warn("The hold on messages could not be extended", "error", err)
			}
		}
	}
}

func (q *Queue) ackIDs() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Values(q.held))
}

// Remove acknowledges the messages, and goes on when ctx ends: what was done
// with them cannot be undone. After an error some may still be in the queue.
func (q *Queue) Remove(ctx context.Context, messageIDs []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.opts.Patience)
	defer cancel()
	for part := range slices.Chunk(messageIDs, maxIDs) {
		ids := make([]string, 0, len(part))
		q.mu.Lock()
		for _, id := range part {
			if ackID, ok := q.held[id]; ok {
				ids = append(ids, ackID)
			}
			q.removed[id] = struct{}{}
		}
		q.mu.Unlock()
		if len(ids) == 0 {
			continue
		}
		if err := q.insist(ctx, func(ctx context.Context) error { return q.sub.Acknowledge(ctx, ids) }); err != nil {
			return fmt.Errorf("acknowledge dead letters: %w", err)
		}
		q.mu.Lock()
		for _, id := range part {
			delete(q.held, id)
		}
		q.mu.Unlock()
	}
	return nil
}

func (q *Queue) insist(ctx context.Context, do func(context.Context) error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		rpc, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		err := do(rpc)
		if err != nil && !passing(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(q.opts.Patience))
	return err
}

// Close gives back everything that is still held. It may be called again.
func (q *Queue) Close() error {
	if q.closed {
		return nil
	}
	q.closed = true
	// A renewal that came after the release would undo it.
	q.stopLease()
	q.leasing.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), q.opts.ReleaseTimeout)
	defer cancel()
	p := pool.New().WithErrors().WithMaxGoroutines(releaseStreams)
	for part := range slices.Chunk(q.ackIDs(), maxIDs) {
		p.Go(func() error {
			return q.insist(ctx, func(ctx context.Context) error { return q.sub.ModifyAckDeadline(ctx, part, 0) })
		})
	}
	if err := p.Wait(); err != nil {
		return errors.Join(fmt.Errorf("some dead letters come back only in up to %v: they could not be given back at once", q.opts.Lease), err)
	}
	return nil
}
