package pubsubserver

// find returns the slot that an ack id names, if the id is not out of date.
func (q *queue) find(id string) (i uint32, found, valid bool) {
	tag, i, delivery, ok := parseAckID(id)
	if !ok || tag != q.tag {
		return 0, false, false
	}
	if i >= q.used || q.slot(i).delivery != delivery || delivery == 0 {
		return 0, false, true
	}
	return i, true, true
}

// ack removes messages and reports whether all ids are well formed; if not,
// nothing is done. Ids out of date are ignored, except that a message not yet
// delivered again is acknowledged by its last id.
func (q *queue) ack(ids []string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.wellFormed(ids) {
		return false
	}
	for _, id := range ids {
		i, found, _ := q.find(id)
		if !found {
			continue
		}
		switch s := q.slot(i); s.state {
		case slotLeased:
			q.ackLeased(i)
		case slotReady:
			s.state = slotDropped
			q.ready--
			q.acked++
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
		if i, leased := q.findLeased(id); leased {
			q.ackLeased(i)
		} else {
			invalid = append(invalid, id)
		}
	}
	return invalid
}

func (q *queue) findLeased(id string) (i uint32, leased bool) {
	i, found, _ := q.find(id)
	return i, found && q.slot(i).state == slotLeased
}

func (q *queue) ackLeased(i uint32) {
	q.receipt(i)
	q.unlease(i)
	q.release(i)
	q.acked++
}

func (q *queue) wellFormed(ids []string) bool {
	for _, id := range ids {
		if _, _, valid := q.find(id); !valid {
			return false
		}
	}
	return true
}
