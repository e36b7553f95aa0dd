package dlq

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// QueueOptions configures a Queue; zero values are the defaults.
type QueueOptions struct {
	// WaitingPull is how long a pull waits for messages, 3 s. EmptyPulls is how many
	// waiting pulls in a row must be empty before the queue counts as read, 3. One
	// empty pull proves nothing, even if it waited (google-cloud-go#8235).
	WaitingPull time.Duration
	EmptyPulls  int
	// AnswerTimeout bounds a pull that does not wait; 30 s, because a connection may be
	// slow.
	AnswerTimeout time.Duration
	// MaxMessages bounds the messages that Next returns at once; 1000.
	MaxMessages int
	// Lease is how long messages are leased, 60 s, and ExtendEvery how often the
	// leases are extended, 20 s.
	Lease, ExtendEvery time.Duration
	// Patience is how long Pub/Sub may be unavailable, 1 min. RefusalPatience is how
	// long it may refuse before any request has worked, 15 s: see retry.Bounds.
	Patience, RefusalPatience time.Duration
	// ReleaseTimeout bounds the release of all messages; 8 s.
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
	if o.MaxMessages == 0 {
		o.MaxMessages = maxIDs
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// staleAnswers is how many answers in a row may have no message that is older than
// the start and was not seen yet.
const staleAnswers = 3

// Queue reads the dead-letter queue once. A message stays leased until Remove
// acknowledges it or Close releases it. One goroutine uses a Queue, but several may
// call Remove. A goroutine of the Queue extends the leases; Close waits for it.
type Queue struct {
	sub     Subscription
	opts    QueueOptions
	bounds  retry.Bounds
	started time.Time

	mu      sync.Mutex          // guards leased, removed and lost
	leased  map[string]string   // message id → newest ack id; empty when its lease is lost
	removed map[string]struct{} // ids of acknowledged messages, in case they are delivered again
	lost    int                 // leases that ended too early

	again     int           // messages that were delivered twice
	failures  int           // pulls that failed
	stale     int           // answers in a row without a new message that is older than the start
	waited    time.Duration // time in Next since the last new message that is older than the start
	endless   bool          // the reading ended while messages still came
	cut       time.Time     // when a waiting pull reached its deadline last; zero: none did
	stopLease context.CancelFunc
	leasing   sync.WaitGroup
	closed    bool
}

// Open begins to read. The caller must call Close.
func Open(sub Subscription, opts QueueOptions) *Queue {
	ctx, cancel := context.WithCancel(context.Background())
	q := &Queue{
		sub: sub, opts: opts.withDefaults(), started: time.Now(),
		leased: map[string]string{}, removed: map[string]struct{}{}, stopLease: cancel,
	}
	q.bounds.Outage, q.bounds.Refusal = q.opts.Patience, q.opts.RefusalPatience
	q.leasing.Go(func() { q.extend(ctx) })
	return q
}

// Started returns when the reading began, by Pub/Sub's clock. It is exact only after
// the first answer, which has Pub/Sub's date.
func (q *Queue) Started() time.Time {
	if c, ok := q.sub.(interface{ ClockOffset() time.Duration }); ok {
		return q.started.Add(c.ClockOffset())
	}
	return q.started
}

// Leased returns how many messages were read and not removed.
func (q *Queue) Leased() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.leased)
}

// Doubts returns the reasons why the queue may have more messages than were read, each as
// a clause. It returns none after a complete reading.
func (q *Queue) Doubts() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var doubts []string
	if q.failures > 0 {
		doubts = append(doubts, "Pub/Sub failed to answer, and a lost answer may have leased messages, which come back when the leases end")
	}
	if q.again > 0 {
		doubts = append(doubts, fmt.Sprintf("messages were delivered twice (%d): their leases had ended, and another process may have leased them meanwhile", q.again))
	}
	if q.lost > 0 {
		doubts = append(doubts, fmt.Sprintf("leases were lost (%d), and another process may have leased those messages", q.lost))
	}
	if q.endless {
		doubts = append(doubts, "messages kept coming that are newer than the start, or were read already")
	}
	return doubts
}

// Next returns messages that were not returned before, and io.EOF at the end. The end
// is reached when EmptyPulls waiting pulls in a row were empty, or when for as long
// only messages came that are newer than the start. Doubts says why the end is not
// certain.
func (q *Queue) Next(ctx context.Context) ([]*pubsubpb.PubsubMessage, error) {
	began := time.Now()
	defer func() { q.waited += time.Since(began) }()
	for empty := 0; empty < q.opts.EmptyPulls; {
		// A queue that keeps growing would never end.
		if q.stale >= staleAnswers && q.waited+time.Since(began) >= time.Duration(q.opts.EmptyPulls)*q.opts.WaitingPull {
			q.endless = true
			break
		}
		before := q.failures
		// A pull that does not wait is quick while messages keep coming. An empty answer
		// to it does not prove an empty queue (google-cloud-java#2108). But any answer
		// proves that Pub/Sub can be reached, so that the waiting pull after it is empty
		// for want of messages and not for want of a connection.
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

// ask pulls, and returns the new messages of the answer and how many it had in all.
func (q *Queue) ask(ctx context.Context, pull func(context.Context) ([]*pubsubpb.ReceivedMessage, error)) (fresh []*pubsubpb.PubsubMessage, received int, err error) {
	answer, err := pull(ctx)
	fresh = q.take(ctx, answer)
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	return fresh, len(answer), err
}

// take records the leases of received messages and returns the new ones.
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
		if _, ok := q.leased[id]; ok {
			q.again++
		} else {
			fresh = append(fresh, m)
			old = old || m.GetPublishTime().AsTime().Before(q.Started()) || q.maybeOld(m)
		}
		q.leased[id] = r.GetAckId()
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
