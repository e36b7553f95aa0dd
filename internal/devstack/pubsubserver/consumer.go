package pubsubserver

import "sync/atomic"

// consumer is a stream or a pull. Its limits are guarded by the queue's lock.
type consumer struct {
	wake chan struct{} // capacity 1: something may be available

	stream                bool        // not a pull
	silent                atomic.Bool // it gets no more messages; set under the lock
	maxMessages, maxBytes int         // outstanding; 0 = no limit
	messages, bytes       int         // outstanding
}

func newConsumer() *consumer { return &consumer{wake: make(chan struct{}, 1)} }

func (c *consumer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// full: what is outstanding may exceed the limits by the message that reached it.
func (c *consumer) full() bool {
	return c.maxMessages > 0 && c.messages >= c.maxMessages || c.maxBytes > 0 && c.bytes >= c.maxBytes
}

// took counts a message of this size as outstanding.
func (c *consumer) took(size int) {
	c.messages++
	c.bytes += size
}

// returned counts a message of this size as outstanding no more.
func (c *consumer) returned(size int) {
	wasFull := c.full()
	c.messages--
	c.bytes -= size
	if wasFull && !c.full() {
		c.signal()
	}
}

// waiters are the consumers that wait for a message. The queue's lock guards them.
type waiters map[*consumer]struct{}

func (w waiters) wakeAll() {
	for c := range w {
		c.signal()
		delete(w, c)
	}
}
