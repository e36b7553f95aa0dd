package pubsubserver

// ack removes messages and reports whether all ids are well formed; if not,
// nothing is done. Ids out of date are ignored, except that a message not yet
// delivered again is acknowledged by its last id.
func (q *queue) ack(ids []string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.slots.wellFormed(ids) {
		return false
	}
	for _, id := range ids {
		i, found, _ := q.slots.find(id)
		if !found {
			continue
		}
		switch q.slots.at(i).state {
		case slotLeased:
			q.ackLeased(i)
		case slotReady:
			q.ackReady(i)
		case slotFree, slotDropped: // acknowledged before
		}
	}
	return true
}

// ackExactly removes the messages whose leases run and returns the other ids,
// which it does not touch.
func (q *queue) ackExactly(ids []string) (invalid []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range ids {
		if i, leased := q.slots.findLeased(id); leased {
			q.ackLeased(i)
		} else {
			invalid = append(invalid, id)
		}
	}
	return invalid
}

func (q *queue) ackLeased(i uint32) {
	q.receipts.answered(q.slots.at(i))
	q.leases.end(i)
	q.slots.release(i)
	q.acked++
}

// ackReady acknowledges a message that waits for its redelivery.
func (q *queue) ackReady(i uint32) {
	q.backlog.drop(i)
	q.acked++
}
