// Package bundle publishes like the gateway's own Pub/Sub client: one request has
// messages of several payloads and streams, and Pub/Sub refuses or loses it as a whole
// (cloud.google.com/go/pubsub, PublishSettings).
package bundle

import (
	"context"
	"sync"
	"time"
)

const (
	// Size is how many messages a request has, at most.
	Size = 100
	// Delay is how long a message waits for others, at most.
	Delay = 10 * time.Millisecond
)

// Message stands for the published message of an event.
type Message struct {
	ID string
	// Refused means that Pub/Sub refuses the request of this message.
	Refused bool
}

// Publisher publishes for all streams of a gateway. It is safe for concurrent
// use.
type Publisher struct {
	// Lose, if set, decides for each request with these messages whether it fails.
	// It is called by one goroutine at a time.
	Lose func([]Message) bool

	mu     sync.Mutex
	open   *request // that is being filled; nil: none
	losing sync.Mutex
}

// request is one publish request.
type request struct {
	messages []Message
	timer    *time.Timer
	done     chan struct{} // closed when its outcome is known
	failed   bool
}

// part is the part of a payload that travels in one request.
type part struct {
	of    *request
	count int
}

// Publish publishes a payload and reports for each message whether Pub/Sub has it. If ctx
// ends first, it reports that Pub/Sub has none.
func (p *Publisher) Publish(ctx context.Context, messages []Message) ([]bool, error) {
	published := make([]bool, 0, len(messages))
	for _, part := range p.add(messages) {
		select {
		case <-part.of.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		for range part.count {
			published = append(published, !part.of.failed)
		}
	}
	return published, nil
}

// add puts messages into requests.
func (p *Publisher) add(messages []Message) []part {
	p.mu.Lock()
	defer p.mu.Unlock()
	var parts []part
	for len(messages) > 0 {
		if p.open == nil {
			r := &request{done: make(chan struct{})}
			r.timer = time.AfterFunc(Delay, func() { p.expire(r) })
			p.open = r
		}
		r := p.open
		n := min(len(messages), Size-len(r.messages))
		r.messages = append(r.messages, messages[:n]...)
		parts = append(parts, part{r, n})
		messages = messages[n:]
		if len(r.messages) == Size {
			p.open = nil
			r.timer.Stop()
			go p.send(r)
		}
	}
	return parts
}

// expire sends a request that has waited for long enough, unless it was full
// before.
func (p *Publisher) expire(r *request) {
	p.mu.Lock()
	mine := p.open == r
	if mine {
		p.open = nil
	}
	p.mu.Unlock()
	if mine {
		p.send(r)
	}
}

func (p *Publisher) send(r *request) {
	for _, m := range r.messages {
		r.failed = r.failed || m.Refused
	}
	if p.Lose != nil {
		p.losing.Lock()
		r.failed = p.Lose(r.messages) || r.failed
		p.losing.Unlock()
	}
	close(r.done)
}
