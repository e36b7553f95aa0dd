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
		Backlog: q.backlog.size, Leased: q.leases.size,
		Acked: q.acked, Delivered: q.delivered, Redelivered: q.redelivered,
	}
}

// snapshot returns the unacknowledged messages in the order of publishing.
func (q *queue) snapshot() []message {
	q.mu.Lock()
	defer q.mu.Unlock()
	messages := make([]message, 0, q.backlog.size+q.leases.size)
	for i := range q.slots.used {
		if s := q.slots.at(i); s.unacked() {
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
