package pubsubserver

import "time"

// leases are the running leases of a queue, in one list for each length. The leases of
// one length expire in the order in which they were given, so the server need not sort
// them. The queue's lock guards them.
type leases struct {
	slots *slots
	lists [maxLeaseSeconds + 1]leaseList
	size  int
}

type leaseList struct{ head, tail uint32 }

const maxLeaseSeconds = int(MaxAckDeadline / time.Second)

func newLeases(s *slots) leases {
	l := leases{slots: s}
	for i := range l.lists {
		l.lists[i] = leaseList{nowhere, nowhere}
	}
	return l
}

// begin leases a message.
func (l *leases) begin(i uint32, from time.Time, seconds int) {
	l.slots.at(i).state = slotLeased
	l.size++
	l.link(i, from, seconds)
}

// renew gives a lease a new length.
func (l *leases) renew(i uint32, from time.Time, seconds int) {
	l.unlink(i)
	l.link(i, from, seconds)
}

// end takes a message out of its list and its holder's flow control.
func (l *leases) end(i uint32) {
	l.unlink(i)
	l.size--
	s := l.slots.at(i)
	if c := s.holder; c != nil {
		c.returned(len(s.message.encoded))
		s.holder = nil
	}
}

// expired returns the leases that are over at now.
func (l *leases) expired(now time.Time) (over []uint32) {
	if l.size == 0 {
		return nil
	}
	for n := range l.lists {
		for i := l.lists[n].head; i != nowhere && !now.Before(l.slots.at(i).deadline); i = l.slots.at(i).next {
			over = append(over, i)
		}
	}
	return over
}

func (l *leases) link(i uint32, from time.Time, seconds int) {
	list := &l.lists[seconds]
	s := l.slots.at(i)
	s.deadline = from.Add(time.Duration(seconds) * time.Second)
	s.lease, s.prev, s.next = uint16(seconds), list.tail, nowhere
	if list.tail == nowhere {
		list.head = i
	} else {
		l.slots.at(list.tail).next = i
	}
	list.tail = i
}

func (l *leases) unlink(i uint32) {
	s := l.slots.at(i)
	list := &l.lists[s.lease]
	if s.prev == nowhere {
		list.head = s.next
	} else {
		l.slots.at(s.prev).next = s.next
	}
	if s.next == nowhere {
		list.tail = s.prev
	} else {
		l.slots.at(s.next).prev = s.prev
	}
	s.prev, s.next = nowhere, nowhere
}
