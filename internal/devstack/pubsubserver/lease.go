package pubsubserver

import "time"

// modify gives the leases a new length from now on, 0 ending them at once, and
// reports whether all ids are well formed. Ids of what is not leased are ignored.
func (q *queue) modify(ids []string, seconds func(i int) int) (deads []dead, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.wellFormed(ids) {
		return nil, false
	}
	deads, _ = q.modifyLeased(ids, seconds)
	return deads, true
}

// modifyExactly is modify, but it returns the ids of what is not leased.
func (q *queue) modifyExactly(ids []string, seconds func(i int) int) (deads []dead, invalid []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.modifyLeased(ids, seconds)
}

// modifyLeased does what modify does. The caller holds the lock.
func (q *queue) modifyLeased(ids []string, seconds func(i int) int) (deads []dead, invalid []string) {
	now := time.Now()
	released := false
	for n, id := range ids {
		i, leased := q.findLeased(id)
		if !leased {
			invalid = append(invalid, id)
			continue
		}
		q.receipt(i)
		length := seconds(n)
		if length == 0 {
			deads = q.giveUp(i, deads)
			released = true
			continue
		}
		q.unlink(i)
		q.slot(i).deadline = now.Add(time.Duration(length) * time.Second)
		q.link(i, length)
	}
	if released {
		q.wakeAll()
	}
	return deads, invalid
}

// expire ends the leases that are over at now, or all of them.
func (q *queue) expire(now time.Time, all bool) (deads []dead) {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := q.leased
	if before == 0 {
		return nil
	}
	for n := range q.leases {
		for {
			i := q.leases[n].head
			if i == nowhere || !all && now.Before(q.slot(i).deadline) {
				break
			}
			deads = q.giveUp(i, deads)
		}
	}
	if q.leased != before {
		q.wakeAll()
	}
	return deads
}

// expireSome ends the leases of the messages of these numbers.
func (q *queue) expireSome(numbers map[uint64]bool) (deads []dead) {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := q.leased
	for i := range q.used {
		if s := q.slot(i); s.state == slotLeased && numbers[s.number] {
			deads = q.giveUp(i, deads)
		}
	}
	if q.leased != before {
		q.wakeAll()
	}
	return deads
}

// giveUp ends a lease without an acknowledgement: the message becomes ready, or
// is removed and appended to the dead.
func (q *queue) giveUp(i uint32, deads []dead) []dead {
	q.unlease(i)
	s := q.slot(i)
	if q.maxAttempts > 0 && int(s.attempts) >= q.maxAttempts {
		deads = append(deads, dead{s.message, s.attempts})
		q.release(i)
		return deads
	}
	s.state = slotReady
	q.ready++
	q.again.push(i)
	return deads
}

// lease marks a slot as leased.
func (q *queue) lease(i uint32, seconds int) {
	q.slot(i).state = slotLeased
	q.leased++
	q.link(i, seconds)
}

// unlease takes a slot out of its lease list and its holder's flow control.
func (q *queue) unlease(i uint32) {
	s := q.slot(i)
	q.unlink(i)
	q.leased--
	if c := s.holder; c != nil {
		wasFull := c.full()
		c.messages--
		c.bytes -= len(s.encoded)
		if wasFull && !c.full() {
			c.signal()
		}
		s.holder = nil
	}
}

func (q *queue) link(i uint32, seconds int) {
	list := &q.leases[seconds]
	s := q.slot(i)
	s.lease, s.prev, s.next = uint16(seconds), list.tail, nowhere
	if list.tail == nowhere {
		list.head = i
	} else {
		q.slot(list.tail).next = i
	}
	list.tail = i
}

func (q *queue) unlink(i uint32) {
	s := q.slot(i)
	list := &q.leases[s.lease]
	if s.prev == nowhere {
		list.head = s.next
	} else {
		q.slot(s.prev).next = s.next
	}
	if s.next == nowhere {
		list.tail = s.prev
	} else {
		q.slot(s.next).prev = s.prev
	}
	s.prev, s.next = nowhere, nowhere
}
