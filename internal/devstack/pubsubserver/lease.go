package pubsubserver

import (
	"strconv"
	"time"
)

// modify gives the leases a new length from now on, 0 ending them at once, and
// reports whether all ids are well formed. Ids of what is not leased are ignored.
func (q *queue) modify(ids []string, seconds func(i int) int) (deads []dead, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.slots.wellFormed(ids) {
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
		i, leased := q.slots.findLeased(id)
		if !leased {
			invalid = append(invalid, id)
			continue
		}
		q.receipts.answered(q.slots.at(i))
		length := seconds(n)
		if length == 0 {
			deads = q.giveUp(i, deads)
			released = true
			continue
		}
		q.leases.renew(i, now, length)
	}
	if released {
		q.waiters.wakeAll()
	}
	return deads, invalid
}

// expire ends the leases that are over at now.
func (q *queue) expire(now time.Time) (deads []dead) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.giveUpAll(q.leases.expired(now))
}

// expireAll ends all leases.
func (q *queue) expireAll() (deads []dead) { return q.expire(time.Now().Add(MaxAckDeadline)) }

// expireSome ends the leases of the messages of these numbers.
func (q *queue) expireSome(numbers map[uint64]bool) (deads []dead) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var over []uint32
	for i := range q.slots.used {
		if s := q.slots.at(i); s.state == slotLeased && numbers[s.message.number] {
			over = append(over, i)
		}
	}
	return q.giveUpAll(over)
}

// giveUpAll ends leases without an acknowledgement and wakes the consumers that wait.
func (q *queue) giveUpAll(leased []uint32) (deads []dead) {
	for _, i := range leased {
		deads = q.giveUp(i, deads)
	}
	if len(leased) > 0 {
		q.waiters.wakeAll()
	}
	return deads
}

// giveUp ends a lease without an acknowledgement: the message becomes ready, or
// is removed and appended to the dead.
func (q *queue) giveUp(i uint32, deads []dead) []dead {
	q.leases.end(i)
	s := q.slots.at(i)
	if q.maxAttempts > 0 && int(s.attempts) >= q.maxAttempts {
		deads = append(deads, dead{message: s.message, attempts: s.attempts})
		q.slots.release(i)
		return deads
	}
	q.backlog.addAgain(i)
	return deads
}

// ExpireLeases ends leases of a subscription at once, as if their deadlines had passed: those
// of the messages with the given ids, or all of them if there is none.
func (s *Server) ExpireLeases(subscription string, messageIDs ...string) {
	sub, err := s.registry.subscription(subscription)
	if err != nil {
		return
	}
	if len(messageIDs) == 0 {
		sub.deadLetter(sub.queue.expireAll())
		return
	}
	numbers := make(map[uint64]bool, len(messageIDs))
	for _, id := range messageIDs {
		if n, err := strconv.ParseUint(id, 10, 64); err == nil {
			numbers[n] = true
		}
	}
	sub.deadLetter(sub.queue.expireSome(numbers))
}
