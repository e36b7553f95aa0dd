package pubsubserver

import (
	"sync"
	"sync/atomic"
	"time"
)

// message is what a topic hands to its subscriptions; it is never changed.
type message struct {
	encoded []byte // a PubsubMessage with its id and publish time
	number  uint64 // the id; increases with every publish
}

// nowhere ends a list of slots.
const nowhere = ^uint32(0)

type slotState uint8

const (
	slotFree    slotState = iota
	slotReady             // in one of the queues
	slotLeased            // in one of the lease lists
	slotDropped           // acknowledged while ready; free once it leaves its queue
)

// slot holds one unacknowledged message. Slots never move, so an ack id can name
// them.
type slot struct {
	message
	delivery   uint64    // number of the latest delivery; 0 before the first
	deadline   time.Time // of the lease
	holder     *consumer // whose flow control counts it; nil unless leased by a stream
	prev, next uint32    // in the lease list
	attempts   int32     // deliveries so far
	lease      uint16    // seconds, which is also the index of the lease list
	state      slotState
	awaited    bool // the lease is still the one that a stream's delivery gave
}

// leaseList holds the leases of one length, which therefore expire in the order
// in which they were given.
type leaseList struct{ head, tail uint32 }

// queue is the state of a subscription's messages. All work is done in bulk
// under one lock, without a goroutine or timer for any message.
type queue struct {
	tag uint32 // of its ack ids

	mu          sync.Mutex          // guards everything below
	chunks      []*[chunkSlots]slot // grow without moving what is there
	used        uint32              // slots that were ever used
	free        []uint32            // those of them that are free again
	fresh       fifo                // never delivered
	again       fifo                // to be delivered again
	ready       int                 // in fresh and again, without the dropped
	leased      int
	leases      [maxLeaseSeconds + 1]leaseList
	delivery    uint64 // the last one's number
	waiters     map[*consumer]struct{}
	maxAttempts int // deliveries after which a message is dead; 0 = never
	closed      error

	acked, delivered, redelivered int
	receipts                      receipts
}

// chunkSlots is how many slots the table grows by.
const chunkSlots = 1 << 10

func (q *queue) slot(i uint32) *slot { return &q.chunks[i/chunkSlots][i%chunkSlots] }

const maxLeaseSeconds = int(MaxAckDeadline / time.Second)

// consumer is a stream or a pull. Its limits are guarded by the queue's lock.
type consumer struct {
	wake chan struct{} // capacity 1: something may be available

	stream                bool        // not a pull
	silent                atomic.Bool // it gets no more messages; set under the lock
	maxMessages, maxBytes int         // outstanding; 0 = no limit
	messages, bytes       int         // outstanding
}

func newConsumer() *consumer { return &consumer{wake: make(chan struct{}, 1)} }

func (c *consumer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// full: what is outstanding may exceed the limits by the message that reached it.
func (c *consumer) full() bool {
	return c.maxMessages > 0 && c.messages >= c.maxMessages || c.maxBytes > 0 && c.bytes >= c.maxBytes
}

// delivered is one message on its way to a consumer.
type delivered struct {
	encoded  []byte
	slot     uint32
	attempt  int32
	delivery uint64
}

// dead is a message that has used up its attempts.
type dead struct {
	message
	attempts int32
}

func newQueue(tag uint32, maxAttempts int) *queue {
	q := &queue{
		tag:         tag,
		waiters:     map[*consumer]struct{}{},
		maxAttempts: maxAttempts,
		// Ids that an earlier server gave out must not name this one's deliveries.
		delivery: uint64(time.Now().UnixNano()),
	}
	for i := range q.leases {
		q.leases[i] = leaseList{nowhere, nowhere}
	}
	return q
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
	q.wakeAll()
}

func (q *queue) wakeAll() {
	for c := range q.waiters {
		c.signal()
		delete(q.waiters, c)
	}
}

func (q *queue) put(messages []message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range messages {
		q.fresh.push(q.add(m, 0))
	}
	q.wakeAll()
}

// putBack returns the dead that could not be forwarded.
func (q *queue) putBack(deads []dead) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range deads {
		q.again.push(q.add(d.message, d.attempts))
	}
	q.wakeAll()
}

func (q *queue) add(m message, attempts int32) uint32 {
	var i uint32
	if n := len(q.free); n > 0 {
		i, q.free = q.free[n-1], q.free[:n-1]
	} else {
		i = q.used
		q.used++
		if int(i/chunkSlots) == len(q.chunks) {
			q.chunks = append(q.chunks, new([chunkSlots]slot))
		}
	}
	*q.slot(i) = slot{message: m, attempts: attempts, state: slotReady, prev: nowhere, next: nowhere}
	q.ready++
	return i
}

func (q *queue) release(i uint32) {
	*q.slot(i) = slot{}
	q.free = append(q.free, i)
}

// take leases messages to c: at most max of them, at most a response's bytes
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
	deadline := time.Now().Add(time.Duration(leaseSeconds) * time.Second)
	size := 0
	for len(out) < limit && !c.full() {
		// Redeliveries and new messages take turns, so that neither poison messages
		// nor a backlog delay the others.
		first, second := &q.again, &q.fresh
		if len(out)%2 == 1 {
			first, second = second, first
		}
		from := first
		i, ok := q.peek(from)
		if !ok {
			from = second
			if i, ok = q.peek(from); !ok {
				break
			}
		}
		s := q.slot(i)
		if len(out) > 0 && size+len(s.encoded) > maxResponseBytes {
			break
		}
		from.pop()
		size += len(s.encoded)
		q.delivery++
		s.delivery, s.deadline, s.holder, s.awaited = q.delivery, deadline, c, c.stream
		s.attempts++
		if s.attempts > 1 {
			q.redelivered++
		}
		c.messages++
		c.bytes += len(s.encoded)
		q.ready--
		q.lease(i, leaseSeconds)
		out = append(out, delivered{encoded: s.encoded, slot: i, attempt: s.attempts, delivery: s.delivery})
	}
	q.delivered += len(out)
	if len(out) == 0 {
		q.waiters[c] = struct{}{}
	}
	return out, nil
}

// peek returns the first message of f that was not dropped.
func (q *queue) peek(f *fifo) (uint32, bool) {
	for {
		i, ok := f.peek()
		if !ok || q.slot(i).state != slotDropped {
			return i, ok
		}
		f.pop()
		q.release(i)
	}
}

// leave forgets a consumer that waits no more. Its leases run on.
func (q *queue) leave(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiters, c)
}
