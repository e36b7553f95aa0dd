package consume

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// leases is the table of outstanding messages. It also queues the acks, nacks and
// extensions that are to be sent to Pub/Sub. It owns the unexported fields of every
// Message. All operations are in bulk, so its lock is taken a few times per response, not
// per message.
type leases struct {
	epoch     time.Time // from which extensions are counted
	maxEvents int
	maxBytes  int64

	mu          sync.Mutex
	outstanding map[string]*Message // by message id; a message stays until it is nacked, let expire, or its ack is confirmed
	bytes       int64
	nextDue     time.Duration // no extension is due earlier
	acks        []*Message    // to be acked, in order
	nacks       []string      // ack ids to be nacked
	expiring    []string      // ack ids of messages that are let expire before their lease was set
	sending     int           // acks and nacks that are being sent
	// receiving ends when the streams are to be closed. It is nil while none are open.
	receiving context.Context

	// Each waiter has its own signal, because one shared broadcast would wake every
	// goroutine on every change.
	toAck     signal // acks were queued
	toNack    signal // nacks were queued, or may be sent now
	freed     signal // fewer messages are outstanding
	confirmed signal // fewer acks and nacks are unconfirmed

	// events and size repeat the number and the bytes of outstanding messages for
	// NearCapacity, which takes no lock.
	events, size atomic.Int64
}

func newLeases(opts Options) *leases {
	return &leases{
		epoch:       time.Now(),
		maxEvents:   opts.MaxEvents,
		maxBytes:    opts.MaxBytes,
		outstanding: make(map[string]*Message),
	}
}

// count updates events and size. The caller has locked mu.
func (l *leases) count() {
	l.events.Store(int64(len(l.outstanding)))
	l.size.Store(l.bytes)
}

// signal wakes the goroutines that wait for a condition. leases.mu guards it.
type signal struct{ wait chan struct{} } // nil if nobody waits

func (s *signal) wake() {
	if s.wait != nil {
		close(s.wait)
		s.wait = nil
	}
}

