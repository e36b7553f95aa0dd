package dlq

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/patience"
)

// QueueOptions configures a Queue; zero values are the defaults.
type QueueOptions struct {
	// WaitingPull is for how long a pull waits where there are no messages, 3 s,
	// and EmptyPulls how many such pulls in a row must bring nothing before the
	// queue counts as read through, 3. One alone proves nothing: a pull may bring
	// nothing although there are messages, also one that waits
	// (google-cloud-go#8235).
	WaitingPull time.Duration
	EmptyPulls  int
	// AnswerTimeout bounds a pull that does not wait; 30 s, for a slow connection.
	AnswerTimeout time.Duration
	// Most is the most messages that Next returns at once; 1000.
	Most int
	// Lease is for how long messages are leased, 60 s, and ExtendEvery how often
	// that is renewed, 20 s.
	Lease, ExtendEvery time.Duration
	// Patience is how long Pub/Sub may be away, 1 min, and RefusalPatience how long
	// it may refuse before anything has worked, 15 s: see patience.Bounds.
	Patience, RefusalPatience time.Duration
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
	set(&o.WaitingPull, 3*time.Second)
	set(&o.AnswerTimeout, 30*time.Second)
	set(&o.Lease, time.Minute)
	set(&o.ExtendEvery, 20*time.Second)
	set(&o.Patience, time.Minute)
	set(&o.RefusalPatience, 15*time.Second)
	set(&o.ReleaseTimeout, 8*time.Second)
	if o.EmptyPulls == 0 {
		o.EmptyPulls = 3
	}
	if o.Most == 0 {
		o.Most = maxIDs
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// staleAnswers is how many answers in a row may hold nothing that was in the queue
// at the start and was not seen yet.
const staleAnswers = 3

// Queue reads through the dead-letter queue once. What it has read stays leased
// until it is removed, or given back by Close. One goroutine uses it, though several
// may call Remove; another of its own renews the leases.
type Queue struct {
	sub     Subscription
	opts    QueueOptions
	bounds  patience.Bounds
	started time.Time

	mu      sync.Mutex          // guards held, removed and lost
	held    map[string]string   // message id → newest ack id; empty when its lease is lost
	removed map[string]struct{} // ids of messages that must not be seen again
	lost    int                 // leases that ended too early

	again     int           // messages that came twice
	failures  int           // pulls that failed
	stale     int           // answers in a row with nothing new from before the start
	waited    time.Duration // in Next, since something new from before the start came
	endless   bool          // reading ended although messages still came
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
	q.bounds.Outage, q.bounds.Refusal = q.opts.Patience, q.opts.RefusalPatience
	q.leasing.Go(func() { q.extend(ctx) })
	return q
}

// Started is when the reading began, by Pub/Sub's clock as far as its answers
// tell it: times of messages may be compared with it after the first one.
func (q *Queue) Started() time.Time {
	if c, ok := q.sub.(interface{ ClockOffset() time.Duration }); ok {
		return q.started.Add(c.ClockOffset())
	}
	return q.started
}

// Held is how many messages were read and not removed.
func (q *Queue) Held() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.held)
}

// Doubts says why there may be more in the queue than was read, a part of a
// sentence each; none if the queue was read through as far as Pub/Sub tells.
func (q *Queue) Doubts() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var doubts []string
	if q.failures > 0 {
		doubts = append(doubts, "Pub/Sub failed to answer, and messages may have got lost with an answer until their leases end")
	}
	if q.again > 0 {
		doubts = append(doubts, fmt.Sprintf("messages came twice (%d): their leases had ended, and somebody else may have read them meanwhile", q.again))
	}
	if q.lost > 0 {
		doubts = append(doubts, fmt.Sprintf("leases were lost (%d), and somebody else may have those messages", q.lost))
	}
	if q.endless {
		doubts = append(doubts, "messages kept coming that were published after the start, or were read already")
	}
	return doubts
}

// Next returns messages that have not been seen yet, and io.EOF at the end: when
// several waiting pulls in a row brought nothing, or when for as long only messages
// came that were published after the start. Doubts says when the end is not sure.
func (q *Queue) Next(ctx context.Context) ([]*pubsubpb.PubsubMessage, error) {
	began := time.Now()
	defer func() { q.waited += time.Since(began) }()
	for empty := 0; empty < q.opts.EmptyPulls; {
		// A queue that keeps growing would keep the reader for ever.
		if q.stale >= staleAnswers && q.waited+time.Since(began) >= time.Duration(q.opts.EmptyPulls)*q.opts.WaitingPull {
			q.endless = true
			break
		}
		before := q.failures
		// It is quick while messages keep coming. That it brings nothing is no
		// evidence (google-cloud-java#2108), but its answer is: without one, a pull
		// that waited in vain could be one that nobody has heard.
		fresh, _, err := q.ask(ctx, q.pullNow)
		if err != nil || len(fresh) > 0 {
			return fresh, err
		}
		fresh, received, err := q.ask(ctx, q.pullWaiting)
		if err != nil || len(fresh) > 0 {
			return fresh, err
		}
		if received > 0 || q.failures > before {
			empty = 0
		} else {
			empty++
		}
	}
	return nil, io.EOF
}

// ask returns what is new in the answer to a pull, and how many messages it had.
func (q *Queue) ask(ctx context.Context, pull func(context.Context) ([]*pubsubpb.ReceivedMessage, error)) (fresh []*pubsubpb.PubsubMessage, received int, err error) {
	answer, err := pull(ctx)
	fresh = q.take(ctx, answer)
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	return fresh, len(answer), err
}

// take leases what was received and returns what is new of it.
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
			old = old || m.GetPublishTime().AsTime().Before(q.Started()) || q.maybeOld(m)
		}
		q.held[id] = r.GetAckId()
		ids = append(ids, r.GetAckId())
	}
	q.mu.Unlock()
	if old {
		q.stale, q.waited = 0, 0
	} else {
		q.stale++
	}
	q.receipt(ctx, ids)
	q.discard(ctx, done)
	return fresh
}
