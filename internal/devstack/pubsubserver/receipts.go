package pubsubserver

import "time"

// maxReceipts is how many delays a subscription remembers.
const maxReceipts = 1 << 16

// receipts is a ring of the latest delays. The queue's lock guards it.
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

// answered notes that the client has answered a stream's delivery of the message.
func (r *receipts) answered(s *slot) {
	if !s.awaited {
		return
	}
	s.awaited = false
	delivered := s.deadline.Add(-time.Duration(s.lease) * time.Second)
	r.add(time.Since(delivered))
}

// ReceiptDelays returns, for each message that a StreamingPull of the subscription
// delivered, the time from its delivery to the first ModifyAckDeadline or
// Acknowledge that named it; a message delivered twice counts twice, and one that
// was not answered before its lease ran out does not count. Delivery is the moment at
// which the server takes the message for a response. It returns the latest 65,536,
// in the order of the answers.
func (s *Server) ReceiptDelays(subscription string) []time.Duration {
	sub, err := s.registry.subscription(subscription)
	if err != nil {
		return nil
	}
	return sub.queue.receiptDelays()
}

func (q *queue) receiptDelays() []time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.receipts.all()
}
