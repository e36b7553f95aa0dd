package receipts

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

const (
	// batchDelay is how long a receipt waits for others.
	batchDelay = 500 * time.Millisecond
	// maxQueued bounds the receipts that wait, of about 500 bytes each.
	maxQueued = 10_000
	// retryFirst and retryLongest bound the pauses between retries of a request.
	retryFirst, retryLongest = 500 * time.Millisecond, 10 * time.Second
	// remindEvery is how often the log repeats that the topic is unavailable.
	remindEvery = time.Minute
)

// Topic publishes one request and waits for the confirmation.
type Topic interface {
	Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error
}

// The results of a receipt, for metrics.
const (
	ResultOK      = "ok"
	ResultError   = "error"   // not published, after retries
	ResultDropped = "dropped" // too many waited
)

// Publisher publishes receipts in the background. They are best effort: a receipt that
// cannot be published is counted and dropped, and delays nothing. It is safe for
// concurrent use.
type Publisher struct {
	topic Topic
	log   *slog.Logger
	count func(result string, receipts int)

	queue  chan Receipt
	ending chan struct{}
	once   sync.Once
	done   chan struct{}
	work   context.Context // of the requests
	cancel context.CancelFunc
}

// NewPublisher returns a Publisher to a topic, which must be closed. It calls count with
// the number of receipts that had a result.
func NewPublisher(topic Topic, log *slog.Logger, count func(result string, receipts int)) *Publisher {
	p := &Publisher{
		topic: topic, log: log, count: count,
		queue: make(chan Receipt, maxQueued), ending: make(chan struct{}), done: make(chan struct{}),
	}
	p.work, p.cancel = context.WithCancel(context.Background())
	go p.run()
	return p
}

// Add queues a receipt for publishing. It does not block: it drops the receipt if too many
// wait.
func (p *Publisher) Add(r Receipt) {
	select {
	case p.queue <- r:
	default:
		p.count(ResultDropped, 1)
	}
}

// Close publishes the waiting receipts until ctx ends, and waits for the Publisher's
// goroutine. No call of Add may follow.
func (p *Publisher) Close(ctx context.Context) {
	stop := context.AfterFunc(ctx, p.cancel)
	defer stop()
	p.once.Do(func() { close(p.ending) })
	<-p.done
	p.cancel()
}

// run publishes one batch after the other until the Publisher is closed.
func (p *Publisher) run() {
	defer close(p.done)
	t := trouble{log: p.log}
	for {
		batch, last := p.next()
		if len(batch) > 0 {
			p.publish(batch, &t)
		}
		if last && len(p.queue) == 0 {
			t.end()
			return
		}
	}
}

// next collects a batch until batchDelay after its first receipt, or until it is full. last
// reports that the Publisher is being closed; then next does not wait.
func (p *Publisher) next() (batch []*pubsubpb.PubsubMessage, last bool) {
	var due <-chan time.Time
	for len(batch) < topic.MaxRequestMessages {
		// Take all queued receipts before the end: select would choose at random.
		select {
		case r := <-p.queue:
			batch = append(batch, &pubsubpb.PubsubMessage{Attributes: r.Attributes()})
			continue
		default:
		}
		if len(batch) > 0 && due == nil {
			due = time.After(batchDelay)
		}
		select {
		case r := <-p.queue:
			batch = append(batch, &pubsubpb.PubsubMessage{Attributes: r.Attributes()})
		case <-due:
			return batch, false
		case <-p.ending:
			return batch, true
		}
	}
	return batch, false
}

// publish publishes a batch. It retries until Pub/Sub confirms or the context ends, but
// never a request that Pub/Sub refuses as invalid.
func (p *Publisher) publish(batch []*pubsubpb.PubsubMessage, t *trouble) {
	pause := retry.NewBackOff(retryFirst, retryLongest)
	for {
		err := p.topic.Publish(p.work, batch)
		if err == nil {
			p.count(ResultOK, len(batch))
			t.over()
			return
		}
		t.begin(err)
		if retry.ClassOf(err) == retry.Fault || p.work.Err() != nil || p.wait(pause.NextBackOff()) != nil {
			p.count(ResultError, len(batch))
			t.lost += len(batch)
			return
		}
	}
}

// wait pauses before the next try. Close cuts a pause short, because little time is left
// then.
func (p *Publisher) wait(pause time.Duration) error {
	select {
	case <-p.ending:
		return retry.Sleep(p.work, min(pause, retryFirst))
	default:
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.ending:
	case <-p.work.Done():
	}
	return p.work.Err()
}

// trouble logs the beginning and the end of an outage of the receipts topic.
type trouble struct {
	log    *slog.Logger
	logged time.Time // zero: no trouble now
	lost   int
}

func (t *trouble) begin(err error) {
	if now := time.Now(); t.logged.IsZero() || now.Sub(t.logged) >= remindEvery {
		t.logged = now
		t.log.Warn("Receipts of replayed events cannot be published; the events themselves are not affected", "error", err)
	}
}

func (t *trouble) over() {
	if !t.logged.IsZero() {
		t.log.Info("Receipts of replayed events are published again")
		t.logged = time.Time{}
	}
}

func (t *trouble) end() {
	if t.lost > 0 {
		t.log.Warn("Receipts of replayed events were not published: what became of those events is unknown to on-call", "receipts", t.lost)
	}
}
