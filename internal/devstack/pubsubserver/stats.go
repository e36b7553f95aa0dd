package pubsubserver

import "slices"

// Stats is the state of a subscription.
type Stats struct {
	// Backlog is the number of messages that wait for delivery.
	Backlog int
	// Leased is the number delivered and neither acknowledged nor given up.
	Leased int
	// Acked, Delivered and Redelivered count since the subscription was
	// created; Delivered includes Redelivered.
	Acked, Delivered, Redelivered int
}

func (q *queue) stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{
		Backlog: q.ready, Leased: q.leased,
		Acked: q.acked, Delivered: q.delivered, Redelivered: q.redelivered,
	}
}

// snapshot returns the unacknowledged messages in the order of publishing.
func (q *queue) snapshot() []message {
	q.mu.Lock()
	defer q.mu.Unlock()
	messages := make([]message, 0, q.ready+q.leased)
	for i := range q.used {
		if s := q.slot(i); s.state == slotReady || s.state == slotLeased {
			messages = append(messages, s.message)
		}
	}
	slices.SortFunc(messages, func(a, b message) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	return messages
}
