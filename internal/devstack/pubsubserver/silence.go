package pubsubserver

// silence ends all deliveries to c. Its messages stay leased to it.
func (q *queue) silence(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.silent.Store(true)
	delete(q.waiters, c)
	c.signal()
}

func (p *pullStream) isSilent() bool { return p.consumer.silent.Load() }

// SilenceStreams makes the open StreamingPull streams of a subscription go silent
// on healthy connections and returns their number. A silent stream delivers nothing,
// answers no ping, ignores requests and does not end, until the client cancels it or its
// connection ends. Its delivered messages stay leased; other streams get all others.
// Clients of the service report such streams (java-pubsub#490, nodejs-pubsub#1779,
// google-cloud-dotnet#11793).
func (s *Server) SilenceStreams(subscription string) int { return s.streams.silence(subscription) }

// SilenceOpenings makes the next n streams that are opened silent from their start, as
// SilenceStreams does; n < 0 means all of them, until SilenceOpenings is called again.
func (s *Server) SilenceOpenings(n int) { s.openings.silenceNext(n) }

func (o *openings) silenceNext(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.silence = n
}
