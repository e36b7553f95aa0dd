package pubsubserver

import "time"

// maxReceipts is how many delays a subscription remembers.
const maxReceipts = 1 << 16

// receipts is a ring of the latest delays.
type receipts struct {
	delays []time.Duration
	next   int // where the next one goes once the ring is full
}

func (r *receipts) add(d time.Duration) {
	if len(r.delays) < maxReceipts {
		r.delays = append(r.delays, d)
		return
	}
	r.delays[r.next] = d
	r.next = (r.next + 1) % maxReceipts
}

func (r *receipts) all() []time.Duration {
	return append(append([]time.Duration{}, r.delays[r.next:]...), r.delays[:r.next]...)
}

// receipt notes that the client has answered a stream's delivery. The caller holds
// the lock.
func (q *queue) receipt(i uint32) {
	s := q.slot(i)
	if !s.awaited {
		return
	}
	s.awaited = false
	delivered := s.deadline.Add(-time.Duration(s.lease) * time.Second)
	q.receipts.add(time.Since(delivered))
}

// ReceiptDelays returns, for each message that a StreamingPull of the subscription
// delivered, the time from its delivery to the first ModifyAckDeadline or
// Acknowledge that named it; a message delivered twice counts twice, and one that
// was not answered before its lease ran out does not count. Delivery is the moment at
// which the server takes the message for a response. It returns the latest 65,536,
// in the order of the answers.
func (s *Server) ReceiptDelays(subscription string) []time.Duration {
	sub, err := s.subscription(subscription)
	if err != nil {
		return nil
	}
	sub.queue.mu.Lock()
	defer sub.queue.mu.Unlock()
	return sub.queue.receipts.all()
}
