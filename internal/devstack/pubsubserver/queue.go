package pubsubserver

import (
	"sync"
	"time"
)

// queue is the state of a subscription's messages. All work is done in bulk
// under one lock, without a goroutine or timer for any message.
type queue struct {
	mu          sync.Mutex // guards everything below
	slots       *slots
	backlog     backlog
	leases      leases
	waiters     waiters
	delivery    uint64 // the last one's number
	maxAttempts int    // deliveries after which a message is dead; 0 = never
	closed      error

	acked, delivered, redelivered int
	receipts                      receipts
}

// delivered is one message on its way to a consumer.
type delivered struct {
	encoded  []byte
	slot     uint32
	attempt  int32
	delivery uint64
}

func newQueue(tag uint32, maxAttempts int) *queue {
	slots := &slots{tag: tag}
	return &queue{
		slots:       slots,
		backlog:     backlog{slots: slots},
		leases:      newLeases(slots),
		waiters:     waiters{},
		maxAttempts: maxAttempts,
		// Ids that an earlier server gave out must not name this one's deliveries.
		delivery: uint64(time.Now().UnixNano()),
	}
}

func (q *queue) setMaxAttempts(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.maxAttempts = n
}

// close makes everyone who waits return err.
func (q *queue) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = err
	q.waiters.wakeAll()
}

func (q *queue) put(messages []message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range messages {
		q.backlog.add(q.slots.add(m, 0))
	}
	q.waiters.wakeAll()
}

// putBack returns the dead that could not be forwarded.
func (q *queue) putBack(deads []dead) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range deads {
		q.backlog.addAgain(q.slots.add(d.message, d.attempts))
	}
	q.waiters.wakeAll()
}

// take leases messages to c: at most limit of them, at most a response's bytes
// and no more than c's flow control lets in. With nothing to give, c is woken
// when that may have changed.
func (q *queue) take(c *consumer, limit, leaseSeconds int, out []delivered) ([]delivered, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.silent.Load() {
		return out, errSilent
	}
	if q.closed != nil {
		return out, q.closed
	}
	now := time.Now()
	size := 0
	for len(out) < limit && !c.full() {
		from, i, ok := q.backlog.next(len(out))
		if !ok {
			break
		}
		bytes := len(q.slots.at(i).message.encoded)
		if len(out) > 0 && size+bytes > maxResponseBytes {
			break
		}
		size += bytes
		q.backlog.remove(from)
		q.leases.begin(i, now, leaseSeconds)
		out = append(out, q.deliver(i, c))
	}
	q.delivered += len(out)
	if len(out) == 0 {
		q.waiters[c] = struct{}{}
	}
	return out, nil
}

// deliver makes a leased message an outstanding one of c.
func (q *queue) deliver(i uint32, c *consumer) delivered {
	s := q.slots.at(i)
	q.delivery++
	s.delivery, s.holder, s.awaited = q.delivery, c, c.stream
	s.attempts++
	if s.attempts > 1 {
		q.redelivered++
	}
	c.took(len(s.message.encoded))
	return delivered{encoded: s.message.encoded, slot: i, attempt: s.attempts, delivery: s.delivery}
}

// leave forgets a consumer that waits no more. Its leases run on.
func (q *queue) leave(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiters, c)
}
