package pubsubserver

// backlog are the messages of a queue that wait for delivery. The queue's lock guards it.
type backlog struct {
	slots *slots
	fresh fifo // never delivered
	again fifo // to be delivered again
	size  int  // in both, without the dropped
}

// add appends a message that was never delivered.
func (b *backlog) add(i uint32) {
	b.fresh.push(i)
	b.size++
}

// addAgain appends a message that is to be delivered again.
func (b *backlog) addAgain(i uint32) {
	b.slots.at(i).state = slotReady
	b.again.push(i)
	b.size++
}

// next returns the message whose turn it is, which is the first of from. Redeliveries and
// new messages take turns, so that neither poison messages nor a backlog delay the others.
func (b *backlog) next(turn int) (from *fifo, i uint32, ok bool) {
	first, second := &b.again, &b.fresh
	if turn%2 == 1 {
		first, second = second, first
	}
	if i, ok := b.peek(first); ok {
		return first, i, true
	}
	i, ok = b.peek(second)
	return second, i, ok
}

// remove takes out what next returned.
func (b *backlog) remove(from *fifo) {
	from.pop()
	b.size--
}

// drop acknowledges a message that waits. Its slot becomes free when its turn comes.
func (b *backlog) drop(i uint32) {
	b.slots.at(i).state = slotDropped
	b.size--
}

// peek returns the first message of f that was not dropped.
func (b *backlog) peek(f *fifo) (uint32, bool) {
	for {
		i, ok := f.peek()
		if !ok || b.slots.at(i).state != slotDropped {
			return i, ok
		}
		f.pop()
		b.slots.release(i)
	}
}