// wait returns nil once ready returns true, or the error of ctx. It calls ready with mu
// locked: at once, and after each signal.
func (l *leases) wait(ctx context.Context, s *signal, ready func() bool) error {
	for {
		l.mu.Lock()
		if ready() {
			l.mu.Unlock()
			return nil
		}
		if s.wait == nil {
			s.wait = make(chan struct{})
		}
		signalled := s.wait
		l.mu.Unlock()
		select {
		case <-signalled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitForCapacity waits until more may be outstanding.
func (l *leases) waitForCapacity(ctx context.Context) error {
	return l.wait(ctx, &l.freed, func() bool {
		return len(l.outstanding) < l.maxEvents && l.bytes < l.maxBytes
	})
}

// add enters delivered messages into the table. It returns the new ones, and those that are
// redeliveries of outstanding messages; only the newest ack id of a message counts. All
// leases are due for extension at once, because Pub/Sub does not say how long they are. The
// result uses the memory of received.
func (l *leases) add(received []*Message, now time.Time) (fresh, again []*Message) {
	fresh = received[:0]
	due := now.Sub(l.epoch)

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range received {
		if m := l.outstanding[r.ID]; m != nil {
			m.ackID, m.due, m.receipt = r.ackID, due, false
			again = append(again, m)
			continue
		}
		r.due = due
		l.outstanding[r.ID] = r
		l.bytes += r.Size()
		fresh = append(fresh, r)
	}
	l.nextDue = min(l.nextDue, due)
	l.count()
	return fresh, again
}

// drop removes a message from the table. The caller has locked mu, and calls dropped
// afterwards.
func (l *leases) drop(m *Message) {
	if m.deadMark {
		return
	}
	m.deadMark = true
	delete(l.outstanding, m.ID)
	l.bytes -= m.Size()
}

// dropped signals that fewer messages are outstanding. The caller has locked mu.
func (l *leases) dropped() {
	l.count()
	l.freed.wake()
}

// ack queues acks.
func (l *leases) ack(messages []*Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range messages {
		if !m.acking && !m.deadMark {
			m.acking = true
			l.acks = append(l.acks, m)
		}
	}
	l.toAck.wake()
}

func (l *leases) nack(messages []*Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range messages {
		if m.acking || m.deadMark {
			continue
		}
		l.nacks = append(l.nacks, m.ackID)
		l.drop(m)
	}
	l.dropped()
	l.toNack.wake()
}

func (l *leases) letExpire(messages []*Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range messages {
		if m.acking || m.deadMark {
			continue
		}
		if !m.receipt {
			// Its lease may last for ten minutes. The next tick shortens it.
			l.expiring = append(l.expiring, m.ackID)
			l.nextDue = 0
		}
		l.drop(m)
	}
	l.dropped()
}

// pendingAck is an ack that is being sent, with the ack id that was newest at that time.
type pendingAck struct {
	message *Message
	ackID   string
}

// takeAcks waits for queued acks and takes as many as fit into one request.
func (l *leases) takeAcks(ctx context.Context) (batch []pendingAck, err error) {
	err = l.wait(ctx, &l.toAck, func() bool {
		size, n := 0, 0
		for ; n < min(len(l.acks), maxIDs); n++ {
			if size += len(l.acks[n].ackID) + idOverhead; size > maxIDBytes {
				break
			}
		}
		batch = make([]pendingAck, n)
		for i, m := range l.acks[:n] {
			batch[i] = pendingAck{m, m.ackID}
		}
		rest := copy(l.acks, l.acks[n:])
		clear(l.acks[rest:])
		l.acks = l.acks[:rest]
		l.sending += n
		return n > 0
	})
	return batch, err
}

// confirmAcks removes messages whose ack Pub/Sub has taken, and messages whose ack id it no
// longer accepts: it will redeliver those. It returns the acks that must be sent again,
// with the newest ack ids.
func (l *leases) confirmAcks(batch []pendingAck, fates []fate) (left []pendingAck) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range batch {
		// A redelivery that came meanwhile has a lease of its own that must be ended.
		if fates[i] == again || p.message.ackID != p.ackID {
			left = append(left, pendingAck{p.message, p.message.ackID})
			continue
		}
		l.drop(p.message)
	}
	l.sending -= len(batch) - len(left)
	l.dropped()
	l.confirmed.wake()
	return left
}

// receiveUntil notes that streams are open. They are being closed from the end of ctx until
// the call of received.
func (l *leases) receiveUntil(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.receiving = ctx
}

// received notes that all streams have ended.
func (l *leases) received() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.receiving = nil
	l.toNack.wake()
}

// takeNacks waits for queued nacks and takes as many ack ids as fit into one request. While
// streams are being closed it waits, because Pub/Sub would redeliver the messages over
// these streams.
func (l *leases) takeNacks(ctx context.Context) ([]string, error) {
	var ids []string
	err := l.wait(ctx, &l.toNack, func() bool {
		if l.receiving != nil && l.receiving.Err() != nil {
			return false
		}
		ids, l.nacks = cut(l.nacks)
		l.sending += len(ids)
		return len(ids) > 0
	})
	return ids, err
}

// confirmNacks notes that n nacks are done.
func (l *leases) confirmNacks(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending -= n
	l.confirmed.wake()
}

// takeDue returns the ack ids whose leases must be set now, and the message of each. The
// message is nil if it is let expire. The others are not due again before hold has passed.
func (l *leases) takeDue(now time.Time, hold time.Duration) (ids []string, messages []*Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := now.Sub(l.epoch)
	if at < l.nextDue {
		return nil, nil
	}
	l.nextDue = at + hold
	ids, l.expiring = l.expiring, nil
	for range ids {
		messages = append(messages, nil)
	}
	for _, m := range l.outstanding {
		due := m.due
		if m.acking {
			due += ackGrace
		}
		if due <= at {
			m.due = at + hold
			ids = append(ids, m.ackID)
			messages = append(messages, m)
			due = m.due
		}
		l.nextDue = min(l.nextDue, due)
	}
	return ids, messages
}

// ackGrace delays the extension of a message whose ack is being sent: usually the ack makes
// the extension unnecessary.
const ackGrace = 300 * time.Millisecond

// extended notes the results of extensions. It ignores a message that was redelivered
// meanwhile, because its ack id is another. due returns when the next extension is due.
func (l *leases) extended(ids []string, messages []*Message, fates []fate, due func(fate) time.Time) {
	at := map[fate]time.Duration{}
	for _, f := range [...]fate{taken, again, lost} {
		at[f] = due(f).Sub(l.epoch)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, m := range messages {
		if m == nil {
			continue
		}
		if m.ackID == ids[i] {
			m.due = at[fates[i]]
			m.receipt = m.receipt || fates[i] == taken
			l.nextDue = min(l.nextDue, m.due)
		}
	}
}

// settled waits until every ack and nack has been confirmed.
func (l *leases) settled(ctx context.Context) error {
	return l.wait(ctx, &l.confirmed, func() bool {
		return len(l.acks) == 0 && len(l.nacks) == 0 && l.sending == 0
	})
}

// unconfirmed returns how many acks and nacks have not been confirmed.
func (l *leases) unconfirmed() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks) + len(l.nacks) + l.sending
}

// Pub/Sub takes at most 512 KiB in a request. An ack id has some 200 bytes, plus a tag and
// a length.
const (
	maxIDs     = 2500
	maxIDBytes = 500_000
	idOverhead = 4
)

// cut splits off as many ids as fit into one request.
func cut(ids []string) (batch, rest []string) {
	size := 0
	for n, id := range ids {
		size += len(id) + idOverhead
		if n == maxIDs || size > maxIDBytes {
			return ids[:n:n], ids[n:]
		}
	}
	return ids, nil
}
