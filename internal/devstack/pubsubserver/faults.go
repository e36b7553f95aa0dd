package pubsubserver

import "strconv"

// BreakStreams ends all open StreamingPull streams with err, as the service does
// now and then; nil means Unavailable. Leases run on. Streams that were silenced do not hear
// of it.
func (s *Server) BreakStreams(err error) {
	if err == nil {
		err = errStreamEnded
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for stream := range s.streams {
		stream.end(err)
	}
}

// Streams returns the number of open StreamingPull streams of a subscription.
func (s *Server) Streams(subscription string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for stream := range s.streams {
		if stream.sub.name == subscription {
			n++
		}
	}
	return n
}

// ExpireLeases ends leases of a subscription at once, as if their deadlines had passed: those
// of the messages with the given ids, or all of them if there is none.
func (s *Server) ExpireLeases(subscription string, messageIDs ...string) {
	sub, err := s.subscription(subscription)
	if err != nil {
		return
	}
	if len(messageIDs) == 0 {
		s.expireAll(sub)
		return
	}
	numbers := make(map[uint64]bool, len(messageIDs))
	for _, id := range messageIDs {
		if n, err := strconv.ParseUint(id, 10, 64); err == nil {
			numbers[n] = true
		}
	}
	s.deadLetter(sub, sub.queue.expireSome(numbers))
}

// RefuseRequests makes the server answer the next n requests, of any kind, with HTTP
// 404, as something between a client and the service does now and then; grpc-go
// reports Unimplemented. n < 0 means all of them, until RefuseRequests is called again.
func (s *Server) RefuseRequests(n int) { s.front.Refuse(n) }

// Peers returns the clients' sides, host:port, of the open TCP connections, in the order
// in which they were opened.
func (s *Server) Peers() []string { return s.front.Peers() }

// Connections returns the number of open TCP connections.
func (s *Server) Connections() int { return len(s.front.Peers()) }

// FreezeConnection makes the TCP connection of a peer go dead while others work: what
// arrives on it is dropped, nothing is sent, and neither side sees an end. An Opening
// says which connection a stream uses. It reports whether the peer is connected.
func (s *Server) FreezeConnection(peer string) bool { return s.front.Freeze(peer) }
